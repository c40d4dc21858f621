"""The latent UNet."""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vgen_jax.models.unet_latent import UNet3D
from vgen_jax.types import Array, VgenError, VideoBatch

TINY = UNet3D(
    in_channels=3, out_channels=3, block_channels=(8, 8), attention_levels=(False, True), layers_per_block=1,
    head_dim=8, cross_attention_dim=4, norm_groups=4, transformer_in_heads=1, action_dim=2,
)  # fmt: skip


def arguments(frames: int = 4, size: int = 8) -> dict[str, Array]:
    """A batch of two windows."""
    batch: VideoBatch = tiny.latent_batch(past=1, future=frames - 1, size=size)
    text_BLD = jax.random.normal(jax.random.key(3), (2, 5, 4))
    return {
        "x_BTHWC": batch.video_BTHWC, "t": jnp.asarray([3, 30]), "text_BLD": text_BLD,
        "text_mask_BL": jnp.arange(5)[None] < jnp.asarray([[3], [5]]), "action_BTA": batch.action_BTA,
        "action_valid_BT": batch.action_valid_BT,
    }  # fmt: skip


def count(shapes: object) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


@pytest.fixture(scope="module")
def apply() -> Callable[..., np.ndarray]:
    """The tiny network with random parameters, compiled once."""
    variables = tiny.random_params(TINY.init, **arguments())
    compiled = tiny.jit(TINY.apply)
    return lambda **changes: np.asarray(compiled(variables, **{**arguments(), **changes}))


def test_the_default_is_modelscope_parameter_for_parameter() -> None:
    init = partial(UNet3D().init, jax.random.key(0))
    shapes = jax.eval_shape(init, jnp.ones((1, 2, 32, 32, 4)), jnp.zeros((1,), int), jnp.ones((1, 77, 1024)))
    assert count(shapes) == 1_411_233_860
    temporal = {"temp_conv": 0, "temporal": 0, "transformer_in": 0}
    for path, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]:
        for name in temporal:
            if f"'{name}'" in jax.tree_util.keystr(path):
                temporal[name] += int(np.prod(leaf.shape))
    assert temporal == {"temp_conv": 266_891_520, "temporal": 272_850_880, "transformer_in": 5_580_736}


@pytest.mark.parametrize("frames", [1, 2, 5, 16])
def test_any_number_of_frames_with_the_same_parameters(frames: int) -> None:
    shapes = jax.eval_shape(partial(TINY.init, jax.random.key(0)), **arguments())
    out = jax.eval_shape(TINY.apply, shapes, **arguments(frames))
    assert out.shape == (2, frames, 8, 8, 3) and out.dtype == jnp.float32


def test_windows_do_not_see_each_other_and_frames_do(apply: Callable[..., np.ndarray]) -> None:
    x = arguments()["x_BTHWC"]
    out, other = apply(), apply(x_BTHWC=x.at[1, 3].set(0.0))
    np.testing.assert_allclose(other[0], out[0], atol=1e-5)
    assert (np.abs(other[1] - out[1]).max((1, 2, 3)) > 1e-4).all()


def test_the_order_of_frames_matters(apply: Callable[..., np.ndarray]) -> None:
    """By the temporal convolutions: the network is told neither positions nor, here, actions."""
    same = {"action_valid_BT": jnp.zeros((2, 4), bool)}
    x = arguments()["x_BTHWC"]
    out, reversed_ = apply(**same), apply(x_BTHWC=x[:, ::-1], **same)
    assert np.abs(reversed_[:, ::-1] - out).max() > 1e-3


def test_a_step_per_frame(apply: Callable[..., np.ndarray]) -> None:
    t_B = arguments()["t"]
    np.testing.assert_allclose(apply(t=jnp.broadcast_to(t_B[:, None], (2, 4))), apply(), atol=1e-5)
    assert np.abs(apply(t=jnp.asarray([[0, 3, 3, 3], [0, 30, 30, 30]])) - apply()).max() > 1e-3


