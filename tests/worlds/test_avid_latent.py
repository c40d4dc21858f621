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
from vgen_jax.compose.avid import avid, with_mask
from vgen_jax.compose.mixing import action_guidance, product_of_experts
from vgen_jax.config import section
from vgen_jax.data.text import encode_text
from vgen_jax.diffusion.prediction import KINDS
from vgen_jax.diffusion.samplers import Sampler, trajectory
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.files.exports import export
from vgen_jax.learning.slow import TrainConfig, make_update
from vgen_jax.learning.state import OptimizerConfig, init_state, make_optimizer
from vgen_jax.nn.embeddings import ActionEmbedding, ActionFeatures
from vgen_jax.objectives.adapter import AdapterLoss, adapter
from vgen_jax.tasks.adapter import to_model
from vgen_jax.types import Array, Condition, Prediction, Predictor, VgenError, VideoBatch
from vgen_jax.worlds import avid_networks
from vgen_jax.worlds.avid import (
    Base,
    Method,
    MethodConfig,
    avid_adapter,
    base_predictor,
    diffusion,
    load_base,
    load_method,
    method_of,
)
from vgen_jax.worlds.avid_networks import LatentConfig, PixelConfig, PromptConfig, WorldConfig
from vgen_jax.worlds.slow_networks import UNetConfig

SCHEDULE = Schedule("scaled_linear", 20, 0.00085, 0.012, zero_terminal_snr=True)
WORLD = WorldConfig(SCHEDULE, "v", "continuous", 3, 1, channels=4, autoencoder="digest")
SHAPE = UNetConfig((8,), (False,), 1, 8, 4, 1, False, "none", "float32")
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
    return Base(BASE, WORLD, tiny.random_params(diffusion(BASE, WORLD).init), "digest")


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


def begun(name: str, base: Predictor) -> tuple[Method, Any]:
    """A method and random parameters for it, but those of its head, which begin at zero."""
    method = avid_adapter(METHODS[name], WORLD, base)
    params = tiny.random_params(method.init)
    return method, {**params, "head": jax.tree.map(jnp.zeros_like, params["head"])}


def half(x_t: Array, t_B: Array, condition: Condition) -> Prediction:
    """A base that is told no actions and no texts."""
    assert condition.action_BTA is None and condition.token_BL is None and condition.past_BTHWC.shape[1] == 1
    return Prediction(0.5 * x_t, "v")


def test_avid_begins_half_way_and_sees_frame_actions_and_base() -> None:
    """One program, asked with one thing changed after another."""
    method, params = begun("avid", half)
    x, t_B, condition = call()
    answer = np.random.default_rng(2).normal(size=x.shape).astype(np.float32)

    @tiny.jit
    def asked(past: Array, action: Array, base_value: Array) -> Any:
        given = dataclasses.replace(condition, past_BTHWC=past, action_BTA=action)
        return method.parts.func(lambda *a: Prediction(base_value, "v"), params, x, t_B, given)

    arguments = [condition.past_BTHWC, condition.action_BTA, answer]
    found = asked(*arguments)
    assert found.final.kind == "v" and found.adapted.mask_BTHW1.shape == (2, 2, 4, 4, 1)
    np.testing.assert_array_equal(found.adapted.mask_BTHW1, 0.5)
    middle = (answer + found.adapted.value_BTHWC) / 2
    np.testing.assert_allclose(found.final.value, middle, rtol=1e-5, atol=1e-5)
    for mask, wanted in ((1.0, answer), (0.0, found.adapted.value_BTHWC)):
        forced = avid(lambda *a: found.base, with_mask(lambda *a: found.adapted, mask))
        np.testing.assert_array_equal(forced(x, t_B, condition).value, wanted)
    for n in range(3):
        changed = asked(*[a + 1.0 if i == n else a for i, a in enumerate(arguments)])
        assert (np.asarray(changed.adapted.value_BTHWC) != np.asarray(found.adapted.value_BTHWC)).any()


def test_without_a_mask_avid_begins_as_the_base_to_the_bit() -> None:
    method, params = begun("no_mask", half)
    x, t_B, condition = call()
    found = tiny.jit(lambda p: method.parts(p, x, t_B, condition))(params)
    np.testing.assert_array_equal(found.final.value, 0.5 * x)
    assert np.asarray(found.final.value).any()


def test_the_first_frame_stands_clean_in_its_place_and_beside_every_frame() -> None:
    past, x, beside = jnp.full((1, 1, 2, 2, 1), 5.0), jnp.full((1, 3, 2, 2, 1), 7.0), jnp.full((1, 3, 2, 2, 1), 9.0)
    seen = avid_networks.clip_of(past, x, beside)
    np.testing.assert_array_equal(seen[0, :, 0, 0], [[5, 5, 0], [7, 5, 9], [7, 5, 9], [7, 5, 9]])
    np.testing.assert_array_equal(avid_networks.clip_of(past, x, None), seen[..., :2])
    for wrong in (None, jnp.zeros((1, 2, 2, 2, 1))):
        with pytest.raises(VgenError, match="a latent UNet is given 1"):
            avid_networks.clip_of(wrong, x, None)


