"""AVID (arXiv:2410.12822, §3.3): a frozen video model and a small adapter, mixed by a mask that the adapter chooses.

    final = base · m + adapter · (1 - m)                (eq. 5)
    final = base + adapter                              (ablation No Mask)

The adapter sees the base's output, or not (ablation No Conditioning). Base and adapter speak of the same thing: the
result is of the base's kind, whatever that is. No gradient flows into the base, whose parameters nobody here need hold.
"""

import dataclasses
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from vgen_jax.types import Array, Condition, Prediction, Predictor


class Mixed(Protocol):
    """An adapter's output and its mask in [0, 1] of shape (B, T, H, W, 1), or ``None`` to be added."""

    @property
    def value_BTHWC(self) -> Array: ...

    @property
    def mask_BTHW1(self) -> Array | None: ...


class Adapter(Protocol):
    """A trainable network; ``base_BTHWC`` is the base's output, ``None`` without conditioning on it."""

    def __call__(self, x_t_BTHWC: Array, base_BTHWC: Array | None, t_B: Array, condition: Condition) -> Mixed: ...


class Parts(NamedTuple):
    """What AVID's prediction is made of."""

    base: Prediction
    adapted: Mixed
    final: Prediction


def unconditioned(condition: Condition) -> Condition:
    """The condition as an action-free base takes it, which reads an empty prompt (AVID §9.2)."""
    return dataclasses.replace(
        condition, action_BTA=None, action_valid_BT=None, motion_BTA=None, motion_text_BTD=None, token_BL=None
    )


def alone(base: Predictor) -> Predictor:
    """The base for conditions that say more than it takes."""

    def predict(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
        return base(x_t_BTHWC, t_B, unconditioned(condition))

    return predict


def parts(
    base: Predictor, adapter: Adapter, conditioned: bool, x_t_BTHWC: Array, t_B: Array, condition: Condition
) -> Parts:
    """Base, adapter and their mixture; see ``avid``."""
    predicted = jax.lax.stop_gradient(base(x_t_BTHWC, t_B, unconditioned(condition)))
    adapted = adapter(x_t_BTHWC, predicted.value if conditioned else None, t_B, condition)
    mask = adapted.mask_BTHW1
    if mask is None:
        value = predicted.value + adapted.value_BTHWC
    else:
        value = predicted.value * mask + adapted.value_BTHWC * (1.0 - mask)
    return Parts(predicted, adapted, Prediction(value, predicted.kind))


def avid(base: Predictor, adapter: Adapter, conditioned: bool = True) -> Predictor:
    """AVID's Predictor.

    Args:
        base: takes no actions; any Predictor, a black box included.
        adapter: says what to mix with it.
        conditioned: whether the adapter sees the base's output.
    """

    def predict(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
        return parts(base, adapter, conditioned, x_t_BTHWC, t_B, condition).final

    return predict


class _Fixed(NamedTuple):
    value_BTHWC: Array
    mask_BTHW1: Array | None


def with_mask(adapter: Adapter, mask: float) -> Adapter:
    """The adapter with ``mask`` everywhere in the place of its own: 1 leaves the base alone, 0 the adapter."""

    def adapt(x_t_BTHWC: Array, base_BTHWC: Array | None, t_B: Array, condition: Condition) -> Mixed:
        value = adapter(x_t_BTHWC, base_BTHWC, t_B, condition).value_BTHWC
        return _Fixed(value, jnp.full((*value.shape[:-1], 1), mask, value.dtype))

    return adapt
