"""Rollouts with each memory, of a slow model whose network is two dense layers; and adapters on the real one."""

import dataclasses
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from tests import tiny
from tests.learning.test_fast import NET, embed
from vgen_jax.config import section
from vgen_jax.diffusion.masking import Masking
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.memory.files import save_memory
from vgen_jax.nn.lora import LoraConfig, init_lora, kernel_shapes, merge
from vgen_jax.types import Array, Condition, Params, Prediction, VgenError
from vgen_jax.worlds import memories
from vgen_jax.worlds.rollout import ChunkAction, Generated, Start, fresh_memory, rollout
from vgen_jax.worlds.sampling import chunk_sampler, merged, with_adapter
from vgen_jax.worlds.slow import SlowModel
from vgen_jax.worlds.slow_networks import Denoiser, denoiser

pytestmark = pytest.mark.usefixtures("checked_axes")

PAST, FUTURE, SIZE = 2, 2, 4
FAST = {"lora": {"rank": 2, "alpha": 0.0, "targets": ""}, "learning_rate": 0.02}
SAMPLER = Sampler("ddim", 2)
RNG = jax.random.key(0)


@pytest.fixture(scope="module")
def model() -> SlowModel:
    """A network that looks at all frames, the text and the actions."""
    config = tiny.slow_config(kind="x0", masking=Masking("zero", 0.1, reference=True))

    def predict(params: Params, x: Array, t: Array, condition: Condition) -> Prediction:
        return Prediction(NET.apply({"params": params["unet"]}, x, t, condition), "x0")

    batch = tiny.latent_batch(size=SIZE)
    window = np.concatenate([batch.video_BTHWC] * 2, axis=-1)
    params = tiny.random_params(NET.init, window, jnp.zeros(2, int), embed({}, batch))["params"]
    networks = Denoiser(print, embed, predict)
    return SlowModel(config, networks, {"unet": params}, None, tiny.info(), ((PAST, 2 * FUTURE),))


def config_of(name: str, **changes: Any) -> memories.MemoryConfig:
    return section(memories.MemoryConfig, {**common.memory(name, **FAST), **changes}, "memory")


def start(ids: tuple[int, ...] = (4, 9)) -> Start:
    rows = [np.random.default_rng(n).normal(size=(PAST, SIZE, SIZE, 3)) for n in ids]
    return Start(np.asarray(rows, np.float32), np.zeros((len(ids), PAST, 2), np.float32), np.asarray(ids))


def stream(chunks: int) -> Iterator[ChunkAction]:
    for n in range(chunks):
        yield ChunkAction(f"{n}", np.arange(8, dtype=np.int32) + 3, np.full((FUTURE, 2), 0.1 * n, np.float32))


class Rollouts:
    """One sampler and one memory, for several rollouts."""

    def __init__(self, model: SlowModel, name: str, guidance: float = 1.0, **changes: Any):
        config = config_of(name, **changes)
        self.memory, self.updates = memories.make_memory(config, model, PAST, FUTURE)
        self._sample, self.samplers = chunk_sampler(model, SAMPLER, guidance, FUTURE, config.sampling)

    def __call__(self, chunks: int, ids: tuple[int, ...] = (4, 9), m: Any = None) -> list[Generated]:
        steps = rollout(self._sample, self.memory, start(ids), stream(chunks), FUTURE, RNG, m)
        return [chunk._replace(memory=jax.device_get(chunk.memory)) for chunk in steps]


def video(chunks: list[Generated]) -> np.ndarray:
    return np.concatenate([chunk.latents_BTHWC for chunk in chunks], axis=1)


@pytest.fixture(scope="module")
def without(model: SlowModel) -> np.ndarray:
    return video(Rollouts(model, "none")(4))


@pytest.fixture(scope="module")
def temp_lora(model: SlowModel) -> Rollouts:
    return Rollouts(model, "temp_lora")


@pytest.mark.parametrize("name", ["context", "anchor", "temp_lora", "temp_lora_original", "temp_lora_full"])
def test_every_memory_changes_what_follows_and_compiles_once(model: SlowModel, without: np.ndarray, name: str) -> None:
    rollouts = Rollouts(model, name)
    found = video(rollouts(4))
    assert found.shape == without.shape and np.isfinite(found).all()
    assert rollouts.samplers() == 1 and rollouts.updates() == (1 if name.startswith("temp_lora") else 0)
    if name.startswith("temp_lora"):
        np.testing.assert_allclose(found[:, :FUTURE], without[:, :FUTURE], atol=1e-5)
    assert np.abs(found[:, FUTURE:] - without[:, FUTURE:]).max() > 1e-3


def test_reset_brings_back_the_first_rollout_bit_for_bit(temp_lora: Rollouts) -> None:
    first, second = temp_lora(3), temp_lora(3)
    np.testing.assert_array_equal(video(first), video(second))
    jax.tree.map(np.testing.assert_array_equal, first[-1].memory, second[-1].memory)
    kept = temp_lora(3, m=first[-1].memory)
    assert np.abs(video(kept)[:, :FUTURE] - video(first)[:, :FUTURE]).max() > 1e-3, "a kept memory is another"


