"""Two models' predictions added up: the baselines of AVID §4.1 that need the base's outputs alone.

    product of experts (Yang et al. 2024):  λ adapted(a) + (1 - λ) base
    action classifier-free guidance:        base + λ (adapted(a) - adapted(∅))

AVID states them for eps. At one x_t every kind of prediction is an affine function of eps, so that sums whose weights
add up to one, and differences, are the same in each. Where the two predict different kinds, the second is brought to
the base's.
"""

import dataclasses

import jax.numpy as jnp

from vgen_jax.compose.avid import unconditioned
from vgen_jax.diffusion import prediction
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.types import Array, Condition, Prediction, PredictionKind, Predictor, VgenError

Scalar = float | Array  # a number, or a traced one: then one compiled program serves all weights


def without_actions(condition: Condition) -> Condition:
    """The condition with the null action in every frame, for a network that takes actions.

    Raises:
        VgenError: if it has no actions.
    """
    if condition.action_BTA is None:
        raise VgenError("guidance by actions needs a condition with actions: load them (data.action)")
    return dataclasses.replace(condition, action_valid_BT=jnp.zeros(condition.action_BTA.shape[:2], bool))


def _spoken_as(kind: PredictionKind, predictor: Predictor, schedule: Schedule) -> Predictor:
    """The Predictor, its outputs said as ``kind``."""

    def predict(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
        predicted = predictor(x_t_BTHWC, t_B, condition)
        if predicted.kind == kind:
            return predicted
        alpha, sigma = schedule.alpha_sigma(t_B)
        return prediction.convert(predicted, kind, x_t_BTHWC, alpha, sigma)

    return predict


def product_of_experts(base: Predictor, adapted: Predictor, weight: Scalar, schedule: Schedule) -> Predictor:
    """λ adapted + (1 - λ) base.

    Args:
        base: takes no actions.
        adapted: a small action-conditioned model.
        weight: λ; 0 gives the base, 1 the adapted model.
    """

    def predict(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
        prior = base(x_t_BTHWC, t_B, unconditioned(condition))
        small = _spoken_as(prior.kind, adapted, schedule)(x_t_BTHWC, t_B, condition)
        return Prediction(weight * small.value + (1.0 - weight) * prior.value, prior.kind)

    return predict


def action_guidance(base: Predictor, adapted: Predictor, weight: Scalar, schedule: Schedule) -> Predictor:
    """base + λ (adapted with the actions - adapted without them).

    Args:
        base: takes no actions.
        adapted: a small model trained with its actions dropped now and then.
        weight: λ; 0 gives the base.
    """

    def predict(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
        prior = base(x_t_BTHWC, t_B, unconditioned(condition))
        small = _spoken_as(prior.kind, adapted, schedule)
        true, null = (small(x_t_BTHWC, t_B, c).value for c in (condition, without_actions(condition)))
        return Prediction(prior.value + weight * (true - null), prior.kind)

    return predict
