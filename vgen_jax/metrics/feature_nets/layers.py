"""What the feature networks share: convolution with a frozen norm, pooling, and the resize filter of their protocols.

All compute in float32 at the highest matrix precision, so that a result does not depend on whether the accelerator
would rather multiply in TF32 or bfloat16.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from vgen_jax.types import Array

PRECISION = jax.lax.Precision.HIGHEST
Padding = str | Sequence[tuple[int, int]]


class FrozenNorm(nn.Module):
    """Batch normalisation with the statistics of training: (x - mean) · scale / sqrt(var + epsilon) + bias.

    Mean and variance are parameters like the others: these networks are never trained here.
    """

    epsilon: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.param("mean", nn.initializers.zeros, shape)
        var = self.param("var", nn.initializers.ones, shape)
        return (x - mean) * (scale / jnp.sqrt(var + self.epsilon)) + bias


class ConvNorm(nn.Module):
    """Convolution without bias, frozen norm and, unless ``activation`` is False, ReLU; 2D or 3D by its kernel."""

    features: int
    kernel: Sequence[int]
    strides: Sequence[int]
    padding: Padding
    epsilon: float
    activation: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = convolution(self.features, self.kernel, self.strides, self.padding, "conv", use_bias=False)(x)
        x = FrozenNorm(self.epsilon, name="norm")(x)
        return nn.relu(x) if self.activation else x


def convolution(
    features: int, kernel: Sequence[int], strides: Sequence[int], padding: Padding, name: str, *, use_bias: bool = True
) -> nn.Conv:
    """A convolution at the networks' precision."""
    return nn.Conv(features, kernel, strides, padding, use_bias=use_bias, precision=PRECISION, name=name)


def resize(x_BHWC: Array, height: int, width: int) -> Array:
    """Bilinear, half-pixel centres, no antialiasing: ``F.interpolate(mode="bilinear", align_corners=False)``."""
    shape = (*x_BHWC.shape[:-3], height, width, x_BHWC.shape[-1])
    return jax.image.resize(x_BHWC, shape, "linear", antialias=False, precision=PRECISION)
