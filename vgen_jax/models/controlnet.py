"""ControlNet for the pixel UNet (Zhang et al. 2023; AVID §4.1): a trainable copy of the way down, steered by actions.

    control = out_i(level_i's features), one for each skip and two for the middle, where out_i starts at zero

The copy gets its actions through a linear layer that starts at zero as well. The base runs without actions and adds the
control to its skips and its middle, so that at the start it does what it did. ``project_to`` makes ControlNet-Small: a
narrower way down whose features are projected to the base's widths. The original initialises those projections as any
layer, yet what they project is zero: what it adds is the projections' bias. Here that bias starts at zero too, and so
does its control.
"""

import flax.linen as nn
import jax.numpy as jnp

from vgen_jax.models.unet_pixel import ActionKind, DownPath, check_size, folded
from vgen_jax.types import Array


class ControlNet(nn.Module):
    """See the module's docstring; its path's fields are those of ``PixelUNet``.

    Attributes:
        project_to: the base's ``dim`` where this network has another one; 0 for the same.
    """

    dim: int
    mults: tuple[int, ...]
    heads: int
    head_dim: int
    actions: ActionKind
    patch: int = 1
    project_to: int = 0
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: Array, t_B: Array, action_BTA: Array, valid_BT: Array | None) -> tuple[Array, ...]:
        """Controls for ``PixelUNet``, frames folded, coarsest last and the middle's two after it.

        Args:
            x_BTHWC: what the base sees.
            action_BTA: the action that led to each frame.
        """
        height, width = x_BTHWC.shape[2:4]
        check_size(height, width, self.patch, len(self.mults))
        path = DownPath(
            self.dim, self.mults, self.heads, self.head_dim, self.actions, gated_actions=True, remat=self.remat,
            dtype=self.dtype, name="path",
        )  # fmt: skip
        encoded = path(folded(x_BTHWC, self.patch), t_B, action_BTA, valid_BT)
        mults = (*self.mults, self.mults[-1], self.mults[-1])
        features = (*encoded.skips, encoded.middle, encoded.out)
        zeros = nn.initializers.zeros_init()
        controls = []
        for i, (feature, mult) in enumerate(zip(features, mults, strict=True)):
            x = nn.Dense(feature.shape[-1], kernel_init=zeros, dtype=self.dtype, name=f"zero_{i}")(feature)
            if self.project_to:
                x = nn.Dense(self.project_to * mult, dtype=self.dtype, name=f"project_{i}")(x)
            controls.append(x)
        return tuple(controls)
