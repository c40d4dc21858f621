"""Blocks of Video Diffusion Models (Ho et al. 2022) as AVID uses them: space and time take turns.

Frames are folded into the batch, F = B·T, for everything but temporal attention. Norms and softmaxes are computed in
float32.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from vgen_jax.types import Array

SPATIAL_HEAD_DIM = 32  # of every spatial attention, whatever the temporal heads are
ROTARY_DIM = 32  # the dimensions of a temporal head that turn with time, at most
BUCKETS, MAX_DISTANCE = 32, 32


class RMSNorm(nn.Module):
    """x / ||x|| · sqrt(C) · gain over the channels, without an epsilon but for the zero vector."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_FHWC: Array) -> Array:
        gain = self.param("gain", nn.initializers.ones_init(), (x_FHWC.shape[-1],))
        x = x_FHWC.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), 1e-24))
        return (x * inverse * math.sqrt(x.shape[-1]) * gain).astype(self.dtype)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels with a gain and no bias."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.LayerNorm(1e-5, use_bias=False, use_fast_variance=False, dtype=self.dtype, name="norm")(x)


class FilmResnet(nn.Module):
    """[conv 3×3, RMSNorm, scale and shift, SiLU], [conv 3×3, RMSNorm, SiLU], plus the input.

    The embedding scales and shifts the first half only; without one the block is unconditioned.

    Attributes:
        features: output channels; a 1×1 shortcut appears where they differ from the input's.
    """

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_FHWC: Array, embedding_FD: Array | None = None) -> Array:
        h = x_FHWC
        for i in range(2):
            h = nn.Conv(self.features, (3, 3), padding=1, dtype=self.dtype, name=f"conv{i + 1}")(h)
            h = RMSNorm(self.dtype, name=f"norm{i + 1}")(h)
            if i == 0 and embedding_FD is not None:
                film = nn.Dense(2 * self.features, dtype=self.dtype, name="film")(jax.nn.silu(embedding_FD))
                scale, shift = jnp.split(film[:, None, None, :], 2, axis=-1)
                h = h * (1 + scale) + shift
            h = jax.nn.silu(h)
        if x_FHWC.shape[-1] != self.features:
            x_FHWC = nn.Dense(self.features, dtype=self.dtype, name="shortcut")(x_FHWC)
        return x_FHWC + h


class LinearAttention(nn.Module):
    """Spatial attention whose cost is linear in the pixels (Shen et al. 2021); pre-normed, residual.

    Queries are softmaxed over their dimensions, keys over the pixels.
    """

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_FHWC: Array) -> Array:
        f, height, width, c = x_FHWC.shape
        inner = self.heads * SPATIAL_HEAD_DIM
        x = ChannelNorm(self.dtype, name="prenorm")(x_FHWC).reshape(f, height * width, c)
        qkv = nn.Dense(3 * inner, use_bias=False, dtype=self.dtype, name="to_qkv")(x)
        q, k, v = (rearrange(y, "f n (k d) -> f n k d", k=self.heads) for y in jnp.split(qkv, 3, axis=-1))
        q = jax.nn.softmax(q.astype(jnp.float32), axis=-1).astype(self.dtype) * SPATIAL_HEAD_DIM**-0.5
        k = jax.nn.softmax(k.astype(jnp.float32), axis=1).astype(self.dtype)
        context = jnp.einsum("fnkd,fnke->fkde", k, v)
        out = jnp.einsum("fkde,fnkd->fnke", context, q).reshape(f, height, width, inner)
        return x_FHWC + nn.Dense(c, dtype=self.dtype, name="to_out")(out)


class SpatialAttention(nn.Module):
    """Full attention over the pixels of each frame; pre-normed, residual."""

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_FHWC: Array) -> Array:
        f, height, width, c = x_FHWC.shape
        x = ChannelNorm(self.dtype, name="prenorm")(x_FHWC).reshape(f, height * width, c)
        out = PlainAttention(self.heads, SPATIAL_HEAD_DIM, dtype=self.dtype, name="attention")(x)
        return x_FHWC + out.reshape(x_FHWC.shape)


class TemporalAttention(nn.Module):
    """Full attention over time at each pixel, with rotary positions and a relative bias; pre-normed, residual."""

    heads: int
    head_dim: int
    frames: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_FHWC: Array, bias_KTT: Array) -> Array:
        shape = dict(zip("thw", (self.frames, *x_FHWC.shape[1:3]), strict=True))
        x = ChannelNorm(self.dtype, name="prenorm")(x_FHWC)
        x = rearrange(x, "(b t) h w c -> (b h w) t c", t=self.frames)
        attention = PlainAttention(self.heads, self.head_dim, rotary=True, dtype=self.dtype, name="attention")
        return x_FHWC + rearrange(attention(x, bias_KTT), "(b h w) t c -> (b t) h w c", **shape)


