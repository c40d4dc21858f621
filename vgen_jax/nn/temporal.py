"""Temporal blocks of ModelScopeT2V: they mix frames at each pixel and work for any number of frames."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vgen_jax.nn.attention import TransformerBlock
from vgen_jax.nn.resnet import group_norm
from vgen_jax.types import Array

TRANSFORMER_NORM_EPS = 1e-6
TEMPORAL_DROPOUT = 0.1


def frames_contraction(x_BTNC: Array, kernel: Array, *args: Any, **kwargs: Any) -> Array:
    """A (3, 1) convolution over (frames, pixels) as one matrix product with three shifted copies side by side.

    Stands in for ``lax.conv_general_dilated`` within ``nn.Conv``; its gradient is 1.6 times as fast on a CPU (64
    channels, 8 frames of 8×8), where XLA has no fast path for the gradient of a convolution of this shape.
    """
    frames = x_BTNC.shape[1]
    padded = jnp.pad(x_BTNC, ((0, 0), (1, 1), (0, 0), (0, 0)))
    shifted = jnp.concatenate([padded[:, i : i + frames] for i in range(3)], axis=-1)
    return shifted @ kernel.reshape(-1, kernel.shape[-1])


class TemporalConv(nn.Module):
    """Four times GroupNorm, SiLU, conv over three frames; residual. The last convolution starts at zero.

    The kernel is (3, 1) over (frames, pixels), which is the original's (3, 1, 1) with the two spatial axes folded: no
    transposes. The norms' statistics run over frames and pixels. From the second convolution on, inputs pass a dropout
    of 0.1, active only where an RNG stream ``dropout`` is given.
    """

    groups: int = 32
    eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTNC: Array) -> Array:
        features = x_BTNC.shape[-1]
        h = x_BTNC
        for i in range(4):
            h = jax.nn.silu(group_norm(self.groups, self.eps, self.dtype, f"norm{i + 1}")(h))
            if i > 0:
                h = nn.Dropout(TEMPORAL_DROPOUT, deterministic=not self.has_rng("dropout"))(h)
            init = nn.initializers.zeros_init() if i == 3 else nn.linear.default_kernel_init
            conv = nn.Conv(
                features,
                (3, 1),
                padding=((1, 1), (0, 0)),
                dtype=self.dtype,
                kernel_init=init,
                conv_general_dilated=frames_contraction,
                name=f"conv{i + 1}",
            )
            h = conv(h)
        return x_BTNC + h


class TemporalTransformer(nn.Module):
    """A transformer along time at each pixel with two self-attentions and no positional embedding; residual.

    Attributes:
        heads, head_dim: of the attentions; heads·head_dim need not equal the channels.
    """

    heads: int
    head_dim: int
    groups: int = 32
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTNC: Array) -> Array:
        b, t, n, c = x_BTNC.shape
        h = group_norm(self.groups, TRANSFORMER_NORM_EPS, self.dtype, "norm")(x_BTNC)
        h = h.transpose(0, 2, 1, 3).reshape(b * n, t, c)
        h = nn.Dense(self.heads * self.head_dim, dtype=self.dtype, name="proj_in")(h)
        h = TransformerBlock(self.heads, self.head_dim, self.dtype, name="block")(h)
        h = nn.Dense(c, dtype=self.dtype, name="proj_out")(h)
        return x_BTNC + h.reshape(b, n, t, c).transpose(0, 2, 1, 3)


class SpatialTransformer(nn.Module):
    """A transformer over the pixels of each frame with text cross-attention; residual.

    Attributes:
        heads, head_dim: of the attentions; heads·head_dim need not equal the channels.
        second_attention: False for a network that never takes text.
    """

    heads: int
    head_dim: int
    groups: int = 32
    dtype: jnp.dtype = jnp.float32
    second_attention: bool = True

    @nn.compact
    def __call__(self, x_FNC: Array, text_BLD: Array | None, mask_BL: Array | None) -> Array:
        h = group_norm(self.groups, TRANSFORMER_NORM_EPS, self.dtype, "norm")(x_FNC)
        h = nn.Dense(self.heads * self.head_dim, dtype=self.dtype, name="proj_in")(h)
        block = TransformerBlock(self.heads, self.head_dim, self.dtype, self.second_attention, name="block")
        h = block(h, text_BLD, mask_BL)
        return x_FNC + nn.Dense(x_FNC.shape[-1], dtype=self.dtype, name="proj_out")(h)
