"""Attention and transformer blocks over sequences ``x_FND`` (F folded batch, N tokens, D width).

The layout of Stable Diffusion's and ModelScopeT2V's transformer blocks: pre-norm self-attention, a second attention
(text cross-attention, or self-attention again in temporal transformers), and a GEGLU feed-forward. Attention runs
through ``jax.nn.dot_product_attention``, softmax in float32.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vgen_jax.types import Array

LAYER_NORM_EPS = 1e-5


class Attention(nn.Module):
    """Multi-head attention; queries and keys without bias, the output projection with one.

    Attributes:
        heads: number of heads K.
        head_dim: width of a head.
        dtype: compute dtype; parameters are float32.
    """

    heads: int
    head_dim: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_FND: Array, context_BLD: Array | None = None, mask_BL: Array | None = None) -> Array:
        """Attends from ``x`` to ``context`` (to itself if None), to tokens where ``mask`` is True. Returns (F, N, D).

        B may divide F: frames (b, t) folded into F = B·T then share context b. Its keys and values are computed once
        and all of its frames' queries stand in one sequence.
        """
        context = x_FND if context_BLD is None else context_BLD
        inner = self.heads * self.head_dim

        def project(name: str, inputs: Array) -> Array:
            y = nn.Dense(inner, use_bias=False, dtype=self.dtype, name=name)(inputs)
            return y.reshape(context.shape[0], -1, self.heads, self.head_dim)

        q, k_BLKD, v_BLKD = project("to_q", x_FND), project("to_k", context), project("to_v", context)
        mask = None if mask_BL is None else mask_BL[:, None, None, :]
        out = jax.nn.dot_product_attention(q, k_BLKD, v_BLKD, mask=mask)
        return nn.Dense(x_FND.shape[-1], dtype=self.dtype, name="to_out")(out.reshape(*x_FND.shape[:-1], inner))


class FeedForward(nn.Module):
    """GEGLU: Dense to 2·4·D, one half gated by the exact GELU of the other, Dense back to D."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_FND: Array) -> Array:
        width = x_FND.shape[-1]
        value, gate = jnp.split(nn.Dense(8 * width, dtype=self.dtype, name="proj_in")(x_FND), 2, axis=-1)
        return nn.Dense(width, dtype=self.dtype, name="proj_out")(value * jax.nn.gelu(gate, approximate=False))


class TransformerBlock(nn.Module):
    """Self-attention, attention to ``context`` (or to itself again), feed-forward; each pre-normed and residual.

    Attributes:
        heads, head_dim: of the attentions.
        second_attention: False leaves the second attention and its norm out.
    """

    heads: int
    head_dim: int
    dtype: jnp.dtype = jnp.float32
    second_attention: bool = True

    @nn.compact
    def __call__(self, x_FND: Array, context_BLD: Array | None = None, mask_BL: Array | None = None) -> Array:
        def norm(name: str, x: Array) -> Array:
            return nn.LayerNorm(epsilon=LAYER_NORM_EPS, dtype=self.dtype, use_fast_variance=False, name=name)(x)

        x = x_FND + Attention(self.heads, self.head_dim, self.dtype, name="attn1")(norm("norm1", x_FND))
        if self.second_attention:
            attn2 = Attention(self.heads, self.head_dim, self.dtype, name="attn2")
            x = x + attn2(norm("norm2", x), context_BLD, mask_BL)
        return x + FeedForward(self.dtype, name="ff")(norm("norm3", x))
