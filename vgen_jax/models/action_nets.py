"""The action predictor (inverse dynamics): which action led from each frame of a clip to the next (AVID, appendix 9.3).

AVID flattens the encoder of its 3D UNet and lets an MLP predict all actions of a clip of fixed length (60 and 85 M
parameters). This one is small enough for two CPU cores and takes clips of any length: the two frames of each step,
stacked on the channels, pass through a convolutional network of patches of 4×4 pixels, whose average over a grid of
4×4 (or more) keeps where something moved; convolutions over time let the steps around it help, since an action often
lasts for several steps and one step may be ambiguous (none of them: the two frames alone); a linear map gives logits or
values.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from vgen_jax.config import later
from vgen_jax.models.place import GRID, NORM_EPS, PATCH, grid_average
from vgen_jax.nn.dtypes import dtype_of
from vgen_jax.nn.resnet import Downsample, ResnetBlock, conv3x3, group_norm
from vgen_jax.types import Array, Params, VgenError


class ActionPredictor(nn.Module):
    """See the module's docstring.

    Attributes:
        outputs: A, ids of a discrete action space or dimensions of a continuous one.
        level_channels: channels per level, finest first.
        blocks_per_level: resnets per level.
        width: of a step's features.
        mixers: convolutions over three steps each.
        norm_groups: groups of every GroupNorm.
        grid: cells on each side, whose averages are kept.
        dtype: compute dtype; parameters are float32.
    """

    outputs: int
    level_channels: tuple[int, ...] = (32, 64)
    blocks_per_level: int = 1
    width: int = 128
    mixers: int = 2
    norm_groups: int = 8
    grid: int = GRID
    dtype: jnp.dtype = jnp.float32

    @property
    def factor(self) -> int:
        """Height and width of a frame are multiples of it."""
        return PATCH * 2 ** (len(self.level_channels) - 1)

    @nn.compact
    def __call__(self, x_BTHWC: Array) -> tuple[Array, Array]:
        """Logits or values (B, T - 1, A) and features (B, T - 1, width), float32; row t is of the step from frame t.

        Args:
            x_BTHWC: float frames in [-1, 1].

        Raises:
            VgenError: fewer than two frames, or height or width not a multiple of ``factor``.
        """
        b, frames, height, width = x_BTHWC.shape[:4]
        if frames < 2 or height % self.factor or width % self.factor:
            raise VgenError(
                f"a clip of {frames} frames of {height}x{width} shows no actions to the predictor: use 2 frames or "
                f"more, of multiples of {self.factor} pixels"
            )
        steps_BTHWC = jnp.concatenate([x_BTHWC[:, :-1], x_BTHWC[:, 1:]], axis=-1)
        x: Any = rearrange(steps_BTHWC, "b t (h p) (w q) c -> (b t) h w (p q c)", p=PATCH, q=PATCH).astype(self.dtype)
        x = conv3x3(self.level_channels[0], self.dtype, "conv_in")(x)
        for level, features in enumerate(self.level_channels):
            if level:
                x = Downsample(dtype=self.dtype, name=f"level_{level}_down")(x)
            for i in range(self.blocks_per_level):
                x = ResnetBlock(features, self.norm_groups, NORM_EPS, self.dtype, name=f"level_{level}_resnet_{i}")(x)
        x = jax.nn.silu(group_norm(self.norm_groups, NORM_EPS, self.dtype, "norm_out")(x))
        rows, columns = (jnp.asarray(grid_average(size, self.grid), self.dtype) for size in x.shape[1:3])
        x = jnp.einsum("gh,kw,fhwc->fgkc", rows, columns, x).reshape(b, frames - 1, -1)
        x = nn.Dense(self.width, dtype=self.dtype, name="code")(x)
        for i in range(self.mixers):
            x = x + nn.Conv(self.width, (3,), dtype=self.dtype, name=f"mixer_{i}")(jax.nn.silu(x))
        features_BTD = jax.nn.silu(x).astype(jnp.float32)
        return nn.Dense(self.outputs, name="out")(features_BTD), features_BTD


def still_maps(network: ActionPredictor, params: Params, x_BHWC: Array) -> list[Array]:
    """What the predictor sees in single frames: the activations (B, h, w, C) of each level, float32, finest first.

    A frame is taken as a step in which nothing moves, so that a network that knows pairs looks at it alone.

    Args:
        x_BHWC: float frames in [-1, 1].
    """
    levels = [f"level_{level}_resnet_{network.blocks_per_level - 1}" for level in range(len(network.level_channels))]
    _, state = network.apply(
        {"params": params}, jnp.stack([x_BHWC, x_BHWC], axis=1),
        capture_intermediates=lambda module, _: module.name in levels, mutable=["intermediates"],
    )  # fmt: skip
    found: Any = state["intermediates"]
    return [found[level]["__call__"][0].astype(jnp.float32) for level in levels]


@dataclasses.dataclass(frozen=True)
class ActionConfig:
    """The predictor's shape, see ``models.action_nets.ActionPredictor``."""

    level_channels: tuple[int, ...]
    blocks_per_level: int
    width: int
    mixers: int
    norm_groups: int
    dtype: str
    grid: int = later(GRID)


def predictor_network(config: ActionConfig, outputs: int) -> ActionPredictor:
    """The network."""
    return ActionPredictor(outputs, **{**dataclasses.asdict(config), "dtype": dtype_of(config.dtype)})