def test_the_null_action_is_learnt_and_begins_at_zero() -> None:
    """Linear(3 -> 4C), SiLU, Linear(-> 2C) beside 2C of time, for a first level of C = 4."""
    params = jax.eval_shape(avid_networks.net(ADAPTER, WORLD).init, jax.random.key(0))["unet"]
    features = params["action_features"]
    assert features["linear_1"]["kernel"].shape == (3, 16) and features["linear_2"]["kernel"].shape == (16, 8)
    assert params["time_embedding"]["linear_2"]["kernel"].shape[1] == features["null"].shape[0] == 8
    module, action, known = ActionFeatures(16, 8), np.ones((1, 2, 3), np.float32), np.asarray([[True, False]])
    variables = module.init(jax.random.key(0), action, known)
    out = module.apply(variables, action, known)
    assert np.asarray(out[0, 0]).any() and not np.asarray(out[0, 1]).any()
    slopes = jax.grad(lambda v: module.apply(v, action, known)[0, 1].sum())(variables)["params"]
    np.testing.assert_array_equal(slopes["null"], np.ones(8))
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves((slopes["linear_1"], slopes["linear_2"])))


# Of the others nearly all is compiling.
@pytest.mark.parametrize("name", [n if n == "avid" else pytest.param(n, marks=pytest.mark.long) for n in METHODS])
def test_training_moves_what_it_should_and_never_the_base(name: str, base: Base) -> None:
    method = method_of(METHODS[name], WORLD, base)
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


def test_every_kind_samples() -> None:
    """The sampler's steps over AVID, one compiled adapter for all; eps needs some signal at the end."""
    method, params = begun("avid", half)
    x, _, condition = call()

    @tiny.jit
    def adapted(x_t: Array, base_value: Array, t_B: Array, given: Condition) -> Any:
        return method.parts.func(lambda *a: Prediction(base_value, "v"), params, x_t, t_B, given).adapted

    found = {}
    for kind in KINDS:
        schedule = dataclasses.replace(SCHEDULE, zero_terminal_snr=kind != "eps")
        dataclasses.replace(WORLD, kind=kind, schedule=schedule)  # is no world that is refused
        predictor = avid(lambda *a, kind=kind: Prediction(half(*a).value, kind), adapted)
        way = trajectory(Sampler("ddim", 2), schedule)
        carry, rows = way.start(x), way.rows()
        for n in range(2):
            row = {name: column[n] for name, column in rows.items()}
            carry = way.step(predictor, condition, jax.random.split(jax.random.key(0), 2), carry, row)
        found[kind] = np.asarray(carry[0])
        assert found[kind].shape == x.shape and np.isfinite(found[kind]).all()
    assert len({made.std() for made in found.values()}) == len(KINDS), "each is read as what it is"


def test_fine_tuning_by_actions_begins_with_the_base_and_silent_actions(base: Base) -> None:
    method = method_of(BY_ACTIONS, WORLD, None, base)
    params = method.start(tiny.random_params(method.init))
    assert set(params["unet"]) == {*base.params["unet"], "action_embedding"}
    shared = {name: params["unet"][name] for name in base.params["unet"]}
    jax.tree.map(np.testing.assert_array_equal, {**params, "unet": shared}, base.params)
    embedding = ActionEmbedding(32)  # what is added to the embedding of the step
    fresh = embedding.init(jax.random.key(0), np.ones((1, 2, 3)), np.ones((1, 2), bool))
    shapes = jax.tree.map(jnp.shape, params["unet"]["action_embedding"])
    assert jax.tree.map(jnp.shape, fresh["params"]) == shapes
    assert not np.asarray(embedding.apply(fresh, np.ones((1, 2, 3)), np.ones((1, 2), bool))).any()


@pytest.mark.long
def test_fine_tuning_by_actions_begins_as_the_base(base: Base) -> None:
    method = method_of(BY_ACTIONS, WORLD, None, base)
    params = method.start(tiny.jit(method.init)(jax.random.key(0)))
    x, t_B, condition = call()
    ours, plain = tiny.jit(lambda p, b: (method.predict(p, x, t_B, condition), b(x, t_B, condition)))(
        params, base_predictor(base)
    )
    np.testing.assert_allclose(ours.value, plain.value, rtol=1e-4, atol=1e-5)


def test_fine_tuning_trains_the_network_of_its_start(base: Base) -> None:
    joined = dataclasses.replace(BASE, unet=dataclasses.replace(BASE.unet, actions="concatenated"))
    for wrong in (joined, METHODS["diffusion"]):
        with pytest.raises(VgenError, match="fine-tuning trains the same network"):
            method_of(wrong, WORLD, None, base)
    with pytest.raises(VgenError, match="fine-tuning trains the same network"):
        method_of(BASE, dataclasses.replace(WORLD, autoencoder="another"), None, base)


