"""What AVID puts around the network of its adapter (AVID §3.3, eq. 5): the mask, or the zero layer without one.

With a mask the network has a channel more than the base; that channel passes a 1×1 layer that starts at zero and a
sigmoid, so that the mask begins at 1/2. Without one (ablation No Mask) the network's output passes a 1×1 layer that
starts at zero, so that the sum with the base's output begins as the base's.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vgen_jax.types import Array


class Adapted(NamedTuple):
    """An adapter's output, of the base's shape, and its mask in [0, 1], one channel; ``None`` to add the output."""

    value_BTHWC: Array
    mask_BTHW1: Array | None


class AdapterHead(nn.Module):
    """Splits a network's output into what AVID mixes.

    Attributes:
        mask: whether the last channel is the mask's.
    """

    mask: bool

    @nn.compact
    def __call__(self, out_BTHWC: Array) -> Adapted:
        zeros = nn.initializers.zeros_init()
        if not self.mask:
            return Adapted(nn.Dense(out_BTHWC.shape[-1], kernel_init=zeros, name="mixture")(out_BTHWC), None)
        logit = nn.Dense(1, kernel_init=zeros, name="mixture")(out_BTHWC[..., -1:])
        return Adapted(out_BTHWC[..., :-1], jax.nn.sigmoid(logit.astype(jnp.float32)))
