"""Embeddings of diffusion steps and actions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vgen_jax.types import Array


def sinusoidal(t: Array, width: int, max_period: float = 10_000.0, sines_first: bool = False) -> Array:
    """cos and sin of ``t`` at width/2 geometric frequencies, cosines first, shape (*t.shape, width), float32.

    Ho et al. 2020 in the order of Stable Diffusion's UNet. The exponents are rounded to float32 as there: at t near
    1000 a frequency that is one bit off turns its angle by 6e-5.

    Args:
        sines_first: Ho et al.'s own order, and frequencies that end at 1/max_period rather than one step before it.
    """
    half = width // 2
    intervals = half - 1 if sines_first else half
    exponent = np.float32(-np.log(max_period)) * np.arange(half, dtype=np.float32) / np.float32(intervals)
    frequency = jnp.asarray(np.exp(exponent.astype(np.float64)), jnp.float32)
    angle = t.astype(jnp.float32)[..., None] * frequency
    parts = (jnp.sin(angle), jnp.cos(angle)) if sines_first else (jnp.cos(angle), jnp.sin(angle))
    return jnp.concatenate(parts, axis=-1)


class TimeEmbedding(nn.Module):
    """Dense, SiLU, Dense on a sinusoidal embedding of width ``width``; output width ``features``."""

    width: int
    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, t: Array) -> Array:
        x = sinusoidal(t, self.width).astype(self.dtype)
        x = jax.nn.silu(nn.Dense(self.features, dtype=self.dtype, name="linear_1")(x))
        return nn.Dense(self.features, dtype=self.dtype, name="linear_2")(x)


class ActionEmbedding(nn.Module):
    """Dense, SiLU, Dense on per-frame actions; a learned null vector stands where an action is unknown or dropped.

    The last layer starts at zero, so that a converted network begins as it was without actions.
    """

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, action_BTA: Array, valid_BT: Array) -> Array:
        """Returns (B, T, features)."""
        null_D = self.param("null", nn.initializers.normal(0.02), (self.features,))
        x = nn.Dense(self.features, dtype=self.dtype, name="linear_1")(action_BTA.astype(self.dtype))
        x = jnp.where(valid_BT[..., None], x, null_D.astype(self.dtype))
        zeros = nn.initializers.zeros_init()
        return nn.Dense(self.features, dtype=self.dtype, kernel_init=zeros, name="linear_2")(jax.nn.silu(x))


class ActionFeatures(nn.Module):
    """Dense, SiLU, Dense on per-frame actions, to stand beside a time embedding (AVID's adapter in latent space).

    A learned vector, zero at first, stands in the place of the result where an action is unknown or dropped.
    """

    hidden: int
    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, action_BTA: Array, valid_BT: Array) -> Array:
        """Returns (B, T, features)."""
        null_D = self.param("null", nn.initializers.zeros_init(), (self.features,))
        x = nn.Dense(self.hidden, dtype=self.dtype, name="linear_1")(action_BTA.astype(self.dtype))
        x = nn.Dense(self.features, dtype=self.dtype, name="linear_2")(jax.nn.silu(x))
        return jnp.where(valid_BT[..., None], x, null_D.astype(self.dtype))