class PlainAttention(nn.Module):
    """Multi-head self-attention without biases in its projections.

    Attributes:
        rotary: turn queries and keys by their position.
    """

    heads: int
    head_dim: int
    rotary: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_FND: Array, bias_KNN: Array | None = None) -> Array:
        inner = self.heads * self.head_dim
        qkv = nn.Dense(3 * inner, use_bias=False, dtype=self.dtype, name="to_qkv")(x_FND)
        q, k, v = (rearrange(y, "f n (k d) -> f n k d", k=self.heads) for y in jnp.split(qkv, 3, axis=-1))
        bias = None if bias_KNN is None else bias_KNN[None].astype(self.dtype)
        turn: Any = turned if self.rotary else jnp.asarray
        out = jax.nn.dot_product_attention(turn(q), turn(k), v, bias=bias)
        out = out.reshape(*x_FND.shape[:-1], inner)
        return nn.Dense(x_FND.shape[-1], use_bias=False, dtype=self.dtype, name="to_out")(out)


def turned(x_FNKD: Array) -> Array:
    """Rotary positions (Su et al. 2021) on the first ``ROTARY_DIM`` dimensions, neighbours in pairs."""
    width = min(ROTARY_DIM, x_FNKD.shape[-1])
    frequency = 10_000.0 ** -(np.arange(0, width, 2) / width)
    angle = np.arange(x_FNKD.shape[1])[:, None] * frequency
    cos, sin = (jnp.asarray(f(angle)[:, None, :], x_FNKD.dtype) for f in (np.cos, np.sin))
    head, rest = x_FNKD[..., :width], x_FNKD[..., width:]
    even, odd = head[..., ::2], head[..., 1::2]
    pairs = jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
    return jnp.concatenate([pairs.reshape(head.shape), rest], axis=-1)


def distance_buckets(frames: int) -> np.ndarray:
    """T5's bucket of each (query, key), (T, T): half of all for keys after the query, far ones in logarithmic steps."""
    distance = np.arange(frames)[:, None] - np.arange(frames)[None]
    half, exact = BUCKETS // 2, BUCKETS // 4
    size = np.abs(distance)
    far = exact + np.floor(np.log(np.maximum(size, 1) / exact) / np.log(MAX_DISTANCE / exact) * (half - exact))
    bucket = np.where(size < exact, size, np.minimum(far, half - 1)).astype(np.int64)
    return bucket + np.where(distance < 0, half, 0)


class RelativeBias(nn.Module):
    """A learned bias (K, T, T) by the bucketed distance of two frames, shared by all temporal attentions."""

    heads: int

    @nn.compact
    def __call__(self, frames: int) -> Array:
        table = self.param("embedding", nn.initializers.normal(1.0), (BUCKETS, self.heads))
        return table[distance_buckets(frames)].transpose(2, 0, 1)


class HalvingConv(nn.Module):
    """4×4 convolution with stride 2 and one pixel of padding, same channels."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_FHWC: Array) -> Array:
        return nn.Conv(x_FHWC.shape[-1], (4, 4), (2, 2), padding=1, dtype=self.dtype, name="conv")(x_FHWC)


class DoublingConv(nn.Module):
    """4×4 transposed convolution with stride 2 that doubles height and width, same channels.

    Computed as one matrix product per input pixel and four shifted sums: output row 2i is tap 1 of row i plus tap 3 of
    row i-1, row 2i+1 is tap 2 of row i plus tap 0 of row i+1; columns likewise. CPUs and their gradients are slow at
    convolutions with dilated inputs.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_FHWC: Array) -> Array:
        f, height, width, c = x_FHWC.shape
        kernel = self.param("kernel", nn.linear.default_kernel_init, (4, 4, c, c))
        bias = self.param("bias", nn.initializers.zeros_init(), (c,))
        taps = jnp.einsum("fhwi,yxio->fhwyxo", x_FHWC.astype(self.dtype), kernel.astype(self.dtype))
        rows = _overlapped(jnp.moveaxis(taps, 3, 0), axis=1)  # (f, h, 2, w, x, o)
        both = _overlapped(jnp.moveaxis(rows, 4, 0), axis=3)  # (f, h, 2, w, 2, o)
        return both.reshape(f, 2 * height, 2 * width, c) + bias.astype(self.dtype)


def _overlapped(taps: Array, axis: int) -> Array:
    """Four taps (first axis) along ``axis`` to the two interleaved outputs, stacked after ``axis``."""
    length = taps.shape[axis + 1]

    def shift(x: Array, by: int) -> Array:
        pads = [(0, 0)] * x.ndim
        pads[axis] = (max(by, 0), max(-by, 0))
        return jax.lax.slice_in_dim(jnp.pad(x, pads), max(-by, 0), max(-by, 0) + length, axis=axis)

    first, second = taps[1] + shift(taps[3], 1), taps[2] + shift(taps[0], -1)
    return jnp.stack([first, second], axis=axis + 1)
