"""Frames moved by a learned flow: what the camera has seen already need not be painted again.

    flow = f(reference, motion),  warped[p] = reference[p + flow[p]]

Video prediction by dense warping (Finn, Goodfellow and Levine 2016; Zhou et al. 2016 "View synthesis by appearance
flow"): a small network tells, from the last past frame and the action taken since, where each pixel of a later frame
comes from. In latent space: latents are linearly mapped to blocks of pixels, warped there bilinearly, and mapped back.
SlowFast-VGen has none; with it a network that trains for an hour on a CPU keeps textures, which it cannot repaint.

Both linear maps are constants, which training starts at those of the autoencoder's linear path; the flow starts at 0.
Every layer's name begins with ``flow``: an adapter (``nn.lora``) knows a layer by its path alone, and the UNet that
works beside this network has other names.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from vgen_jax.nn.resnet import conv3x3, group_norm
from vgen_jax.types import Array, Params, VgenError

NORM_EPS = 1e-5
FLOW_SCALE = 4.0  # pixels per unit of the last convolution, whose kernel starts at 0
CANVAS = "canvas"


class FlowWarp(nn.Module):
    """Latents of the reference frame, as each frame of a window would see them.

    Attributes:
        latent_channels: of the latents.
        patch: pixels per latent pixel, on each side.
        width: channels of the flow network.
        layers: residual convolutions that see the motion.
        cells: flow vectors per latent pixel, on each side; between them flow is interpolated.
        norm_groups: groups of every GroupNorm.
        text: whether a text stands in for a motion that is not known.
        dtype: compute dtype of the flow network.
    """

    latent_channels: int
    patch: int
    width: int
    layers: int
    cells: int
    norm_groups: int
    text: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, reference_BHWC: Array, motion_BTA: Array, valid_BT: Array, motion_text_BTD: Array | None = None
    ) -> tuple[Array, Array]:
        """Moves the reference.

        Args:
            motion_BTA: the sum of the actions from the reference to each frame, model units.
            valid_BT: False where it is not known; the network then has no motion to go by, or the text alone.
            motion_text_BTD: see ``Condition``; needed with ``text``, and read only where the motion is not known.

        Returns:
            Warped latents, (B, T, H, W, C), and the share of each latent pixel that the reference shows,
            (B, T, H, W, 1) in [0, 1]. Beyond its border the reference is continued by its last pixels.
        """
        b, frames = motion_BTA.shape[:2]
        height, width = reference_BHWC.shape[1:3]
        p = self.patch
        canvas = self.param(CANVAS, self._canvas_init)
        to_pixels, pixels_bias, to_latents, latents_bias = (
            jax.lax.stop_gradient(canvas[name]) for name in ("to_pixels", "pixels_bias", "to_latents", "latents_bias")
        )
        blocks = jax.lax.stop_gradient(reference_BHWC) @ to_pixels + pixels_bias
        image = rearrange(blocks, "b h w (p q c) -> b (h p) (w q) c", p=p, q=p)
        flow = self._flow(reference_BHWC, self._told(motion_BTA, valid_BT, motion_text_BTD))
        flow = jax.image.resize(flow, (b * frames, height * p, width * p, 2), "linear")
        warped, inside = bilinear(image, flow.reshape(b, frames, *flow.shape[1:]))
        blocks = rearrange(warped, "b t (h p) (w q) c -> b t h w (p q c)", p=p, q=p)
        seen = rearrange(inside, "b t (h p) (w q) -> b t h w (p q)", p=p, q=p).mean(-1, keepdims=True)
        return blocks @ to_latents + latents_bias, seen

    def _canvas_init(self, key: jax.Array) -> dict[str, Array]:
        size = 3 * self.patch**2
        basis = nn.initializers.orthogonal()(key, (self.latent_channels, size), jnp.float32)
        biases = {"pixels_bias": jnp.zeros(size), "latents_bias": jnp.zeros(self.latent_channels)}
        return {"to_pixels": basis, "to_latents": basis.T, **biases}

    def _told(self, motion_BTA: Array, valid_BT: Array, motion_text_BTD: Array | None) -> Array:
        """What the network knows of the motion, (B, T, D)."""
        valid_BT1 = valid_BT[..., None].astype(self.dtype)
        told = [motion_BTA.astype(self.dtype) * valid_BT1, valid_BT1]
        if self.text:
            if motion_text_BTD is None:
                raise VgenError("slow.warp.text moves the reference by the text, but the condition has none")
            told.append(motion_text_BTD.astype(self.dtype) * (1 - valid_BT1))
        return jnp.concatenate(told, -1)

    def _flow(self, reference_BHWC: Array, e: Array) -> Array:
        """(F, H·cells, W·cells, 2): x and y, in pixels."""
        b, height, width, _ = reference_BHWC.shape
        frames = e.shape[1]
        for i in range(2):
            e = jax.nn.silu(nn.Dense(self.width * (i + 1), dtype=self.dtype, name=f"flow_motion_{i}")(e))
        e_FD = e.reshape(b * frames, -1)

        x = _with_places(reference_BHWC.astype(self.dtype))
        x = conv3x3(self.width, self.dtype, "flow_in")(x)
        x = jax.nn.silu(group_norm(self.norm_groups, NORM_EPS, self.dtype, "flow_in_norm")(x))
        x = conv3x3(self.width, self.dtype, "flow_reference")(x)
        x = jnp.broadcast_to(x[:, None], (b, frames, *x.shape[1:])).reshape(b * frames, *x.shape[1:])
        for i in range(self.layers):
            x = x + conv3x3(self.width, self.dtype, f"flow_{i}")(_with_places(self._moved(x, e_FD, f"flow_{i}")))
        last = conv3x3(2 * self.cells**2, self.dtype, "flow_out", kernel_init=nn.initializers.zeros_init())
        flow = last(self._moved(x, e_FD, "flow_out")).astype(jnp.float32) * FLOW_SCALE
        return rearrange(flow, "f h w (p q c) -> f (h p) (w q) c", p=self.cells, q=self.cells)

    def _moved(self, x_FHWC: Array, e_FD: Array, name: str) -> Array:
        """GroupNorm, scale and shift by the motion, SiLU."""
        moved = nn.Dense(2 * self.width, dtype=self.dtype, name=f"{name}_motion")(e_FD)
        scale, shift = jnp.split(moved[:, None, None, :], 2, axis=-1)
        x = group_norm(self.norm_groups, NORM_EPS, self.dtype, f"{name}_norm")(x_FHWC)
        return jax.nn.silu(x * (1 + scale) + shift)


def _with_places(x_FHWC: Array) -> Array:
    """Two more channels: the place in the frame, x and y in [-1, 1]."""
    f, height, width, _ = x_FHWC.shape
    y, x = jnp.meshgrid(jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width), indexing="ij")
    places = jnp.broadcast_to(jnp.stack([x, y], -1).astype(x_FHWC.dtype), (f, height, width, 2))
    return jnp.concatenate([x_FHWC, places], -1)


def bilinear(image_BHWC: Array, flow_BTHWC: Array) -> tuple[Array, Array]:
    """``image[p + flow[p]]``, bilinear between pixels, the last pixel beyond the border.

    Args:
        flow_BTHWC: x and y on the last axis, in pixels. The gradient goes to it alone.

    Returns:
        (B, T, H, W, C), and (B, T, H, W): 1 where the source lies inside the image, else 0.
    """
    b, height, width, channels = image_BHWC.shape
    gy, gx = jnp.meshgrid(jnp.arange(height, dtype=jnp.float32), jnp.arange(width, dtype=jnp.float32), indexing="ij")
    x, y = gx + flow_BTHWC[..., 0], gy + flow_BTHWC[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    x, y = jnp.clip(x, 0, width - 1), jnp.clip(y, 0, height - 1)
    x0 = jnp.clip(jnp.floor(x), 0, width - 2)
    y0 = jnp.clip(jnp.floor(y), 0, height - 2)
    wx, wy = (x - x0)[..., None], (y - y0)[..., None]
    first_BN = (y0 * width + x0).astype(jnp.int32).reshape(b, -1)
    pixels_BNC = jax.lax.stop_gradient(image_BHWC).reshape(b, -1, channels)

    def at(offset: int) -> Array:
        return jnp.take_along_axis(pixels_BNC, (first_BN + offset)[..., None], axis=1).reshape(*x.shape, channels)

    above = (1 - wx) * at(0) + wx * at(1)
    below = (1 - wx) * at(width) + wx * at(width + 1)
    return (1 - wy) * above + wy * below, inside.astype(jnp.float32)


def canvas(autoencoder: Params, scale: float) -> dict[str, np.ndarray]:
    """The constants of ``FlowWarp`` from the linear path of an autoencoder whose latents are multiplied by ``scale``.

    Raises:
        VgenError: if it has no linear path.
    """
    if "linear_decoder" not in autoencoder:
        raise VgenError("slow.warp needs an autoencoder with linear_path: train one, or set slow.warp.width to 0")
    decoder, encoder = autoencoder["linear_decoder"], autoencoder["linear_encoder"]
    as_float = lambda x: np.asarray(x, np.float32)  # noqa: E731
    return {
        "to_pixels": as_float(decoder["kernel"]) / np.float32(scale),
        "pixels_bias": as_float(decoder["bias"]),
        "to_latents": as_float(encoder["kernel"]) * np.float32(scale),
        "latents_bias": as_float(encoder["bias"]) * np.float32(scale),
    }
