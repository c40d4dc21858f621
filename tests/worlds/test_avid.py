"""AVID's methods as built: where each begins, what it trains, what its export holds."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests import tiny
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.files.exports import digest, export
from vgen_jax.learning.slow import TrainConfig, make_update
from vgen_jax.learning.state import OptimizerConfig, init_state, make_optimizer
from vgen_jax.objectives.adapter import AdapterLoss, adapter
from vgen_jax.types import Array, Condition, VgenError, VideoBatch
from vgen_jax.worlds.avid import (
    Base,
    ClassifierConfig,
    Method,
    MethodConfig,
    base_predictor,
    classifier_network,
    diffusion,
    load_base,
    load_method,
    method_of,
)
from vgen_jax.worlds.avid_networks import PixelConfig, WorldConfig

WORLD = WorldConfig(Schedule("sigmoid", 20, -3.0, 3.0), "x0", "discrete", 5, 2)
UNET = PixelConfig(8, (1, 2), 1, 4, 1, "none", "float32")
NARROW = dataclasses.replace(UNET, dim=4)
BASE = MethodConfig("diffusion", UNET, False, False)
METHODS = {
    "avid": MethodConfig("avid", NARROW, True, True),
    "no_mask": MethodConfig("avid", NARROW, False, True),
    "no_conditioning": MethodConfig("avid", NARROW, True, False),
    "controlnet": MethodConfig("controlnet", UNET, False, False),
    "controlnet_small": MethodConfig("controlnet", NARROW, False, False),
    "diffusion": MethodConfig("diffusion", NARROW, False, False),
}


@pytest.fixture(scope="module")
def base() -> Base:
    return Base(BASE, WORLD, tiny.random_params(diffusion(BASE, WORLD).init), "digest")


def batch(b: int = 2) -> VideoBatch:
    """Clips of 2 + 2 frames with actions."""
    rng = np.random.default_rng(0)
    action = np.eye(5, dtype=np.float32)[rng.integers(0, 5, (b, 4))]
    video = rng.normal(size=(b, 4, 8, 8, 3)).astype(np.float32)
    past_BT = np.broadcast_to(np.arange(4) < 2, (b, 4))
    return VideoBatch(video, past_BT, None, action, np.ones((b, 4), bool))


def call() -> tuple[Array, Array, Condition]:
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 2, 8, 8, 3)), jnp.float32)
    clip = batch()
    known = jnp.ones((2, 2), bool)
    return x, jnp.asarray([1, 15]), Condition(None, None, clip.action_BTA[:, 2:], known, clip.video_BTHWC[:, :2])


def begun(name: str, base: Base) -> tuple[Method, Any]:
    """A method and the parameters that its training begins with, the zero layers zero."""
    method = method_of(METHODS[name], WORLD, base)
    params = tiny.jit(method.init)(jax.random.key(0))
    return method, params if method.start is None else method.start(params)


def test_avid_begins_half_way_between_base_and_adapter(base: Base) -> None:
    method, params = begun("avid", base)
    found = tiny.jit(lambda p: method.parts(p, *call()))(params)
    np.testing.assert_array_equal(found.adapted.mask_BTHW1, 0.5)
    np.testing.assert_allclose(
        found.final.value, (found.base.value + found.adapted.value_BTHWC) / 2, rtol=1e-5, atol=1e-5
    )
    params["head"]["mixture"]["bias"] = jnp.full(1, 100.0)
    sure = tiny.jit(lambda p: method.parts(p, *call()))(params)
    np.testing.assert_array_equal(sure.final.value, sure.base.value)


def test_without_a_mask_avid_begins_as_the_base_to_the_bit(base: Base) -> None:
    method, params = begun("no_mask", base)
    found = tiny.jit(lambda p: method.parts(p, *call()))(params)
    np.testing.assert_array_equal(found.final.value, found.base.value)


@pytest.mark.parametrize("name", ["controlnet", "controlnet_small"])
def test_controlnet_begins_as_the_base(name: str, base: Base) -> None:
    """Two programs round differently; that its controls are zero to the bit, ``test_unet_pixel`` says."""
    method, params = begun(name, base)
    x, t_B, condition = call()
    alone = Condition(past_BTHWC=condition.past_BTHWC)
    ours, plain = tiny.jit(lambda p, b: (method.predict(p, x, t_B, condition), b(x, t_B, alone)))(
        params, base_predictor(base)
    )
    np.testing.assert_allclose(ours.value, plain.value, rtol=1e-4, atol=1e-5)


def test_controlnet_is_a_copy_of_the_way_down_and_fine_tuning_of_all(base: Base) -> None:
    _, params = begun("controlnet", base)
    stem, mid = ("path", "stem", "kernel"), ("path", "mid_resnet_0", "conv1", "kernel")
    for path in (stem, mid):
        ours, theirs = params, base.params
        for part in path:
            ours, theirs = ours[part], theirs[part]
        np.testing.assert_array_equal(ours, theirs)
    assert not np.asarray(params["path"]["actions"]["gate"]["kernel"]).any()
    finetune = method_of(BASE, WORLD, None, base)
    jax.tree.map(np.testing.assert_array_equal, finetune.start({}), base.params)
    with pytest.raises(VgenError, match="fine-tuning trains the same network"):
        method_of(METHODS["diffusion"], WORLD, None, base)


# Of the others nearly all is compiling.
@pytest.mark.parametrize("name", [n if n == "avid" else pytest.param(n, marks=pytest.mark.long) for n in METHODS])
def test_training_moves_what_it_should_and_never_the_base(name: str, base: Base) -> None:
    """One update moves the loss' parameters; the base is no part of the state and stays as it was."""
    method, params = begun(name, base)
    before = jax.tree.map(np.array, base.params)
    optimizer = make_optimizer(OptimizerConfig())
    state = init_state(lambda rng: params, optimizer, jax.random.key(0))
    objective = adapter(method.predict, Partial(lambda x: x), 2, WORLD.schedule, AdapterLoss("eps", 0.0))
    update = tiny.jit(make_update(optimizer, TrainConfig()))
    state, metrics = update(state, objective, batch())
    assert float(metrics["grad_norm"]) > 0
    moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), state.params, params)
    assert any(jax.tree.leaves(moved))
    jax.tree.map(np.testing.assert_array_equal, base.params, before)
    shapes = {leaf.shape for leaf in jax.tree.leaves(state.params)}
    if name not in ("controlnet",):
        assert base.params["path"]["stem"]["kernel"].shape not in shapes


