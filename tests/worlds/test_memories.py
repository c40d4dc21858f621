"""Worlds with each memory, of a slow model whose network is two dense layers; and adapters on the real one."""

import dataclasses
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from configs import common
from tests import tiny
from tests.learning.test_fast import NET, embed
from vgen_jax.config import section
from vgen_jax.diffusion.masking import Masking
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.memory.files import save_memory
from vgen_jax.nn.lora import LoraConfig, init_lora, kernel_shapes, merge
from vgen_jax.types import Array, ChunkAction, Condition, Params, Prediction, VgenError
from vgen_jax.worlds import memories
from vgen_jax.worlds.assembly import slow_world
from vgen_jax.worlds.autoencoder import FrozenAutoencoder
from vgen_jax.worlds.rollout import Generated, rollout
from vgen_jax.worlds.slow import SlowModel
from vgen_jax.worlds.slow_networks import Denoiser, WarpConfig, denoiser
from vgen_jax.worlds.slow_world import SlowState, SlowWorld, merged, with_adapter

pytestmark = pytest.mark.usefixtures("checked_axes")

PAST, FUTURE, SIZE = 2, 2, 4
FACTOR = tiny.SIZE // SIZE
FAST = {"lora": {"rank": 2, "alpha": 0.0, "targets": ""}, "learning_rate": 0.02}
SAMPLER = Sampler("ddim", 2)
RNG = jax.random.key(0)


def averages(frames: Array) -> Array:
    """Squares of pixels as latents."""
    *lead, _, _, c = frames.shape
    squares = jnp.reshape(frames, (*lead, SIZE, FACTOR, SIZE, FACTOR, c)).astype(jnp.float32)
    return squares.mean((-4, -2)) / 127.5 - 1.0


def squares(latents: Array) -> Array:
    """Latents as squares of pixels."""
    frames = latents.repeat(FACTOR, axis=-3).repeat(FACTOR, axis=-2)
    return jnp.clip((frames + 1.0) * 127.5, 0, 255).astype(jnp.uint8)


@pytest.fixture(scope="module")
def model() -> SlowModel:
    """A network that looks at all frames, the text, the actions and what is to be seen again."""
    warp = WarpConfig(width=1, layers=1, cells=1, patch=FACTOR, norm_groups=1)
    config = tiny.slow_config(kind="x0", masking=Masking("zero", 0.1, reference=True), warp=warp)

    def predict(params: Params, x: Array, t: Array, condition: Condition) -> Prediction:
        out = NET.apply({"params": params["unet"]}, x, t, condition)
        if condition.reference_BTHWC is not None:
            out = out + 0.1 * condition.reference_BTHWC
        return Prediction(out, "x0")

    batch = tiny.latent_batch(size=SIZE)
    window = np.concatenate([batch.video_BTHWC] * 2, axis=-1)
    params = tiny.random_params(NET.init, window, jnp.zeros(2, int), embed({}, batch))["params"]
    networks = Denoiser(print, embed, predict)
    autoencoder = FrozenAutoencoder(Partial(averages), Partial(squares), 3, FACTOR, Path(), {}, 1.0)
    return SlowModel(config, networks, {"unet": params}, autoencoder, tiny.info(), ((PAST, 2 * FUTURE),))


def config_of(name: str, **changes: Any) -> memories.MemoryConfig:
    return section(memories.MemoryConfig, {**common.memory(name, **FAST), **changes}, "memory")


def start(world: SlowWorld, ids: tuple[int, ...] = (4, 9), rng: Array = RNG) -> SlowState:
    shape = (PAST, tiny.SIZE, tiny.SIZE, 3)
    rows = [np.random.default_rng(n).integers(0, 256, shape, np.uint8) for n in ids]
    return world.start(np.stack(rows), None, rng, np.asarray(ids))


def stream(chunks: int) -> Iterator[ChunkAction]:
    for n in range(chunks):
        yield ChunkAction(f"{n}", np.arange(8, dtype=np.int32) + 3, np.full((FUTURE, 2), 0.1 * n, np.float32))


class Rollouts:
    """One world, for several rollouts."""

    def __init__(self, model: SlowModel, name: str, guidance: float = 1.0, **changes: Any):
        self.world = slow_world(model, SAMPLER, config_of(name, **changes), PAST, FUTURE, guidance)

    def __call__(self, chunks: int, ids: tuple[int, ...] = (4, 9), m: Any = None) -> list[Generated]:
        state = start(self.world, ids)
        return list(rollout(self.world, state if m is None else state.replace(memory=m), stream(chunks)))


def video(chunks: list[Generated]) -> np.ndarray:
    """The latents: as many frames are past as are new."""
    return np.concatenate([chunk.state.past.frames_BTHWC for chunk in chunks], axis=1)


@pytest.fixture(scope="module")
def every(model: SlowModel) -> dict[str, Rollouts]:
    return {name: Rollouts(model, name) for name in common.MEMORIES}


@pytest.fixture(scope="module")
def without(every: dict[str, Rollouts]) -> np.ndarray:
    return video(every["none"](4))