def test_text_and_actions_are_heard(apply: Callable[..., np.ndarray]) -> None:
    given, out = arguments(), apply()
    unheard = given["text_BLD"].at[0, 3:].set(9.0)
    np.testing.assert_allclose(apply(text_BLD=unheard), out, atol=1e-5)
    assert np.abs(apply(text_BLD=given["text_BLD"].at[0, 0].set(9.0))[0] - out[0]).max() > 1e-4
    assert np.abs(apply(action_BTA=given["action_BTA"] + 1.0) - out).max() > 1e-4


def test_no_action_is_not_the_action_zero(apply: Callable[..., np.ndarray]) -> None:
    given = arguments()
    zero, unknown = jnp.zeros_like(given["action_BTA"]), jnp.zeros((2, 4), bool)
    null = apply(action_valid_BT=unknown)
    assert np.abs(null - apply(action_BTA=zero, action_valid_BT=~unknown)).max() > 1e-4
    np.testing.assert_array_equal(null, apply(action_BTA=zero, action_valid_BT=unknown))


def test_bfloat16_computes_from_and_to_float32() -> None:
    module = dataclasses.replace(TINY, dtype=jnp.bfloat16, parent=None)
    given = arguments()
    shapes = jax.eval_shape(partial(module.init, jax.random.key(0)), **given)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    traced = str(jax.make_jaxpr(module.apply)(shapes, **given))
    assert jax.eval_shape(module.apply, shapes, **given).dtype == jnp.float32
    products = [line for line in traced.splitlines() if "conv_general_dilated" in line and "=" in line]
    assert products and all("bf16[" in line.split("=")[0] for line in products)


@pytest.mark.long
def test_what_the_backward_pass_recomputes_changes_nothing() -> None:
    given = arguments(frames=2, size=2)
    base = dataclasses.replace(TINY, block_channels=(8,), attention_levels=(False,), parent=None)
    variables = tiny.random_params(base.init, **given)
    found, products = {}, {}
    for remat in ("none", "dots", "full"):
        module = dataclasses.replace(base, remat=remat, parent=None)
        traced = tiny.jit(jax.value_and_grad(lambda v, m=module: (m.apply(v, **given) ** 2).mean())).trace(variables)
        products[remat] = str(traced.jaxpr).count("dot_general[")
        found[remat] = traced.lower().compile()(variables)
    for remat in ("dots", "full"):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found[remat], found["none"])
    assert products["none"] == products["dots"] < products["full"], "full recomputes products, dots keeps them"


@pytest.mark.parametrize(
    ("changes", "size", "named"),
    [
        ({"block_channels": (8, 4)}, 8, "block_channels has 4"),
        ({"norm_groups": 3}, 8, "block_channels has 8"),
        ({"attention_levels": (True,)}, 8, "attention_levels has 1 entries for 2 levels"),
        ({"remat": "some"}, 8, "unet.remat 'some'"),
        ({"up_attention_levels": (True,)}, 8, "up_attention_levels has 1 entries for 2 levels"),
        ({"action_dim": 0}, 8, "unet.action_dim is 0 .* width 2"),
        ({"cross_attention_dim": 6}, 8, "cross_attention_dim is 6 .* 4"),
    ],
)
def test_sizes_that_do_not_fit_are_named(changes: dict[str, object], size: int, named: str) -> None:
    module = dataclasses.replace(TINY, **changes, parent=None)
    with pytest.raises(VgenError, match=named):
        jax.eval_shape(partial(module.init, jax.random.key(0)), **arguments(size=size))


def test_missing_actions_are_named() -> None:
    given = {**arguments(), "action_BTA": None, "action_valid_BT": None}
    with pytest.raises(VgenError, match="unet.action_dim is 2 .* none"):
        jax.eval_shape(partial(TINY.init, jax.random.key(0)), **given)
