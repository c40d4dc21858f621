"""AVID's methods in a world of latents: what the networks see, where each method begins, what it trains."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.avid import rt1
from tests import tiny
from vgen_jax import avid_nets, build_avid
from vgen_jax.avid_nets import LatentConfig, PixelConfig, PromptConfig, WorldConfig
from vgen_jax.build import section
from vgen_jax.build_avid import Base, MethodConfig
from vgen_jax.checkpoint import export
from vgen_jax.compose.avid import avid, with_mask
from vgen_jax.compose.mixing import action_guidance, product_of_experts
from vgen_jax.data.text import encode_text
from vgen_jax.diffusion.prediction import KINDS
from vgen_jax.diffusion.samplers import Sampler, sample
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.learning.slow import TrainConfig, make_update
from vgen_jax.learning.state import OptimizerConfig, init_state, make_optimizer
from vgen_jax.objectives.adapter import AdapterLoss, adapter
from vgen_jax.runs.avid import to_model
from vgen_jax.slow_model import UNetConfig
from vgen_jax.types import Array, Condition, VgenError, VideoBatch

SCHEDULE = Schedule("scaled_linear", 20, 0.00085, 0.012, zero_terminal_snr=True)
WORLD = WorldConfig(SCHEDULE, "v", "continuous", 3, 1, channels=4, autoencoder="digest")
SHAPE = UNetConfig((8,), (True,), 1, 8, 4, 1, False, "none", "float32")
NARROW = dataclasses.replace(SHAPE, block_channels=(4,), head_dim=4)
NO_TEXT, TEXT = PromptConfig(0, 0, 0, 0, ""), PromptConfig(8, 1, 2, 24, "the task ")
ADAPTER = LatentConfig(NARROW, NO_TEXT, "concatenated")
BASE = MethodConfig("diffusion", LatentConfig(SHAPE, TEXT, "none"), False, False)
BY_ACTIONS = dataclasses.replace(BASE, unet=dataclasses.replace(BASE.unet, actions="added"))
METHODS = {
    "avid": MethodConfig("avid", ADAPTER, True, True),
    "no_mask": MethodConfig("avid", ADAPTER, False, True),
    "no_conditioning": MethodConfig("avid", ADAPTER, True, False),
    "diffusion": MethodConfig("diffusion", ADAPTER, False, False),
}


@pytest.fixture(scope="module")
def base() -> Base:
    return Base(BASE, WORLD, tiny.random_params(build_avid.diffusion(BASE, WORLD).init), "digest")


def batch(texts: tuple[str, ...] = ()) -> VideoBatch:
    """Two clips of 1 + 2 latents with actions, and with texts if there are any."""
    rng = np.random.default_rng(0)
    token = np.stack([encode_text(text, 8) for text in texts]) if texts else None
    valid_BT = np.broadcast_to(np.arange(3) > 0, (2, 3))
    action = rng.normal(size=(2, 3, 3)).astype(np.float32) * valid_BT[..., None]
    return VideoBatch(rng.normal(size=(2, 3, 4, 4, 4)).astype(np.float32), ~valid_BT, token, action, valid_BT)


def call() -> tuple[Array, Array, Condition]:
    clip = batch()
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 2, 4, 4, 4)), jnp.float32)
    condition = Condition(
        action_BTA=clip.action_BTA[:, 1:], action_valid_BT=np.ones((2, 2), bool), past_BTHWC=clip.video_BTHWC[:, :1]
    )
    return x, jnp.asarray([1, 15]), condition


def begun(name: str, base: Base) -> tuple[build_avid.Method, Any]:
    """A method and random parameters for it, but those of its head, which begin at zero."""
    method = build_avid.method(METHODS[name], WORLD, base)
    params = tiny.random_params(method.init)
    return method, {**params, "head": jax.tree.map(jnp.zeros_like, params["head"])}


def test_avid_begins_half_way_and_a_forced_mask_gives_base_or_adapter(base: Base) -> None:
    method, params = begun("avid", base)
    x, t_B, condition = call()
    found = tiny.jit(lambda p: method.parts(p, x, t_B, condition))(params)
    assert found.final.kind == "v" and found.adapted.mask_BTHW1.shape == (2, 2, 4, 4, 1)
    np.testing.assert_array_equal(found.adapted.mask_BTHW1, 0.5)
    half = (found.base.value + found.adapted.value_BTHWC) / 2
    np.testing.assert_allclose(found.final.value, half, rtol=1e-5, atol=1e-5)
    for mask, wanted in ((1.0, found.base.value), (0.0, found.adapted.value_BTHWC)):
        forced = avid(lambda *a: found.base, with_mask(lambda *a: found.adapted, mask))
        np.testing.assert_array_equal(forced(x, t_B, condition).value, wanted)


def test_without_a_mask_avid_begins_as_the_base_to_the_bit(base: Base) -> None:
    method, params = begun("no_mask", base)
    found = tiny.jit(lambda p: method.parts(p, *call()))(params)
    np.testing.assert_array_equal(found.final.value, found.base.value)


def test_the_first_frame_stands_clean_in_its_place_and_beside_every_frame() -> None:
    past, x, beside = jnp.full((1, 1, 2, 2, 1), 5.0), jnp.full((1, 3, 2, 2, 1), 7.0), jnp.full((1, 3, 2, 2, 1), 9.0)
    seen = avid_nets.clip_of(past, x, beside)
    np.testing.assert_array_equal(seen[0, :, 0, 0], [[5, 5, 0], [7, 5, 9], [7, 5, 9], [7, 5, 9]])
    np.testing.assert_array_equal(avid_nets.clip_of(past, x, None), seen[..., :2])
    for wrong in (None, jnp.zeros((1, 2, 2, 2, 1))):
        with pytest.raises(VgenError, match="a latent UNet is given 1"):
            avid_nets.clip_of(wrong, x, None)


def test_every_method_sees_the_first_frame_the_actions_and_what_it_stands_beside(base: Base) -> None:
    """One program, asked with one thing changed after another."""
    method, params = begun("avid", base)
    x, t_B, condition = call()
    adapt = method.parts.func

    @tiny.jit
    def adapter_says(past: Array, action: Array, base_value: Array) -> Array:
        given = dataclasses.replace(condition, past_BTHWC=past, action_BTA=action)
        answer = build_avid.Prediction(base_value, "v")
        return adapt(lambda *a: answer, params, x, t_B, given).adapted.value_BTHWC

    arguments = [condition.past_BTHWC, condition.action_BTA, np.ones(x.shape, np.float32)]
    plain = adapter_says(*arguments)
    assert plain.shape == x.shape
    for n in range(3):
        changed = [a + 1.0 if i == n else a for i, a in enumerate(arguments)]
        assert (np.asarray(adapter_says(*changed)) != np.asarray(plain)).any()


def test_null_actions_are_learnt_and_begin_at_zero(base: Base) -> None:
    method = build_avid.method(METHODS["diffusion"], WORLD, base)
    params = tiny.jit(method.init)(jax.random.key(0))
    features = params["unet"]["action_features"]
    assert features["linear_1"]["kernel"].shape == (3, 16) and features["linear_2"]["kernel"].shape == (16, 8)
    assert params["unet"]["time_embedding"]["linear_2"]["kernel"].shape[1] == 8
    np.testing.assert_array_equal(features["null"], np.zeros(8))
    x, t_B, condition = call()
    unknown = dataclasses.replace(condition, action_valid_BT=np.zeros((2, 2), bool))
    slopes = tiny.jit(jax.grad(lambda p: (method.predict(p, x, t_B, unknown).value ** 2).mean()))(
        tiny.random_params(method.init)
    )["unet"]["action_features"]
    assert np.asarray(slopes["null"]).any() and not np.asarray(slopes["linear_2"]["kernel"]).any()


# Of the others nearly all is compiling.
@pytest.mark.parametrize("name", [n if n == "avid" else pytest.param(n, marks=pytest.mark.long) for n in METHODS])
def test_training_moves_what_it_should_and_never_the_base(name: str, base: Base) -> None:
    method = build_avid.method(METHODS[name], WORLD, base)
    before = jax.tree.map(np.array, base.params)
    optimizer = make_optimizer(OptimizerConfig())
    params = tiny.random_params(method.init)
    state = init_state(lambda rng: params, optimizer, jax.random.key(0))
    objective = adapter(method.predict, to_model(WORLD), 1, SCHEDULE, AdapterLoss("none", 0.2))
    state, metrics = tiny.jit(make_update(optimizer, TrainConfig()))(state, objective, batch())
    assert float(metrics["grad_norm"]) > 0 and np.isfinite(float(metrics["loss"]))
    moved = jax.tree.map(lambda a, b: (np.asarray(a) != np.asarray(b)).any(), state.params, params)
    assert any(jax.tree.leaves(moved))
    jax.tree.map(np.testing.assert_array_equal, base.params, before)
    assert "text" not in state.params.get("network", state.params)  # which the base has
    shapes = {leaf.shape for leaf in jax.tree.leaves(state.params)}
    assert base.params["unet"]["conv_in"]["kernel"].shape not in shapes


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_samples(kind: str) -> None:
    """The sampler's few steps over AVID, which hand the past on as they got it; eps needs some signal at the end."""
    schedule = dataclasses.replace(SCHEDULE, zero_terminal_snr=kind != "eps")
    world = dataclasses.replace(WORLD, kind=kind, schedule=schedule)
    calls: list[Condition] = []

    def base(x_t: Array, t_B: Array, condition: Condition) -> build_avid.Prediction:
        calls.append(condition)
        return build_avid.Prediction(0.5 * x_t, kind)

    method = build_avid.avid_adapter(METHODS["avid"], world, base)
    predictor = method.predictor(tiny.random_params(method.init))
    x, _, condition = call()
    keys = jax.random.split(jax.random.key(0), 2)
    made = tiny.jit(lambda x: sample(predictor, schedule, Sampler("ddim", 2), x, condition, keys))(x)
    assert made.shape == x.shape and np.isfinite(made).all() and made.std() > 0
    assert all(c.action_BTA is None and c.past_BTHWC.shape == (2, 1, 4, 4, 4) for c in calls)


