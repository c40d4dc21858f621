"""The flow that moves the last past frame."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vgen_jax.diffusion.masking import Masking
from vgen_jax.models.autoencoder_kl import AutoencoderKL, principal_path
from vgen_jax.models.warp import FlowWarp, bilinear, canvas
from vgen_jax.nn.lora import kernel_shapes
from vgen_jax.types import VgenError, VideoBatch
from vgen_jax.worlds.autoencoder import FrozenAutoencoder
from vgen_jax.worlds.slow import start_warp
from vgen_jax.worlds.slow_networks import (
    SlowConfig,
    TextConfig,
    WarpConfig,
    denoiser,
    motion_since,
    motion_text,
)

WARP = WarpConfig(width=8, layers=1, cells=2, patch=2, norm_groups=4)
MASKING = Masking("zero", 0.0, reference=True)


def image(height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)


def constant_flow(x: float, y: float, height: int = 5, width: int = 7) -> np.ndarray:
    return np.broadcast_to(np.float32([x, y]), (2, 3, height, width, 2))


def test_a_flow_of_whole_pixels_shifts() -> None:
    moved, inside = bilinear(image(), constant_flow(2, -1))
    np.testing.assert_array_equal(moved[:, 1, 1:, :-2], image()[:, :-1, 2:])
    assert inside[0, 0].tolist() == [[0.0] * 7] + [[1.0] * 5 + [0.0] * 2] * 4


def test_half_a_pixel_is_the_mean_and_the_border_lasts() -> None:
    moved, _ = bilinear(image(), constant_flow(0.5, 0))
    np.testing.assert_allclose(moved[:, 0, :, :-1], (image()[:, :, :-1] + image()[:, :, 1:]) / 2, atol=1e-6)
    far, inside = bilinear(image(), constant_flow(100, 0))
    np.testing.assert_array_equal(far[:, 0], np.broadcast_to(image()[:, :, -1:], image().shape))
    assert not inside.any()


def test_the_gradient_is_that_of_the_flow_alone() -> None:
    flow = constant_flow(0.3, 0.4)

    def value(image: np.ndarray, flow: np.ndarray) -> jax.Array:
        return bilinear(image, flow)[0][0, 0, 2, 2, 0]

    by_image, by_flow = jax.grad(value, argnums=(0, 1))(image(), flow)
    assert not by_image.any()
    step = np.zeros_like(flow)
    step[0, 0, 2, 2, 0] = 1e-2
    slope = (value(image(), flow + step) - value(image(), flow - step)) / 2e-2
    assert by_flow[0, 0, 2, 2, 0] == pytest.approx(float(slope), rel=1e-3)
    assert np.count_nonzero(by_flow) == 2


def test_a_fresh_network_leaves_the_reference_where_it_is() -> None:
    network = FlowWarp(latent_channels=4, patch=2, width=8, layers=1, cells=2, norm_groups=4)
    reference = np.random.default_rng(1).normal(size=(2, 3, 4, 4)).astype(np.float32)
    motion, valid = np.ones((2, 5, 2), np.float32), np.ones((2, 5), bool)
    (moved, inside), _ = network.init_with_output(jax.random.key(0), reference, motion, valid)
    np.testing.assert_allclose(moved, np.broadcast_to(reference[:, None], (2, 5, 3, 4, 4)), atol=1e-5)
    assert (inside == 1).all()


def test_motion_is_told_only_where_it_is_known() -> None:
    network = FlowWarp(latent_channels=4, patch=2, width=8, layers=1, cells=2, norm_groups=4)
    reference = np.random.default_rng(1).normal(size=(1, 3, 4, 4)).astype(np.float32)
    motion = np.ones((1, 2, 2), np.float32)
    valid = np.asarray([[False, True]])
    shapes = jax.eval_shape(network.init, jax.random.key(0), reference, motion, valid)
    params = tiny.random_params(lambda key: network.init(key, reference, motion, valid)["params"])
    assert jax.tree.structure(params) == jax.tree.structure(shapes["params"])
    one, _ = network.apply({"params": params}, reference, motion, valid)
    two, _ = network.apply({"params": params}, reference, 2 * motion, valid)
    np.testing.assert_array_equal(one[:, 0], two[:, 0])
    assert not np.allclose(one[:, 1], two[:, 1])


def test_a_text_moves_the_reference_only_where_the_motion_is_unknown() -> None:
    network = FlowWarp(latent_channels=4, patch=2, width=8, layers=1, cells=2, norm_groups=4, text=True)
    reference = np.random.default_rng(1).normal(size=(1, 3, 4, 4)).astype(np.float32)
    motion, valid, text = np.ones((1, 2, 2), np.float32), np.asarray([[False, True]]), np.ones((1, 2, 5), np.float32)
    params = tiny.random_params(lambda key: network.init(key, reference, motion, valid, text)["params"])
    one, _ = network.apply({"params": params}, reference, motion, valid, text)
    two, _ = network.apply({"params": params}, reference, motion, valid, 2 * text)
    assert not np.allclose(one[:, 0], two[:, 0])
    np.testing.assert_array_equal(one[:, 1], two[:, 1])
    with pytest.raises(VgenError, match="slow.warp.text"):
        network.apply({"params": params}, reference, motion, valid)


def test_the_text_of_a_motion_is_its_mean_and_counts_frames() -> None:
    text = np.asarray([[[1.0], [3.0], [50.0]]])
    told = motion_text(text, np.asarray([[True, True, False]]), np.asarray([[True, True, False, False]]))
    assert np.asarray(told).tolist() == [[[2.0, -1 / 8], [2.0, 0.0], [2.0, 1 / 8], [2.0, 2 / 8]]]


def test_a_model_whose_text_moves_obeys_texts_without_actions() -> None:
    warp = dataclasses.replace(WARP, text=True)
    config = tiny.slow_config(kind="x0", masking=MASKING, warp=warp, action_dim=2)
    networks = denoiser(config)
    params = tiny.random_params(networks.init)
    batch = tiny.latent_batch()
    alone = dataclasses.replace(batch, action_valid_BT=np.zeros_like(batch.action_valid_BT))
    other = dataclasses.replace(alone, token_BL=np.asarray(alone.token_BL)[:, ::-1])

    def moved(batch: VideoBatch) -> np.ndarray:
        x = np.ones((*batch.video_BTHWC.shape[:4], 2 * config.latent_channels), np.float32)
        seen = networks.predict(params, x, np.zeros(len(x), np.int32), networks.embed(params, batch)).moved
        assert seen is not None
        return np.asarray(seen.frames_BTHWC)

    assert not np.allclose(moved(alone), moved(other))
    with pytest.raises(VgenError, match="slow.warp.text"):
        tiny.slow_config(kind="x0", masking=MASKING, warp=warp, action_dim=2, text=TextConfig(0, 1, 1, 8))


def test_the_canvas_is_the_autoencoders_linear_path() -> None:
    frames = np.random.default_rng(2).normal(size=(40, 4, 4, 3)).astype(np.float32)
    path = principal_path(frames, factor=2, latent_channels=12)
    maps = canvas(path, scale=3.0)
    blocks = np.random.default_rng(3).normal(size=(5, 12)).astype(np.float32)
    latents = 3.0 * (blocks @ path["linear_encoder"]["kernel"] + path["linear_encoder"]["bias"])
    np.testing.assert_allclose(latents @ maps["to_pixels"] + maps["pixels_bias"], blocks, atol=1e-5)
    np.testing.assert_allclose(blocks @ maps["to_latents"] + maps["latents_bias"], latents, atol=1e-5)
    plain = AutoencoderKL(block_channels=(4,), layers_per_block=1, latent_channels=4, norm_groups=2)
    params = jax.eval_shape(plain.init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))["params"]
    with pytest.raises(VgenError, match="linear_path"):
        canvas(params, 1.0)


def test_motion_is_counted_from_the_last_past_frame() -> None:
    action = np.asarray([[[9.0], [1.0], [2.0], [4.0]], [[9.0], [1.0], [2.0], [4.0]]])
    past = np.asarray([[True, True, False, False], [True, False, False, False]])
    motion = np.asarray(motion_since(action, past))[..., 0]
    assert motion.tolist() == [[-1.0, 0.0, 2.0, 6.0], [0.0, 1.0, 3.0, 7.0]]


def moving_config() -> SlowConfig:
    return tiny.slow_config(kind="x0", masking=MASKING, warp=WARP, action_dim=2)


def test_the_flows_layers_are_none_of_the_unets() -> None:
    """An adapter knows layers by their paths, and both networks are applied in one ``predict``."""
    params = jax.eval_shape(denoiser(moving_config()).init, jax.random.key(0))
    assert not kernel_shapes(params["unet"]).keys() & kernel_shapes(params["warp"]).keys()
    assert all(path.startswith("flow") for path in kernel_shapes(params["warp"]))


def test_only_the_last_past_frame_is_moved_by_actions() -> None:
    """With a UNet that paints nothing, the prediction is the moved reference, times the UNet's share of it."""
    config = moving_config()
    networks = denoiser(config)
    params = dict(tiny.random_params(networks.init))
    params["unet"] = {**params["unet"], "conv_out": jax.tree.map(jnp.zeros_like, params["unet"]["conv_out"])}
    batch = tiny.latent_batch(b=1)
    batch = dataclasses.replace(batch, action_BTA=np.asarray(batch.action_BTA)[..., :2])
    x = jnp.asarray(batch.video_BTHWC)
    condition = networks.embed(params, batch)
    predict = tiny.jit(lambda x, c: networks.predict(params, MASKING.inputs(x, batch.past_BT), jnp.zeros(1, int), c))
    before = predict(x, condition).value
    last = int(np.asarray(batch.past_BT).sum(1)[0]) - 1
    other = x.at[:, last + 1 :].add(1.0)
    np.testing.assert_array_equal(before, predict(other, condition).value)
    moved = predict(x.at[:, last].add(1.0), condition).value
    assert not np.allclose(before, moved)


@pytest.mark.parametrize("change", [{"kind": "eps"}, {"masking": Masking()}, {"action_dim": 0}])
def test_a_warp_needs_a_reference_x0_and_actions(change: dict) -> None:
    with pytest.raises(VgenError, match="slow.warp moves the reference"):
        tiny.slow_config(**{"kind": "x0", "masking": MASKING, "warp": WARP, "action_dim": 2, **change})


def test_another_patch_than_the_autoencoders_is_named() -> None:
    autoencoder = FrozenAutoencoder(None, None, 4, 8, "here", {}, 1.0)  # type: ignore[arg-type]
    with pytest.raises(VgenError, match=r"slow.warp.patch is 2, .* 8 pixels"):
        start_warp(moving_config(), autoencoder, {"warp": {}})
