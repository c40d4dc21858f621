"""The pixel UNet, and ControlNet and classifier made of its way down: published sizes, and properties."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vgen_jax.models.action_classifier import ActionClassifier
from vgen_jax.models.controlnet import ControlNet
from vgen_jax.models.unet_pixel import PixelUNet, with_past
from vgen_jax.nn.factorized import ROTARY_DIM, DoublingConv, distance_buckets
from vgen_jax.types import Array, VgenError

MULTS = (1, 2, 4, 8)
SMALL = {"dim": 4, "mults": (1, 2), "heads": 2, "head_dim": 6}
# Of the published code; its counts hold the constant frequencies of the rotary positions as well.
ROTARY = ROTARY_DIM // 2


def count(network: Any, channels: int) -> int:
    x, action = jnp.zeros((1, 2, 16, 16, channels)), jnp.zeros((1, 2, 15))
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, jnp.zeros((1,), int), action, jnp.ones((1, 2), bool))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
    ("network", "channels", "parameters"),
    [
        (PixelUNet(), 9, 91_975_875),
        (PixelUNet(dim=90, heads=6, head_dim=50), 9, 72_228_271),
        (PixelUNet(dim=50, heads=4, head_dim=50), 9, 22_660_047),
        (PixelUNet(4, dim=90, heads=6, head_dim=50), 12, 72_241_592),
        (PixelUNet(4, dim=50, heads=4, head_dim=50), 12, 22_667_448),
        (ControlNet(100, MULTS, 8, 64, "discrete"), 9, 71_047_472),
        (ControlNet(52, MULTS, 8, 64, "discrete", project_to=100), 9, 22_158_492),
    ],
    ids=["base", "diffusion_71m", "diffusion_22m", "adapter_71m", "adapter_22m", "controlnet", "controlnet_small"],
)
def test_published_networks_have_their_parameters(network: Any, channels: int, parameters: int) -> None:
    assert count(network, channels) + ROTARY == parameters


def inputs(frames: int = 3, channels: int = 9, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """x, t, actions of five kinds, all of them known."""
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(2, frames, 8, 8, channels)), jnp.float32)
    action = jnp.asarray(np.eye(5, dtype=np.float32)[rng.integers(0, 5, (2, frames))])
    return x, jnp.asarray([0, 7]), action, jnp.ones((2, frames), bool)


@pytest.fixture(scope="module")
def network() -> tuple[Any, Any]:
    """A small UNet, jitted, and its parameters, none of them at its start."""
    unet = PixelUNet(**SMALL)
    return tiny.jit(unet.apply), tiny.random_params(unet.init, *inputs())


def test_an_unknown_action_is_not_looked_at_and_others_matter(network: Any) -> None:
    apply, params = network
    x, t, action, known = inputs()
    other = jnp.roll(action, 1, axis=-1)
    null = jnp.zeros_like(known)
    np.testing.assert_array_equal(apply(params, x, t, action, null), apply(params, x, t, other, null))
    assert float(jnp.abs(apply(params, x, t, action, known) - apply(params, x, t, other, known)).max()) > 1e-3
    assert float(jnp.abs(apply(params, x, t, action, known) - apply(params, x, t, action, null)).max()) > 1e-3


def test_an_action_reaches_other_frames_through_time_and_other_clips_not(network: Any) -> None:
    apply, params = network
    x, t, action, known = inputs()
    changed = action.at[0, 0].set(jnp.roll(action[0, 0], 1))
    moved = jnp.abs(apply(params, x, t, changed, known) - apply(params, x, t, action, known)).max((2, 3, 4))
    assert (moved[0] > 1e-5).all() and (moved[1] == 0).all()


def test_frames_know_their_order(network: Any) -> None:
    """Rotary positions and the relative bias: frames turned round give another result than the result turned round."""
    apply, params = network
    x, t, action, known = inputs()
    turned = apply(params, x[:, ::-1], t, action[:, ::-1], known)[:, ::-1]
    assert float(jnp.abs(turned - apply(params, x, t, action, known)).max()) > 1e-3


def test_a_patch_covers_pixels_and_leaves_the_frame_its_size() -> None:
    unet = PixelUNet(2, patch=2, **SMALL)
    params = tiny.random_params(unet.init, *inputs())
    assert jax.eval_shape(unet.apply, params, *inputs()).shape == (2, 3, 8, 8, 2)
    with pytest.raises(VgenError, match="8x6 do not divide by 4"):
        unet.apply(params, jnp.zeros((1, 1, 6, 8, 9)), *[a[:1] for a in inputs(1)[1:]])


def test_missing_and_unexpected_actions_are_refused() -> None:
    x, t, action, known = inputs()
    with pytest.raises(VgenError, match="takes actions"):
        jax.eval_shape(PixelUNet(**SMALL).init, jax.random.key(0), x, t)
    with pytest.raises(VgenError, match="has no actions"):
        jax.eval_shape(PixelUNet(actions="none", **SMALL).init, jax.random.key(0), x, t, action, known)


def test_control_that_starts_at_zero_changes_nothing_and_control_reaches_every_level(network: Any) -> None:
    apply, params = network
    args = inputs()
    plain = apply(params, *args)
    for project_to, dim in ((0, 4), (4, 6)):
        control = ControlNet(dim, SMALL["mults"], 2, 6, "discrete", project_to=project_to)
        shapes = jax.eval_shape(control.init, jax.random.key(0), *args)
        fresh = jax.tree_util.tree_map_with_path(partial(_started, seed=dim), shapes)
        added = tiny.jit(control.apply)(fresh, *args)
        assert not any(np.asarray(part).any() for part in added)
        np.testing.assert_allclose(apply(params, *args, added), plain, rtol=1e-4, atol=1e-5)
    for n in range(4):
        pushed = tuple(a + (i == n) for i, a in enumerate(added))
        assert float(jnp.abs(apply(params, *args, pushed) - plain).max()) > 1e-3


def _started(path: Any, shape: Any, seed: int) -> np.ndarray:
    """Random, but zero where ControlNet starts at zero: in the layers ``zero_i``, and all biases outside the path."""
    names = [str(key.key) for key in path]
    zero = any(name.startswith("zero_") for name in names) or ("path" not in names and names[-1] == "bias")
    return np.zeros(shape.shape, np.float32) if zero else np.random.default_rng(seed).normal(size=shape.shape) * 0.1


def test_the_classifier_says_an_action_for_every_noisy_frame() -> None:
    network = ActionClassifier(num_actions=5, mlp_width=8, **SMALL)
    past, x = jnp.ones((2, 2, 8, 8, 3)), inputs(3, 3)[0]
    params = tiny.random_params(network.init, x, jnp.zeros((2,), int), past)
    apply = tiny.jit(network.apply)
    logits = apply(params, x, jnp.asarray([0, 9]), past)
    assert logits.shape == (2, 3, 5) and bool(jnp.isfinite(logits).all())
    assert float(jnp.abs(logits - apply(params, x, jnp.asarray([5, 9]), past))[0].max()) > 1e-4


def test_past_frames_stand_before_x_colours_outermost() -> None:
    past = jnp.arange(6.0).reshape(1, 2, 1, 1, 3)  # frame 0: 0 1 2, frame 1: 3 4 5
    x = jnp.full((1, 2, 1, 1, 3), 9.0)
    np.testing.assert_array_equal(with_past(x, past)[0, 1, 0, 0], [0, 3, 1, 4, 2, 5, 9, 9, 9])
    assert with_past(x, None) is x


def test_doubling_is_a_transposed_convolution(rng: Array) -> None:
    module = DoublingConv()
    x = jax.random.normal(rng, (2, 3, 5, 4))
    params = tiny.random_params(module.init, x)
    kernel = jnp.asarray(params["params"]["kernel"])
    flipped = kernel[::-1, ::-1]
    wanted = jax.lax.conv_general_dilated(
        x, flipped, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(module.apply(params, x), wanted + params["params"]["bias"], atol=1e-5)


def test_distances_are_told_apart_by_side_and_by_size() -> None:
    buckets = distance_buckets(10)
    assert buckets.shape == (10, 10) and (np.diag(buckets) == 0).all()
    assert buckets[5, 2] == 3 and buckets[2, 5] == 19 and len(np.unique(buckets)) == 17