def test_exports_are_read_back_over_their_own_base_only(base: Base, tmp_path: Path) -> None:
    described = {"method": dataclasses.asdict(BASE), "world": dataclasses.asdict(WORLD), "base_sha256": ""}
    export(tmp_path / "base", base.params, described)
    read = load_base(tmp_path / "base")
    assert (read.config, read.world, read.sha256) == (BASE, WORLD, digest(tmp_path / "base"))
    method = method_of(METHODS["avid"], WORLD, read)
    params = tiny.random_params(method.init)
    of_avid = {"method": dataclasses.asdict(METHODS["avid"]), "world": dataclasses.asdict(WORLD)}
    export(tmp_path / "avid", params, {**of_avid, "base_sha256": read.sha256})
    config, _, again = load_method(tmp_path / "avid", read)
    assert config == METHODS["avid"]
    jax.tree.map(np.testing.assert_array_equal, again, params)
    with pytest.raises(VgenError, match="trained over another base"):
        load_method(tmp_path / "avid", base)
    with pytest.raises(VgenError, match="which is no base"):
        load_base(tmp_path / "avid")


def test_wrong_settings_are_refused(base: Base) -> None:
    with pytest.raises(VgenError, match="needs a base"):
        method_of(METHODS["avid"], WORLD, None)
    with pytest.raises(VgenError, match="world differs"):
        method_of(METHODS["avid"], dataclasses.replace(WORLD, kind="v"), base)
    deeper = dataclasses.replace(METHODS["controlnet"], unet=dataclasses.replace(UNET, mults=(1, 2, 2)))
    with pytest.raises(VgenError, match="must be the base's"):
        method_of(deeper, WORLD, base)
    with pytest.raises(VgenError, match="needs discrete actions"):
        classifier_network(ClassifierConfig(UNET, 8), dataclasses.replace(WORLD, actions="continuous"))
