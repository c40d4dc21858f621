"""Inception-v3 (Szegedy et al. 2015) in the variant that FID is defined with: the TensorFlow graph of 2015-12-05.

It differs from the published network, and from torchvision's, in its pools: averages do not count padding, and the last
block pools by maximum. The feature is the 2048-d average after that block. Names are those of pytorch-fid's checkpoint.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from vgen_jax.metrics.feature_nets.layers import ConvNorm, resize
from vgen_jax.types import Array

SIDE, WIDTH = 299, 2048
EPSILON = 1e-3


class Unit(NamedTuple):
    """One convolution. ``padding`` is symmetric, per axis."""

    name: str
    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] = (0, 0)


class Branch(NamedTuple):
    """Units in a row; then those of ``fork`` side by side. ``pool`` comes first: average, max or reduce (stride 2)."""

    units: tuple[Unit, ...] = ()
    pool: str = ""
    fork: tuple[Unit, ...] = ()


Block = tuple[Branch, ...]


def _row(name: str, features: int, padding: int = 1) -> Unit:
    return Unit(name, features, (1, 1 + 2 * padding), padding=(0, padding))


def _column(name: str, features: int, padding: int = 1) -> Unit:
    return Unit(name, features, (1 + 2 * padding, 1), padding=(padding, 0))


def _square(name: str, features: int, padding: int = 1) -> Unit:
    return Unit(name, features, (1 + 2 * padding,) * 2, padding=(padding,) * 2)


def _halving(name: str, features: int) -> Unit:
    return Unit(name, features, (3, 3), stride=2)


def _block_a(pooled: int) -> Block:
    double = (Unit("branch3x3dbl_1", 64), _square("branch3x3dbl_2", 96), _square("branch3x3dbl_3", 96))
    return (
        Branch((Unit("branch1x1", 64),)),
        Branch((Unit("branch5x5_1", 48), _square("branch5x5_2", 64, 2))),
        Branch(double),
        Branch((Unit("branch_pool", pooled),), "average"),
    )


def _block_c(n: int) -> Block:
    long = [_column("branch7x7dbl_2", n, 3), _row("branch7x7dbl_3", n, 3), _column("branch7x7dbl_4", n, 3)]
    return (
        Branch((Unit("branch1x1", 192),)),
        Branch((Unit("branch7x7_1", n), _row("branch7x7_2", n, 3), _column("branch7x7_3", 192, 3))),
        Branch((Unit("branch7x7dbl_1", n), *long, _row("branch7x7dbl_5", 192, 3))),
        Branch((Unit("branch_pool", 192),), "average"),
    )


def _block_e(pool: str) -> Block:
    double = (Unit("branch3x3dbl_1", 448), _square("branch3x3dbl_2", 384))
    return (
        Branch((Unit("branch1x1", 320),)),
        Branch((Unit("branch3x3_1", 384),), fork=(_row("branch3x3_2a", 384), _column("branch3x3_2b", 384))),
        Branch(double, fork=(_row("branch3x3dbl_3a", 384), _column("branch3x3dbl_3b", 384))),
        Branch((Unit("branch_pool", 192),), pool),
    )


_BLOCK_B = (
    Branch((_halving("branch3x3", 384),)),
    Branch((Unit("branch3x3dbl_1", 64), _square("branch3x3dbl_2", 96), _halving("branch3x3dbl_3", 96))),
    Branch(pool="reduce"),
)
_SEVEN = (Unit("branch7x7x3_1", 192), _row("branch7x7x3_2", 192, 3), _column("branch7x7x3_3", 192, 3))
_BLOCK_D = (
    Branch((Unit("branch3x3_1", 192), _halving("branch3x3_2", 320))),
    Branch((*_SEVEN, _halving("branch7x7x3_4", 192))),
    Branch(pool="reduce"),
)
# A unit, or None for a max pool of stride 2.
STEM: tuple[Unit | None, ...] = (
    _halving("Conv2d_1a_3x3", 32), Unit("Conv2d_2a_3x3", 32, (3, 3)), _square("Conv2d_2b_3x3", 64), None,
    Unit("Conv2d_3b_1x1", 80), Unit("Conv2d_4a_3x3", 192, (3, 3)), None,
)  # fmt: skip
BLOCKS: dict[str, Block] = {
    "Mixed_5b": _block_a(32), "Mixed_5c": _block_a(64), "Mixed_5d": _block_a(64), "Mixed_6a": _BLOCK_B,
    "Mixed_6b": _block_c(128), "Mixed_6c": _block_c(160), "Mixed_6d": _block_c(160), "Mixed_6e": _block_c(192),
    "Mixed_7a": _BLOCK_D, "Mixed_7b": _block_e("average"), "Mixed_7c": _block_e("max"),
}  # fmt: skip


def _conv(unit: Unit) -> ConvNorm:
    padding = tuple((p, p) for p in unit.padding)
    return ConvNorm(unit.features, unit.kernel, (unit.stride,) * 2, padding, EPSILON, name=unit.name)


class _Mixed(nn.Module):
    """A block: its branches side by side."""

    branches: Block

    @nn.compact
    def __call__(self, x: Array) -> Array:
        outputs = []
        for branch in self.branches:
            y = _pool(x, branch.pool) if branch.pool else x
            for unit in branch.units:
                y = _conv(unit)(y)
            outputs += [_conv(unit)(y) for unit in branch.fork] or [y]
        return jnp.concatenate(outputs, axis=-1)


def _pool(x: Array, kind: str) -> Array:
    if kind == "reduce":
        return nn.max_pool(x, (3, 3), (2, 2))
    around = ((1, 1), (1, 1))
    if kind == "max":
        return nn.max_pool(x, (3, 3), padding=around)
    return nn.avg_pool(x, (3, 3), padding=around, count_include_pad=False)


class InceptionV3(nn.Module):
    """float32 (B, H, W, 3) in [-1, 1] -> (B, 2048). Any size from 75 pixels; FID's protocol has 299."""

    @nn.compact
    def __call__(self, x_BHWC: Array) -> Array:
        x = x_BHWC
        for unit in STEM:
            x = nn.max_pool(x, (3, 3), (2, 2)) if unit is None else _conv(unit)(x)
        for name, branches in BLOCKS.items():
            x = _Mixed(branches, name=name)(x)
        return jnp.mean(x, axis=(1, 2))


def preprocess(frames_BHWC: Array) -> Array:
    """uint8 frames of any size -> [-1, 1] at 299x299 as pytorch-fid does it: bytes / 255, bilinear, 2x - 1."""
    return 2.0 * resize(jnp.asarray(frames_BHWC, jnp.float32) / 255.0, SIDE, SIDE) - 1.0


def unit_names() -> Iterator[str]:
    """Every convolution by its path in the original, dots between the parts."""
    yield from (unit.name for unit in STEM if unit is not None)
    for block, branches in BLOCKS.items():
        yield from (f"{block}.{unit.name}" for branch in branches for unit in (*branch.units, *branch.fork))
