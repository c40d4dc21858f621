"""Text encoders.

``ByteTextEncoder`` is the offline default: it reads UTF-8 bytes (``data.text.encode_text``) and is trained together
with the UNet, which needs no vocabulary and no download. The empty text, whose only token is the end mark, stands for
"no text" in classifier-free guidance.

``ClipTextEncoder`` is the text tower of CLIP (Radford et al. 2021) as Stable Diffusion and ModelScopeT2V use it, to
load and freeze (``convert.clip``). What it made of the texts that will be met stands in a table, ``looked_up`` by their
bytes, so that everything that carries texts as bytes works with either encoder and the tower need not stay in memory.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vgen_jax.nn.attention import Attention, FeedForward
from vgen_jax.types import Array, Params, VgenError

BYTE_VOCABULARY = 259  # 256 bytes after padding (0), end (1) and unknown (2)
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
}
OLD_END_TOKEN = 2  # what CLIP's first configurations call the end mark, which really is the vocabulary's last token


def looked_up(table: Params, token_BL: Array) -> Array:
    """Embeddings that a frozen encoder computed beforehand, (B, tokens, D), of texts given as bytes.

    A text that the table lacks becomes NaN, so that none passes for another.

    Args:
        table: ``token`` (N, L) int32, a text a row, as ``token_BL`` has it; ``embedding`` (N, tokens, D).

    Raises:
        VgenError: if the table is of texts of another length.
    """
    token_NL, embedding = table["token"], table["embedding"]
    if token_NL.shape[1] != token_BL.shape[1]:
        raise VgenError(
            f"texts of {token_BL.shape[1]} bytes cannot be looked up among texts of {token_NL.shape[1]}: "
            "use one data.token_length"
        )
    same_BN = (token_BL[:, None] == token_NL[None]).all(-1)
    found = jnp.take(embedding, same_BN.argmax(1), axis=0)
    return jnp.where(same_BN.any(1)[:, None, None], found, jnp.nan)


class ByteTextEncoder(nn.Module):
    """A small bidirectional transformer over bytes.

    Attributes:
        width: of the embeddings; a multiple of ``heads``.
        layers, heads: of the transformer.
        max_length: longest text, in tokens.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    max_length: int = 64
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, token_BL: Array) -> tuple[Array, Array]:
        """Embeddings (B, L, width) and a mask (B, L), True on real tokens.

        Raises:
            VgenError: if L exceeds ``max_length``.
        """
        if token_BL.shape[1] > self.max_length:
            raise VgenError(f"texts of {token_BL.shape[1]} tokens exceed text.max_length {self.max_length}: raise it")
        mask_BL = token_BL != 0
        x = nn.Embed(BYTE_VOCABULARY, self.width, dtype=self.dtype, name="token")(token_BL)
        position = self.param("position", nn.initializers.normal(0.02), (self.max_length, self.width))
        x = x + position[: token_BL.shape[1]].astype(self.dtype)
        for i in range(self.layers):
            attention = Attention(self.heads, self.width // self.heads, self.dtype, name=f"attention_{i}")
            x = x + attention(nn.LayerNorm(dtype=self.dtype, name=f"norm1_{i}")(x), mask_BL=mask_BL)
            x = x + FeedForward(self.dtype, name=f"ff_{i}")(nn.LayerNorm(dtype=self.dtype, name=f"norm2_{i}")(x))
        return nn.LayerNorm(dtype=self.dtype, name="norm")(x), mask_BL


class ClipLayer(nn.Module):
    """Pre-norm causal self-attention and a two-layer perceptron, each residual; see ``ClipTextEncoder``."""

    heads: int
    feed_forward: int
    activation: str
    eps: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BLD: Array, mask_BKLL: Array) -> Array:
        width = x_BLD.shape[-1]

        def norm(name: str, x: Array) -> jax.Array:
            return nn.LayerNorm(epsilon=self.eps, dtype=self.dtype, use_fast_variance=False, name=name)(x)

        def project(name: str, x: Array, features: int = width) -> jax.Array:
            return nn.Dense(features, dtype=self.dtype, name=name)(x)

        h = norm("norm1", x_BLD)
        q, k, v = (project(n, h).reshape(*h.shape[:-1], self.heads, -1) for n in ("to_q", "to_k", "to_v"))
        attended = jax.nn.dot_product_attention(q, k, v, mask=mask_BKLL)
        x = x_BLD + project("to_out", attended.reshape(h.shape))
        h = ACTIVATIONS[self.activation](project("fc1", norm("norm2", x), self.feed_forward))
        return x + project("fc2", h)


class ClipTextEncoder(nn.Module):
    """CLIP's text tower; the defaults are ModelScopeT2V's, the penultimate layers of OpenCLIP ViT-H/14.

    Attributes:
        vocabulary: number of tokens.
        width: of the embeddings; a multiple of ``heads``.
        layers, heads: of the transformer.
        feed_forward: hidden width of the perceptrons.
        max_length: longest text, in tokens.
        activation: ``gelu`` (exact) or ``quick_gelu`` (OpenAI's).
        eps: epsilon of the norms.
        end_token: the token at which ``pool`` reads; 2 stands for the highest token of each text.
    """

    vocabulary: int = 49408
    width: int = 1024
    layers: int = 23
    heads: int = 16
    feed_forward: int = 4096
    max_length: int = 77
    activation: str = "gelu"
    eps: float = 1e-5
    end_token: int = OLD_END_TOKEN
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, token_BL: Array, mask_BL: Array | None = None) -> Array:
        """Embeddings (B, L, width), after the final norm.

        Args:
            mask_BL: True on tokens to attend to; ``None`` for all of them, which is how the diffusion models were
                trained: padding is a token like any other.

        Raises:
            VgenError: if L exceeds ``max_length``, or for an unknown activation or heads that do not divide the width.
        """
        length = token_BL.shape[1]
        if length > self.max_length:
            raise VgenError(f"texts of {length} tokens exceed text.max_length {self.max_length}: raise it")
        if self.activation not in ACTIVATIONS:
            raise VgenError(f"text.activation '{self.activation}' is unknown: use one of {', '.join(ACTIVATIONS)}")
        if self.width % self.heads:
            raise VgenError(f"text.width {self.width} is no multiple of text.heads {self.heads}: change one")
        mask = jnp.tril(jnp.ones((length, length), bool))[None, None]
        if mask_BL is not None:
            mask = mask & jnp.asarray(mask_BL, bool)[:, None, None, :]
        x = nn.Embed(self.vocabulary, self.width, dtype=self.dtype, name="token")(token_BL)
        position = self.param("position", nn.initializers.normal(0.02), (self.max_length, self.width))
        x = x + position[:length].astype(self.dtype)
        for i in range(self.layers):
            x = ClipLayer(
                self.heads, self.feed_forward, self.activation, self.eps, self.dtype, name=f"layer_{i}"
            )(x, mask)  # fmt: skip
        return nn.LayerNorm(epsilon=self.eps, dtype=self.dtype, use_fast_variance=False, name="norm")(x)

    def pool(self, embedding_BLD: Array, token_BL: Array) -> Array:
        """One embedding per text, (B, width): that of its first end token."""
        at_B = (token_BL if self.end_token == OLD_END_TOKEN else token_BL == self.end_token).argmax(axis=1)
        return jnp.take_along_axis(jnp.asarray(embedding_BLD), at_B[:, None, None], axis=1)[:, 0]
