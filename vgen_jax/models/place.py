"""The place encoder: a frame to a unit vector that tells where it was taken, and in which direction.

A small convolutional network: patches of 4×4 pixels folded into channels (cheap on a CPU), levels of resnets with
strided convolutions between them, an average over a 4×4 grid, whatever the frame's size, and one linear map. The grid
keeps the layout of the view, which tells directions apart.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from vgen_jax.nn.dtypes import dtype_of
from vgen_jax.nn.resnet import Downsample, ResnetBlock, conv3x3, group_norm
from vgen_jax.types import Array, VgenError

PATCH, GRID = 4, 4
NORM_EPS = 1e-6


class PlaceEncoder(nn.Module):
    """See the module's docstring.

    Attributes:
        level_channels: channels per level, finest first.
        blocks_per_level: resnets per level.
        width: of the vector.
        norm_groups: groups of every GroupNorm.
        dtype: compute dtype; parameters are float32.
    """

    level_channels: tuple[int, ...] = (64, 128)
    blocks_per_level: int = 1
    width: int = 128
    norm_groups: int = 8
    dtype: jnp.dtype = jnp.float32

    @property
    def factor(self) -> int:
        """Height and width of a frame are multiples of it."""
        return PATCH * 2 ** (len(self.level_channels) - 1)

    @nn.compact
    def __call__(self, x_FHWC: Array) -> tuple[Array, tuple[Array, ...]]:
        """(unit vectors (F, width), activations (F, h, w, c) of each level), float32, of float frames in [-1, 1].

        Raises:
            VgenError: if height or width is not a multiple of ``factor``.
        """
        if x_FHWC.shape[1] % self.factor or x_FHWC.shape[2] % self.factor:
            raise VgenError(f"frames of {x_FHWC.shape[1:3]} pixels have no place code: use multiples of {self.factor}")
        x = rearrange(x_FHWC, "f (h p) (w q) c -> f h w (p q c)", p=PATCH, q=PATCH).astype(self.dtype)
        x = conv3x3(self.level_channels[0], self.dtype, "conv_in")(x)
        levels = []
        for level, features in enumerate(self.level_channels):
            if level:
                x = Downsample(dtype=self.dtype, name=f"level_{level}_down")(x)
            for i in range(self.blocks_per_level):
                x = ResnetBlock(features, self.norm_groups, NORM_EPS, self.dtype, name=f"level_{level}_resnet_{i}")(x)
            levels.append(x.astype(jnp.float32))
        x = jax.nn.silu(group_norm(self.norm_groups, NORM_EPS, self.dtype, "norm_out")(x))
        rows, columns = (jnp.asarray(grid_average(size, GRID), self.dtype) for size in x.shape[1:3])
        x = jnp.einsum("gh,kw,fhwc->fgkc", rows, columns, x)
        x_FD = nn.Dense(self.width, dtype=self.dtype, name="out")(x.reshape(len(x), -1)).astype(jnp.float32)
        return x_FD / jnp.linalg.norm(x_FD, axis=-1, keepdims=True), tuple(levels)


def grid_average(size: int, cells: int) -> np.ndarray:
    """(cells, size): row g averages the g-th of ``cells`` equal parts of ``size`` pixels; a pixel may be split."""
    edges = np.linspace(0, size, cells + 1)
    pixel = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.maximum(overlap, 0.0) * cells / size


@dataclasses.dataclass(frozen=True)
class PlaceConfig:
    """The encoder's shape, see ``models.place.PlaceEncoder``."""

    level_channels: tuple[int, ...]
    blocks_per_level: int
    width: int
    norm_groups: int
    dtype: str


def place_network(config: PlaceConfig) -> PlaceEncoder:
    """The network."""
    return PlaceEncoder(**{**dataclasses.asdict(config), "dtype": dtype_of(config.dtype)})
