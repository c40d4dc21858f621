"""What a diffusion network predicts, and how each kind turns into the others.

With x_t = alpha x_0 + sigma eps and v = alpha eps - sigma x_0 (Salimans and Ho 2022), alpha² + sigma² = 1:

    kind      x_0                                 eps
    eps       (x_t - sigma eps) / alpha           eps
    x0        x_0                                 (x_t - alpha x_0) / sigma
    v         alpha x_t - sigma v                 sigma x_t + alpha v
    velocity  (x_t - sigma u) / (alpha + sigma)   (x_t + alpha u) / (alpha + sigma)

The velocity of flow matching is u = eps - x_0 = dx_s / ds, from the data (s = 0) to the noise (s = 1), on any schedule.

This is the only place in the library that looks at the kind. An ``eps`` prediction cannot be turned into x_0 where
alpha = 0, and an ``x0`` one cannot be turned into eps where sigma = 0: callers refuse those pairs up front.
"""

import jax.numpy as jnp

from vgen_jax.types import Array, Prediction, PredictionKind, VgenError

KINDS: tuple[PredictionKind, ...] = ("eps", "x0", "v", "velocity")

_TO_X0 = {
    "eps": lambda value, x_t, alpha, sigma: (x_t - sigma * value) / alpha,
    "x0": lambda value, x_t, alpha, sigma: value,
    "v": lambda value, x_t, alpha, sigma: alpha * x_t - sigma * value,
    "velocity": lambda value, x_t, alpha, sigma: (x_t - sigma * value) / (alpha + sigma),
}
_TO_EPS = {
    "eps": lambda value, x_t, alpha, sigma: value,
    "x0": lambda value, x_t, alpha, sigma: (x_t - alpha * value) / sigma,
    "v": lambda value, x_t, alpha, sigma: sigma * x_t + alpha * value,
    "velocity": lambda value, x_t, alpha, sigma: (x_t + alpha * value) / (alpha + sigma),
}

# What a change of eps by 1, at the same x_t, changes of a prediction; and the square of its inverse, by which a squared
# error has to be multiplied to be one of eps.
_PER_EPS = {
    "eps": lambda alpha, sigma: jnp.ones_like(alpha),
    "x0": lambda alpha, sigma: -sigma / alpha,
    "v": lambda alpha, sigma: 1.0 / alpha,
    "velocity": lambda alpha, sigma: (alpha + sigma) / alpha,
}
_EPS_WEIGHT = {
    "eps": lambda alpha, sigma: jnp.ones_like(alpha),
    "x0": lambda alpha, sigma: (alpha / sigma) ** 2,
    "v": lambda alpha, sigma: alpha**2,
    "velocity": lambda alpha, sigma: (alpha / (alpha + sigma)) ** 2,
}
# By what a squared error, at the same x_t, is multiplied to be that of the velocity. ``least`` bounds the flow time
# s = sigma / (alpha + sigma), or 1 - s, from below where the weight has a pole.
_VELOCITY_WEIGHT = {
    "eps": lambda alpha, sigma, least: jnp.maximum(alpha / (alpha + sigma), least) ** -2,
    "x0": lambda alpha, sigma, least: jnp.maximum(sigma / (alpha + sigma), least) ** -2,
    "v": lambda alpha, sigma, least: (alpha + sigma) ** 2,
    "velocity": lambda alpha, sigma, least: jnp.ones_like(alpha),
}


def check_kind(kind: str) -> None:
    """Raises VgenError for a kind that is not in ``KINDS``."""
    if kind not in KINDS:
        raise VgenError(f"prediction kind '{kind}' is unknown: use one of {', '.join(KINDS)}")


def to_x0(prediction: Prediction, x_t: Array, alpha: Array, sigma: Array) -> Array:
    """x_0 in float32, the shape of ``x_t``."""
    return _TO_X0[prediction.kind](prediction.value.astype(jnp.float32), x_t, alpha, sigma)


def to_eps(prediction: Prediction, x_t: Array, alpha: Array, sigma: Array) -> Array:
    """eps in float32, the shape of ``x_t``."""
    return _TO_EPS[prediction.kind](prediction.value.astype(jnp.float32), x_t, alpha, sigma)


def to_v(prediction: Prediction, x_t: Array, alpha: Array, sigma: Array) -> Array:
    """v in float32, the shape of ``x_t``."""
    if prediction.kind == "v":
        return prediction.value.astype(jnp.float32)
    x0, eps = to_x0(prediction, x_t, alpha, sigma), to_eps(prediction, x_t, alpha, sigma)
    return alpha * eps - sigma * x0


def to_velocity(prediction: Prediction, x_t: Array, alpha: Array, sigma: Array) -> Array:
    """u = eps - x_0 in float32, the shape of ``x_t``."""
    if prediction.kind == "velocity":
        return prediction.value.astype(jnp.float32)
    return to_eps(prediction, x_t, alpha, sigma) - to_x0(prediction, x_t, alpha, sigma)


_TO = {"eps": to_eps, "x0": to_x0, "v": to_v, "velocity": to_velocity}
_TARGET = {
    "eps": lambda x0, eps, alpha, sigma: eps,
    "x0": lambda x0, eps, alpha, sigma: x0,
    "v": lambda x0, eps, alpha, sigma: alpha * eps - sigma * x0,
    "velocity": lambda x0, eps, alpha, sigma: eps - x0,
}


def convert(prediction: Prediction, kind: PredictionKind, x_t: Array, alpha: Array, sigma: Array) -> Prediction:
    """The same prediction, said as ``kind``."""
    return Prediction(_TO[kind](prediction, x_t, alpha, sigma), kind)


def target(kind: PredictionKind, x0: Array, eps: Array, alpha: Array, sigma: Array) -> Array:
    """What a network of that kind should output for clean ``x0`` and noise ``eps``."""
    return _TARGET[kind](x0, eps, alpha, sigma)


def shifted(prediction: Prediction, eps_BTHWC: Array, alpha: Array, sigma: Array) -> Prediction:
    """The same prediction with ``eps_BTHWC`` added to its eps; a shift of 0 changes no bit of it.

    At pure noise (alpha = 0) all but an ``eps`` prediction stay as they are: no eps says anything of x_0 there.
    """
    safe = jnp.where(alpha > 0, alpha, 1.0)
    per_eps = jnp.where((alpha > 0) | (prediction.kind == "eps"), _PER_EPS[prediction.kind](safe, sigma), 0.0)
    return Prediction(prediction.value + per_eps * eps_BTHWC, prediction.kind)


def eps_weight(kind: PredictionKind, alpha: Array, sigma: Array) -> Array:
    """By what a squared error of ``kind`` is multiplied to be that of eps: 1, the signal-to-noise ratio, or alpha²."""
    return _EPS_WEIGHT[kind](alpha, sigma)


def velocity_weight(kind: PredictionKind, alpha: Array, sigma: Array, least: float) -> Array:
    """By what a squared error of ``kind`` is multiplied to be that of the velocity, the poles bounded by 1 / least²."""
    return _VELOCITY_WEIGHT[kind](alpha, sigma, least)