def test_fine_tuning_begins_as_the_base_whatever_the_actions(base: Base) -> None:
    method = build_avid.method(BY_ACTIONS, WORLD, None, base)
    fresh = tiny.jit(build_avid.method(BY_ACTIONS, WORLD, None).init)(jax.random.key(0))
    params = method.start(fresh)
    jax.tree.map(np.testing.assert_array_equal, params["unet"]["conv_in"], base.params["unet"]["conv_in"])
    assert "action_embedding" in params["unet"] and "action_embedding" not in base.params["unet"]
    x, t_B, condition = call()
    ours, plain = tiny.jit(lambda p, b: (method.predict(p, x, t_B, condition), b(x, t_B, condition)))(
        params, build_avid.base_predictor(base)
    )
    np.testing.assert_allclose(ours.value, plain.value, rtol=1e-4, atol=1e-5)
    joined = dataclasses.replace(BASE, unet=dataclasses.replace(BASE.unet, actions="concatenated"))
    for wrong in (joined, METHODS["diffusion"]):
        with pytest.raises(VgenError, match="fine-tuning trains the same network"):
            build_avid.method(wrong, WORLD, None, base)


def test_fine_tuning_by_language_reads_the_text_and_changes_the_network(base: Base) -> None:
    method = build_avid.method(BASE, WORLD, None, base)
    params = method.start(tiny.random_params(method.init))
    jax.tree.map(np.testing.assert_array_equal, params, base.params)
    objective = adapter(method.predict, to_model(WORLD), 1, SCHEDULE, AdapterLoss("none", 0.0))
    slopes = tiny.jit(jax.value_and_grad(objective, has_aux=True))
    rng = jax.random.key(0)
    (loss, _), gradient = slopes(params, batch(("pick", "move")), rng)
    (other, _), _ = slopes(params, batch(("pick", "drop")), rng)
    assert float(loss) != float(other)
    assert np.asarray(gradient["unet"]["conv_in"]["kernel"]).any()
    token = np.asarray(gradient["text"]["token"]["embedding"])
    read = {int(i) for text in ("the task pick", "the task move") for i in encode_text(text, 32)} - {0}
    assert {int(i) for i in np.flatnonzero(token.any(1))} == read, "of bytes that are read, the prompt's too"
    x, t_B, condition = call()
    empty, end = (
        tiny.jit(method.predict.func)(params, x, t_B, given).value
        for given in (condition, dataclasses.replace(condition, text_BLD=embedded(params, "")))
    )
    np.testing.assert_allclose(empty, end, rtol=1e-4, atol=1e-5)


