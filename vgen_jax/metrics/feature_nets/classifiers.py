"""Image classifiers without their heads: VGG-16 and AlexNet for LPIPS, ResNet-18 for scene similarity.

VGG-16 (Simonyan and Zisserman 2015), AlexNet in the one-tower form of Krizhevsky 2014, ResNet-18 (He et al. 2016).
Convolutions are called by their index in torchvision's checkpoints.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from vgen_jax.metrics.feature_nets.layers import ConvNorm, convolution
from vgen_jax.types import Array

SIDE, RESNET_WIDTH = 224, 512
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESNET_EPSILON = 1e-5


class ConvLayer(NamedTuple):
    """A convolution with ReLU; ``number`` is its place in the original, ``padding`` symmetric."""

    number: int
    features: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


class Stage(NamedTuple):
    """A max pool of stride 2 with this window (0 for none), then layers; what comes out is one of the features."""

    pool: int
    layers: tuple[ConvLayer, ...]


VGG16: tuple[Stage, ...] = (
    Stage(0, (ConvLayer(0, 64), ConvLayer(2, 64))),
    Stage(2, (ConvLayer(5, 128), ConvLayer(7, 128))),
    Stage(2, (ConvLayer(10, 256), ConvLayer(12, 256), ConvLayer(14, 256))),
    Stage(2, (ConvLayer(17, 512), ConvLayer(19, 512), ConvLayer(21, 512))),
    Stage(2, (ConvLayer(24, 512), ConvLayer(26, 512), ConvLayer(28, 512))),
)
ALEXNET: tuple[Stage, ...] = (
    Stage(0, (ConvLayer(0, 64, 11, 4, 2),)),
    Stage(3, (ConvLayer(3, 192, 5, 1, 2),)),
    Stage(3, (ConvLayer(6, 384),)),
    Stage(0, (ConvLayer(8, 256),)),
    Stage(0, (ConvLayer(10, 256),)),
)


class Stages(nn.Module):
    """float32 (B, H, W, 3), normalised -> the output of every stage, finest first."""

    stages: tuple[Stage, ...]

    @nn.compact
    def __call__(self, x_BHWC: Array) -> list[Array]:
        x, found = x_BHWC, []
        for stage in self.stages:
            if stage.pool:
                x = nn.max_pool(x, (stage.pool,) * 2, (2, 2))
            for n in stage.layers:
                padding = ((n.padding,) * 2,) * 2
                x = nn.relu(convolution(n.features, (n.kernel,) * 2, (n.stride,) * 2, padding, f"conv_{n.number}")(x))
            found.append(x)
        return found


class _Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where the shape changes."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        around, strides = ((1, 1), (1, 1)), (self.stride,) * 2
        y = ConvNorm(self.features, (3, 3), strides, around, RESNET_EPSILON, name="unit_1")(x)
        y = ConvNorm(self.features, (3, 3), (1, 1), around, RESNET_EPSILON, activation=False, name="unit_2")(y)
        if self.stride > 1:
            x = ConvNorm(
                self.features, (1, 1), strides, "VALID", RESNET_EPSILON, activation=False, name="downsample"
            )(x)  # fmt: skip
        return nn.relu(x + y)


class ResNet18(nn.Module):
    """float32 (B, H, W, 3), normalised -> the 512-d average of the last feature map."""

    @nn.compact
    def __call__(self, x_BHWC: Array) -> Array:
        x = ConvNorm(64, (7, 7), (2, 2), ((3, 3), (3, 3)), RESNET_EPSILON, name="stem")(x_BHWC)
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for level, features in enumerate((64, 128, 256, 512)):
            for i in range(2):
                stride = 2 if level and not i else 1
                x = _Residual(features, stride, name=f"layer_{level + 1}_{i}")(x)
        return jnp.mean(x, axis=(1, 2))


def preprocess(frames_BHWC: Array) -> Array:
    """uint8 frames of any size -> 224x224, bilinear with antialiasing, ImageNet's mean and deviation removed."""
    x = jnp.asarray(frames_BHWC, jnp.float32) / 255.0
    x = jax.image.resize(x, (*x.shape[:-3], SIDE, SIDE, 3), "linear", antialias=True)
    return (x - jnp.asarray(IMAGENET_MEAN)) / jnp.asarray(IMAGENET_STD)