def test_a_video_does_not_depend_on_its_batch(temp_lora: Rollouts) -> None:
    both, alone = temp_lora(3), temp_lora(3, ids=(9,))
    np.testing.assert_allclose(video(alone)[0], video(both)[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_merged_and_intercepted_adapters_give_the_same_video(model: SlowModel, guidance: float) -> None:
    merged, intercepted = (
        video(Rollouts(model, "temp_lora", guidance, sampling=sampling)(3)) for sampling in ("merged", "intercepted")
    )
    np.testing.assert_allclose(merged, intercepted, rtol=1e-3, atol=1e-4)


def test_a_long_rollout_holds_no_more_than_a_short_one(model: SlowModel, temp_lora: Rollouts) -> None:
    held = []
    sample_chunk, _ = chunk_sampler(model, SAMPLER, 1.0, FUTURE)
    for n, _ in enumerate(rollout(sample_chunk, temp_lora.memory, start(), stream(40), FUTURE, RNG)):
        if n % 4 == 0:  # to collect takes longer than a chunk
            gc.collect()
            held.append(sum(x.nbytes for x in jax.live_arrays()))
    assert len(held) > 4 and len(set(held[1:])) == 1


def test_a_saved_memory_goes_on_in_another_rollout(model: SlowModel, temp_lora: Rollouts, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    learnt = temp_lora(2)[-1].memory
    config = config_of("temp_lora", load=str(tmp_path / "m"))
    save_memory(tmp_path / "m", learnt, memories.settings(config, tmp_path))
    m = memories.loaded(config, temp_lora.memory, start(), RNG, tmp_path)
    np.testing.assert_array_equal(video(temp_lora(2, m=m)), video(temp_lora(2, m=learnt)))
    (tmp_path / "model.safetensors").write_bytes(b"others")
    with pytest.raises(VgenError, match="use the same settings"):
        memories.loaded(config, temp_lora.memory, start(), RNG, tmp_path)
    with pytest.raises(VgenError, match="use the same settings"):
        memories.loaded(dataclasses.replace(config, kind="none"), temp_lora.memory, start(), RNG, tmp_path)
    assert memories.loaded(config_of("temp_lora"), temp_lora.memory, start(), RNG, tmp_path) is None


def test_a_fresh_memory_depends_on_the_key_and_the_video(temp_lora: Rollouts) -> None:
    a = fresh_memory(temp_lora.memory, start((4, 9)), RNG).lora
    b = fresh_memory(temp_lora.memory, start((9, 5)), RNG).lora
    c = fresh_memory(temp_lora.memory, start((4, 9)), jax.random.key(1)).lora
    name = next(iter(a.weights))
    np.testing.assert_array_equal(a.weights[name]["a"][1], b.weights[name]["a"][0])
    for x, y in ((a.weights[name]["a"][0], a.weights[name]["a"][1]), (a.weights[name]["a"], c.weights[name]["a"])):
        assert np.abs(x - y).max() > 1e-2


@pytest.mark.parametrize("name", common.MEMORIES)
def test_every_named_memory_is_a_config(name: str) -> None:
    config = config_of(name)
    assert config.kind == name.removesuffix("_original").removesuffix("_full") and config.load == ""


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "elephant"}, "memory.kind is 'elephant': use one of none, context, anchor, retrieval, temp_lora"),
        ({"sampling": "both"}, "memory.sampling is 'both'"),
        ({"size": 3}, "memory.size is unknown"),
        ({"context": {"chunks": 1}}, "memory.context.window is missing"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(VgenError, match=named):
        config_of("none", **changes)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_every_layer_of_the_real_network_can_be_adapted(remat: str) -> None:
    """An adapter for a layer that is not met is an error: tracing is enough to find that all of them are."""
    slow = tiny.slow_config()
    networks = denoiser(dataclasses.replace(slow, unet=dataclasses.replace(slow.unet, remat=remat)))
    batch = tiny.latent_batch()
    params = jax.eval_shape(networks.init, jax.random.key(0))
    model = SlowModel(slow, networks, params, None, tiny.info(), ())

    def predict(params: Params) -> tuple[Array, Params]:
        lora = init_lora(params["unet"], LoraConfig(2, 0.0, ""), jax.random.key(0))
        condition = networks.embed(params, batch)
        adapted = with_adapter(model, lora).denoiser.predict
        return adapted(params, batch.video_BTHWC, jnp.zeros(2, int), condition).value, merged(params, lora)

    value, whole = jax.eval_shape(predict, params)
    assert value.shape == batch.video_BTHWC.shape
    assert jax.tree.map(lambda x: x.shape, whole) == jax.tree.map(lambda x: x.shape, params)


@pytest.mark.long
def test_a_fresh_adapter_changes_nothing_in_the_real_network(rng: Array) -> None:
    networks, batch = denoiser(tiny.slow_config()), tiny.latent_batch(b=1)
    params = tiny.random_params(networks.init)
    lora = init_lora(params["unet"], LoraConfig(2, 0.0, ""), rng)
    assert len(lora.weights) == len(kernel_shapes(params["unet"]))
    jax.tree.map(np.testing.assert_array_equal, merge(params["unet"], lora), params["unet"])
    condition = networks.embed(params, batch)
    model = SlowModel(tiny.slow_config(), networks, params, None, tiny.info(), ())

    @tiny.jit
    def predict(params: Params, lora: Any) -> Array:
        adapted = model if lora is None else with_adapter(model, lora)
        return adapted.denoiser.predict(params, batch.video_BTHWC, jnp.full(1, 7), condition).value

    np.testing.assert_array_equal(predict(params, lora), predict(params, None))