def embedded(params: Any, text: str) -> Array:
    """A text as the encoder of ``BASE`` reads it, without a prompt."""
    encoder, _ = avid_nets.reader(TEXT, "float32")
    return encoder.apply({"params": params["text"]}, np.tile(encode_text(text, len(text) + 1), (2, 1)))[0]


@pytest.mark.parametrize("mix", [product_of_experts, action_guidance])
def test_mixtures_take_latent_methods(mix: Any, base: Base) -> None:
    own = build_avid.method(METHODS["diffusion"], WORLD, base)
    both = mix(build_avid.base_predictor(base), own.predictor(tiny.random_params(own.init)), 0.0, SCHEDULE)
    x, t_B, condition = call()
    mixed, plain = tiny.jit(lambda: (both(x, t_B, condition), build_avid.base_predictor(base)(x, t_B, condition)))()
    np.testing.assert_allclose(mixed.value, plain.value, rtol=1e-4, atol=1e-5)


def test_what_does_not_go_together_is_refused(base: Base) -> None:
    pixels = PixelConfig(8, (1,), 1, 8, 1, "none", "float32")
    with pytest.raises(VgenError, match="pixel UNet in a world of latents"):
        build_avid.method(dataclasses.replace(METHODS["avid"], unet=pixels), WORLD, base)
    with pytest.raises(VgenError, match="latent UNet in a world of frames"):
        build_avid.method(BASE, dataclasses.replace(WORLD, autoencoder="", channels=3), None)
    with pytest.raises(VgenError, match="ControlNet is there for worlds of frames"):
        build_avid.method(MethodConfig("controlnet", ADAPTER, False, False), WORLD, base)
    with pytest.raises(VgenError, match="world differs"):
        build_avid.method(METHODS["avid"], dataclasses.replace(WORLD, autoencoder="another"), base)
    with pytest.raises(VgenError, match="open with 1 frame"):
        dataclasses.replace(WORLD, past=2)
    with pytest.raises(VgenError, match="'eps' cannot be sampled"):
        dataclasses.replace(WORLD, kind="eps")
    with pytest.raises(VgenError, match="unet.actions 'multiplied' is unknown"):
        dataclasses.replace(ADAPTER, actions="multiplied")


