"""Which action led to each frame, of frames with noise on them: the classifier of classifier guidance (AVID §4.1).

The way down of the pixel UNet on [clean past frames, noisy frames] one after another in time, halved once more,
flattened, LayerNorm, Dense, GELU, Dense. For every noisy frame it says which action was taken just before it.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vgen_jax.models.unet_pixel import DownPath, check_size, folded
from vgen_jax.nn.factorized import HalvingConv
from vgen_jax.types import Array


class ActionClassifier(nn.Module):
    """See the module's docstring; its path's fields are those of ``PixelUNet``.

    Attributes:
        num_actions: classes.
        mlp_width: of the head's hidden layer.
    """

    dim: int
    mults: tuple[int, ...]
    heads: int
    head_dim: int
    num_actions: int
    mlp_width: int = 1024
    patch: int = 1
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: Array, t_B: Array, past_BTHWC: Array) -> Array:
        """Logits (B, T, num_actions), float32, of the actions that led to the frames of ``x``.

        Args:
            x_BTHWC: noisy frames; ``t_B`` their diffusion step.
            past_BTHWC: the clean frames before them.
        """
        height, width = x_BTHWC.shape[2:4]
        check_size(height, width, self.patch, len(self.mults) + 1)
        video = jnp.concatenate([past_BTHWC, x_BTHWC], axis=1)
        b, frames = video.shape[:2]
        path = DownPath(
            self.dim, self.mults, self.heads, self.head_dim, remat=self.remat, dtype=self.dtype, name="path"
        )  # fmt: skip
        x = HalvingConv(self.dtype, name="last_sample")(path(folded(video, self.patch), t_B).out)
        x = x.reshape(b, frames, -1)[:, past_BTHWC.shape[1] :]
        x = nn.LayerNorm(1e-5, use_fast_variance=False, dtype=self.dtype, name="norm")(x)
        x = jax.nn.gelu(nn.Dense(self.mlp_width, dtype=self.dtype, name="hidden")(x), approximate=False)
        return nn.Dense(self.num_actions, dtype=self.dtype, name="logits")(x).astype(jnp.float32)
