"""Classifier guidance (Dhariwal and Nichol 2021) as a function from Predictor to Predictor.

    eps = eps_base - sqrt(1 - ᾱ_t) w ∇_x_t log f(a | x_t)           (AVID §4.1)

The prediction is shifted, not a sampler's mean, so that every sampler follows it. A sampler that clips x̂_0 clips what
guidance made of it.
"""

from typing import Protocol

import jax

from vgen_jax.compose.avid import unconditioned
from vgen_jax.diffusion import prediction
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.types import Array, Condition, Prediction, Predictor


class LogProbability(Protocol):
    """log f(condition | x_t), (B,): a classifier of noisy frames, summed over what the condition says."""

    def __call__(self, x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Array: ...


def classifier_guided(
    base: Predictor, log_probability: LogProbability, weight: float | Array, schedule: Schedule
) -> Predictor:
    """Steers ``base`` towards what a classifier of noisy frames takes for the condition.

    Args:
        base: takes no actions.
        weight: w; 0 changes nothing.
    """

    def predict(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
        predicted = base(x_t_BTHWC, t_B, unconditioned(condition))
        gradient = jax.grad(lambda x: log_probability(x, t_B, condition).sum())(x_t_BTHWC)
        alpha, sigma = schedule.alpha_sigma(t_B)
        return prediction.shifted(predicted, -sigma * weight * gradient, alpha, sigma)

    return predict