def test_fine_tuning_by_language_reads_the_text_and_changes_the_network(base: Base) -> None:
    method = method_of(BASE, WORLD, None, base)
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


def test_without_a_text_an_empty_one_is_read_without_the_prompt() -> None:
    encoder, read = avid_networks.reader(TEXT, "float32")
    token_BL = np.stack([encode_text("pick", 8)] * 2)
    tokens = encode_text("", 1)[None], encode_text("the task pick", 17)[None]

    @tiny.jit
    def both(params: Any) -> tuple[Any, Any]:
        said = [read(params, condition, 2) for condition in (Condition(), Condition(token_BL=token_BL))]
        return said, [encoder.apply({"params": params}, token) for token in tokens]

    said, wanted = both(tiny.random_params(lambda rng: encoder.init(rng, np.ones((1, 1), np.int32))["params"]))
    for (text, mask), (whole, real) in zip(said, wanted, strict=True):
        np.testing.assert_allclose(text, np.tile(whole, (2, 1, 1)), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(mask, np.tile(real, (2, 1)))
    given = np.ones((2, 3, 8))
    assert read({}, Condition(text_BLD=given, token_BL=token_BL), 2)[0] is given
    assert avid_networks.reader(NO_TEXT, "float32")[1]({}, Condition(token_BL=token_BL), 2) == (None, None)


@pytest.mark.long
@pytest.mark.parametrize("mix", [product_of_experts, action_guidance])
def test_mixtures_take_latent_methods(mix: Any) -> None:
    own = avid_networks.net(ADAPTER, WORLD)
    params = tiny.random_params(own.init)
    x, t_B, condition = call()

    @tiny.jit
    def both(valid: Array) -> tuple[Array, Array]:
        small = lambda x, t_B, c: Prediction(own.apply(params, x, None, t_B, c), "v")  # noqa: E731
        given = dataclasses.replace(condition, action_valid_BT=valid)
        return mix(half, small, 0.25, SCHEDULE)(x, t_B, given).value, small(x, t_B, given).value

    mixed, true = both(np.ones((2, 2), bool))
    null = both(np.zeros((2, 2), bool))[1]
    wanted = 0.25 * true + 0.375 * x if mix is product_of_experts else 0.5 * x + 0.25 * (true - null)
    np.testing.assert_allclose(mixed, wanted, rtol=1e-3, atol=1e-4)


def test_what_does_not_go_together_is_refused(base: Base) -> None:
    pixels = PixelConfig(8, (1,), 1, 8, 1, "none", "float32")
    with pytest.raises(VgenError, match="pixel UNet in a world of latents"):
        method_of(dataclasses.replace(METHODS["avid"], unet=pixels), WORLD, base)
    with pytest.raises(VgenError, match="latent UNet in a world of frames"):
        method_of(BASE, dataclasses.replace(WORLD, autoencoder="", channels=3), None)
    with pytest.raises(VgenError, match="ControlNet is there for worlds of frames"):
        method_of(MethodConfig("controlnet", ADAPTER, False, False), WORLD, base)
    with pytest.raises(VgenError, match="world differs"):
        method_of(METHODS["avid"], dataclasses.replace(WORLD, autoencoder="another"), base)
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


COUNTS = {"paper_145m": 126_488_775, "paper_34m": 26_520_391, "paper_11m": 7_091_239}


# It takes a while to trace the wider ones.
@pytest.mark.parametrize(
    "variant", [n if n == "paper_11m" else pytest.param(n, marks=pytest.mark.long) for n in COUNTS]
)
def test_the_papers_adapters_have_so_many_parameters(variant: str) -> None:
    """The labels of AVID's table 9 are of the same networks with attention to a text and an image (docs/avid.md)."""
    config = section(MethodConfig, rt1.get_config(f"{variant}.avid").method.to_dict(), "method")
    world = dataclasses.replace(WORLD, action_dim=7)
    method = avid_adapter(config, world, lambda *a: a)
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes)) == COUNTS[variant]


def test_exports_hold_nothing_of_the_base(base: Base, tmp_path: Path) -> None:
    described = {"method": dataclasses.asdict(BASE), "world": dataclasses.asdict(WORLD), "base_sha256": ""}
    export(tmp_path / "base", base.params, described)
    read = load_base(tmp_path / "base")
    assert (read.config, read.world) == (BASE, WORLD)
    method = method_of(METHODS["avid"], WORLD, read)
    params = tiny.random_params(method.init)
    of_avid = {"method": dataclasses.asdict(METHODS["avid"]), "world": dataclasses.asdict(WORLD)}
    export(tmp_path / "avid", params, {**of_avid, "base_sha256": read.sha256})
    config, _, again = load_method(tmp_path / "avid", read)
    assert config == METHODS["avid"] and set(again) == {"network", "head"} and set(again["network"]) == {"unet"}
    jax.tree.map(np.testing.assert_array_equal, again, params)