def test_sections_find_their_network() -> None:
    """The keys of ``method.unet`` say which network it is; a wrong one is named all the same."""
    raw = dataclasses.asdict(METHODS["avid"])
    assert section(MethodConfig, raw, "method") == METHODS["avid"]
    with pytest.raises(VgenError, match="method.unet.txt is unknown"):
        section(MethodConfig, {**raw, "unet": {**raw["unet"], "txt": 1}}, "method")


COUNTS = {"paper_145m": 0, "paper_34m": 0, "paper_11m": 0}


@pytest.mark.parametrize("variant", COUNTS)
def test_the_papers_adapters_have_so_many_parameters(variant: str) -> None:
    """The labels of AVID's table 9 are of the same networks with attention to a text and an image (docs/avid.md)."""
    config = section(MethodConfig, rt1.get_config(f"{variant}.avid").method.to_dict(), "method")
    world = dataclasses.replace(WORLD, action_dim=7)
    method = build_avid.avid_adapter(config, world, lambda *a: a)
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes)) == COUNTS[variant]


def test_exports_hold_nothing_of_the_base(base: Base, tmp_path: Path) -> None:
    described = {"method": dataclasses.asdict(BASE), "world": dataclasses.asdict(WORLD), "base_sha256": ""}
    export(tmp_path / "base", base.params, described)
    read = build_avid.load_base(tmp_path / "base")
    assert (read.config, read.world) == (BASE, WORLD)
    method = build_avid.method(METHODS["avid"], WORLD, read)
    params = tiny.random_params(method.init)
    of_avid = {"method": dataclasses.asdict(METHODS["avid"]), "world": dataclasses.asdict(WORLD)}
    export(tmp_path / "avid", params, {**of_avid, "base_sha256": read.sha256})
    config, _, again = build_avid.load_method(tmp_path / "avid", read)
    assert config == METHODS["avid"] and set(again) == {"network", "head"} and set(again["network"]) == {"unet"}
    jax.tree.map(np.testing.assert_array_equal, again, params)
