"""I3D (Carreira and Zisserman 2017), RGB, Kinetics-400: Inception-v1 inflated to space and time, up to the logits.

FVD (Unterthiner et al. 2018) is the Fréchet distance of its 400 logits. Convolutions and pools pad as TensorFlow's
"SAME" does. Logits are averaged over every position that the (2, 7, 7) average pool leaves, which in the protocol's
224x224 pixels is time alone. Names are those of the checkpoint i3d_pretrained_400.pt.

The norms' epsilon is 1e-5, that of VideoGPT, TATS and cd-fvd, whose FVDs this checkpoint is known for. DeepMind's own
network has 1e-3, and other ports of it do too: with the same weights they give other logits.
"""

import jax.numpy as jnp
from flax import linen as nn

from vgen_jax.metrics.feature_nets.layers import ConvNorm, convolution, resize
from vgen_jax.types import Array, VgenError

SIDE, WIDTH = 224, 400
EPSILON = 1e-5
# Three halvings in time and five in space must leave the last pool's window of 2 x 7 x 7.
FEWEST_FRAMES, SMALLEST_SIDE = 9, 193

# Channels of each mixed block: b0, b1a, b1b, b2a, b2b, b3b. Before a block whose name is in POOLS, a max pool.
BLOCKS: dict[str, tuple[int, ...]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32), "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64), "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64), "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128), "Mixed_5c": (384, 192, 384, 48, 128, 128),
}  # fmt: skip
POOLS = {"Mixed_4b": (3, 3, 3), "Mixed_5b": (2, 2, 2)}
UNITS = ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")
STEM = ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3")


def _unit(name: str, features: int, side: int, stride: int = 1) -> ConvNorm:
    return ConvNorm(features, (side,) * 3, (stride,) * 3, "SAME", EPSILON, name=name)


class _Mixed(nn.Module):
    """Four branches: 1x1x1; two of 1x1x1 then 3x3x3; a max pool then 1x1x1."""

    channels: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        sides = {"b1b": 3, "b2b": 3}
        widths = dict(zip(UNITS, self.channels, strict=True))
        units = {name: _unit(name, n, sides[name] if name in sides else 1) for name, n in widths.items()}
        pooled = nn.max_pool(x, (3, 3, 3), padding="SAME")
        branches = (
            units["b0"](x),
            units["b1b"](units["b1a"](x)),
            units["b2b"](units["b2a"](x)),
            units["b3b"](pooled),
        )
        return jnp.concatenate(branches, axis=-1)


class I3D(nn.Module):
    """float32 (B, T, H, W, 3) in [-1, 1] -> logits (B, 400), with T >= 9 and H, W >= 193.

    Raises:
        VgenError: clips that are shorter or smaller.
    """

    @nn.compact
    def __call__(self, x_BTHWC: Array) -> Array:
        frames, height, width = x_BTHWC.shape[1:4]
        if frames < FEWEST_FRAMES or min(height, width) < SMALLEST_SIDE:
            raise VgenError(
                f"I3D cannot take clips of {frames} frames of {height}x{width}: it needs {FEWEST_FRAMES} frames of "
                f"{SMALLEST_SIDE}x{SMALLEST_SIDE} or more"
            )
        halved = {"window_shape": (1, 3, 3), "strides": (1, 2, 2), "padding": "SAME"}
        x = nn.max_pool(_unit(STEM[0], 64, 7, 2)(x_BTHWC), **halved)
        x = nn.max_pool(_unit(STEM[2], 192, 3)(_unit(STEM[1], 64, 1)(x)), **halved)
        for name, channels in BLOCKS.items():
            if name in POOLS:
                x = nn.max_pool(x, POOLS[name], (2, 2, 2), "SAME")
            x = _Mixed(channels, name=name)(x)
        x = nn.avg_pool(x, (2, 7, 7))
        return jnp.mean(convolution(WIDTH, (1, 1, 1), (1, 1, 1), "VALID", "logits")(x), axis=(1, 2, 3))


def preprocess(clips_BTHWC: Array) -> Array:
    """uint8 clips of any size -> [-1, 1] at 224x224: bilinear on bytes, then 2x/255 - 1."""
    return 2.0 * resize(jnp.asarray(clips_BTHWC, jnp.float32), SIDE, SIDE) / 255.0 - 1.0
