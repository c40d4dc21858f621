"""Text encoders.

``ByteTextEncoder`` is the offline default: it reads UTF-8 bytes (``data.text.encode_text``) and is trained together
with the UNet, which needs no vocabulary and no download. The empty text, whose only token is the end mark, stands for
"no text" in classifier-free guidance.
"""

import flax.linen as nn
import jax.numpy as jnp

from vgen_jax.nn.attention import Attention, FeedForward
from vgen_jax.types import Array, VgenError

BYTE_VOCABULARY = 259  # 256 bytes after padding (0), end (1) and unknown (2)


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