@pytest.fixture(scope="module")
def temp_lora(every: dict[str, Rollouts]) -> Rollouts:
    return every["temp_lora"]


@pytest.mark.parametrize("name", [name for name in common.MEMORIES if name != "none"])
def test_every_memory_changes_what_follows_and_compiles_once(
    every: dict[str, Rollouts], without: np.ndarray, name: str
) -> None:
    rollouts = every[name]
    found = video(rollouts(4))
    assert found.shape == without.shape and np.isfinite(found).all()
    assert rollouts.world.compilations() == (1, 1 if name.startswith("temp_lora") else 0)
    if name.startswith("temp_lora"):
        np.testing.assert_allclose(found[:, :FUTURE], without[:, :FUTURE], atol=1e-5)
    assert np.abs(found[:, FUTURE:] - without[:, FUTURE:]).max() > 1e-3


def leaves(state: SlowState) -> list[np.ndarray]:
    data = state.replace(key=jax.random.key_data(state.key))
    return [np.array(leaf) for leaf in jax.tree.leaves(data)]


@pytest.mark.parametrize(("name", "ids"), [*((name, (4, 9)) for name in common.MEMORIES), ("temp_lora", (9,))])
def test_a_forked_state_gives_what_an_unforked_one_gives(
    every: dict[str, Rollouts], name: str, ids: tuple[int, ...]
) -> None:
    """Bit for bit: other ways are tried from a state, and then the first one again."""
    world, (one, other) = every[name].world, stream(2)
    straight = [start(world, ids)]
    for action in (one, other):
        straight.append(world.step(straight[-1], action)[0])
    expected = [leaves(state) for state in straight]
    state = start(world, ids)
    for number, action in enumerate((one, other), 1):
        world.step(state, one if action is other else other)
        forked = world.step(state, action)[0]
        world.step(state, action)
        for a, b in zip(leaves(forked), expected[number], strict=True):
            np.testing.assert_array_equal(a, b)
        state = forked
    for kept, before in zip(straight, expected, strict=True):
        for a, b in zip(leaves(kept), before, strict=True):
            np.testing.assert_array_equal(a, b, err_msg="a state has changed")


def test_reset_brings_back_the_first_rollout_bit_for_bit(temp_lora: Rollouts) -> None:
    first, second = temp_lora(3), temp_lora(3)
    np.testing.assert_array_equal(video(first), video(second))
    jax.tree.map(np.testing.assert_array_equal, first[-1].state.memory, second[-1].state.memory)
    kept = temp_lora(3, m=first[-1].state.memory)
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


def test_every_key_of_the_memory_counts(model: SlowModel, temp_lora: Rollouts, tmp_path: Path) -> None:
    """``guidance`` and ``load``, for whoever steps a world: they are not arguments that could be left out."""
    exaggerated = video(Rollouts(model, "temp_lora", **{"guidance": 3.0})(3))
    assert np.abs(exaggerated - video(temp_lora(3)))[:, FUTURE:].max() > 1e-3
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    exported = model._replace(folder=tmp_path)
    learnt = temp_lora(2)[-1].state.memory
    save_memory(tmp_path / "m", learnt, memories.settings(config_of("temp_lora"), exported))
    loaded = Rollouts(exported, "temp_lora", load=str(tmp_path / "m"))
    np.testing.assert_array_equal(video(loaded(2)), video(temp_lora(2, m=learnt)))


def test_a_long_rollout_holds_no_more_than_a_short_one(temp_lora: Rollouts) -> None:
    held = []
    for n, _ in enumerate(rollout(temp_lora.world, start(temp_lora.world), stream(40))):
        if n % 4 == 0:  # to collect takes longer than a chunk
            gc.collect()
            held.append(sum(x.nbytes for x in jax.live_arrays()))
    assert len(held) > 4 and len(set(held[1:])) == 1


def test_a_memory_of_another_model_is_refused(model: SlowModel, temp_lora: Rollouts, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    exported = model._replace(folder=tmp_path)
    m, config = temp_lora(1)[-1].state.memory, config_of("temp_lora", load=str(tmp_path / "m"))
    save_memory(tmp_path / "m", m, memories.settings(config, exported))
    with pytest.raises(VgenError, match="use the same settings"):
        memories.loader(dataclasses.replace(config, kind="none"), exported)(m)
    (tmp_path / "model.safetensors").write_bytes(b"others")
    with pytest.raises(VgenError, match="use the same settings"):
        memories.loader(config, exported)(m)
    with pytest.raises(VgenError, match="has no export"):
        memories.loader(config, model)
    assert memories.loader(config_of("temp_lora"), model)(m) is m


def test_a_fresh_memory_depends_on_the_key_and_the_video(temp_lora: Rollouts) -> None:
    a, b, c = (
        start(temp_lora.world, ids, jax.random.key(seed)).memory.lora
        for ids, seed in (((4, 9), 0), ((9, 5), 0), ((4, 9), 1))
    )
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

    value, both = jax.eval_shape(predict, params)
    assert value.shape == batch.video_BTHWC.shape
    assert jax.tree.map(lambda x: x.shape, both) == jax.tree.map(lambda x: x.shape, params)


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
