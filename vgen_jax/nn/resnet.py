"""Convolutional blocks. Frames are folded into the batch for spatial work (``x_FHWC``)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import Initializer

from vgen_jax.types import Array


def group_norm(groups: int, eps: float, dtype: jnp.dtype, name: str) -> nn.GroupNorm:
    """GroupNorm over every axis but the first and the channel groups; float32 statistics."""
    return nn.GroupNorm(num_groups=groups, epsilon=eps, dtype=dtype, use_fast_variance=False, name=name)


def conv3x3(
    features: int, dtype: jnp.dtype, name: str, kernel_init: Initializer = nn.linear.default_kernel_init
) -> nn.Conv:
    """3×3 convolution with one pixel of zero padding on every side."""
    return nn.Conv(features, (3, 3), padding=((1, 1), (1, 1)), dtype=dtype, kernel_init=kernel_init, name=name)


class ResnetBlock(nn.Module):
    """GroupNorm, SiLU, conv, + time embedding, GroupNorm, SiLU, conv, + input.

    Attributes:
        features: output channels; a 1×1 shortcut appears where they differ from the input's.
        groups: groups of the norms.
        eps: epsilon of the norms.
        scale_shift: the embedding scales and shifts the second norm's output (Dhariwal and Nichol 2021) instead of
            being added before it; ModelScopeT2V adds.
    """

    features: int
    groups: int = 32
    eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    scale_shift: bool = False

    @nn.compact
    def __call__(self, x_FHWC: Array, embedding_FD: Array | None = None) -> Array:
        h = jax.nn.silu(group_norm(self.groups, self.eps, self.dtype, "norm1")(x_FHWC))
        h = conv3x3(self.features, self.dtype, "conv1")(h)
        scale = shift = jnp.zeros((), self.dtype)
        if embedding_FD is not None:
            width = 2 * self.features if self.scale_shift else self.features
            e_FD = nn.Dense(width, dtype=self.dtype, name="time_emb_proj")(jax.nn.silu(embedding_FD))
            if self.scale_shift:
                scale, shift = jnp.split(e_FD[:, None, None, :], 2, axis=-1)
            else:
                h = h + e_FD[:, None, None, :]
        h = group_norm(self.groups, self.eps, self.dtype, "norm2")(h)
        h = jax.nn.silu(h * (1 + scale) + shift)
        h = conv3x3(self.features, self.dtype, "conv2")(h)
        if x_FHWC.shape[-1] != self.features:
            x_FHWC = nn.Conv(self.features, (1, 1), dtype=self.dtype, name="conv_shortcut")(x_FHWC)
        return x_FHWC + h


class Downsample(nn.Module):
    """Halves height and width by a strided 3×3 convolution.

    Attributes:
        asymmetric: pad bottom and right only, as Stable Diffusion's autoencoder does; else one pixel on every side.
    """

    asymmetric: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_FHWC: Array) -> Array:
        padding = ((0, 1), (0, 1)) if self.asymmetric else ((1, 1), (1, 1))
        return nn.Conv(x_FHWC.shape[-1], (3, 3), (2, 2), padding, dtype=self.dtype, name="conv")(x_FHWC)


class Upsample(nn.Module):
    """Doubles height and width, or brings them to ``size``: nearest neighbour, then a 3×3 convolution."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_FHWC: Array, size: tuple[int, int] | None = None) -> Array:
        x = x_FHWC
        for axis, target in enumerate(size or (2 * x.shape[1], 2 * x.shape[2]), start=1):
            length = x.shape[axis]
            # A repeat, and its gradient a sum, wherever the size doubles; the gather is for odd sizes.
            nearest = np.arange(target) * length // target
            x = jnp.repeat(x, 2, axis=axis) if target == 2 * length else jnp.take(x, nearest, axis=axis)
        return conv3x3(x.shape[-1], self.dtype, "conv")(x)
