"""What a diffusion network predicts, and how each kind turns into the others.

With x_t = alpha x_0 + sigma eps and v = alpha eps - sigma x_0 (Salimans and Ho 2022), alpha² + sigma² = 1:

    kind   x_0                            eps
    eps    (x_t - sigma eps) / alpha      eps
    x0     x_0                            (x_t - alpha x_0) / sigma
    v      alpha x_t - sigma v            sigma x_t + alpha v

This is the only place in the library that looks at the kind. An ``eps`` prediction cannot be turned into x_0 where
alpha = 0, and an ``x0`` one cannot be turned into eps where sigma = 0: callers refuse those pairs up front.
"""

import jax.numpy as jnp

from vgen_jax.types import Array, Prediction, PredictionKind, VgenError

KINDS: tuple[PredictionKind, ...] = ("eps", "x0", "v")

_TO_X0 = {
    "eps": lambda value, x_t, alpha, sigma: (x_t - sigma * value) / alpha,
    "x0": lambda value, x_t, alpha, sigma: value,
    "v": lambda value, x_t, alpha, sigma: alpha * x_t - sigma * value,
}
_TO_EPS = {
    "eps": lambda value, x_t, alpha, sigma: value,
    "x0": lambda value, x_t, alpha, sigma: (x_t - alpha * value) / sigma,
    "v": lambda value, x_t, alpha, sigma: sigma * x_t + alpha * value,
}

# What a change of eps by 1, at the same x_t, changes of a prediction; and the square of its inverse, by which a squared
# error has to be multiplied to be one of eps.
_PER_EPS = {
    "eps": lambda alpha, sigma: jnp.ones_like(alpha),
    "x0": lambda alpha, sigma: -sigma / alpha,
    "v": lambda alpha, sigma: 1.0 / alpha,
}
_EPS_WEIGHT = {
    "eps": lambda alpha, sigma: jnp.ones_like(alpha),
    "x0": lambda alpha, sigma: (alpha / sigma) ** 2,
    "v": lambda alpha, sigma: alpha**2,
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


_TO = {"eps": to_eps, "x0": to_x0, "v": to_v}


def convert(prediction: Prediction, kind: PredictionKind, x_t: Array, alpha: Array, sigma: Array) -> Prediction:
    """The same prediction, said as ``kind``."""
    return Prediction(_TO[kind](prediction, x_t, alpha, sigma), kind)


def target(kind: PredictionKind, x0: Array, eps: Array, alpha: Array, sigma: Array) -> Array:
    """What a network of that kind should output for clean ``x0`` and noise ``eps``."""
    return {"eps": lambda: eps, "x0": lambda: x0, "v": lambda: alpha * eps - sigma * x0}[kind]()


def shifted(prediction: Prediction, eps_BTHWC: Array, alpha: Array, sigma: Array) -> Prediction:
    """The same prediction with ``eps_BTHWC`` added to its eps; a shift of 0 changes no bit of it.

    At pure noise (alpha = 0) an ``x0`` or ``v`` prediction stays as it is: no eps says anything of x_0 there.
    """
    safe = jnp.where(alpha > 0, alpha, 1.0)
    per_eps = jnp.where((alpha > 0) | (prediction.kind == "eps"), _PER_EPS[prediction.kind](safe, sigma), 0.0)
    return Prediction(prediction.value + per_eps * eps_BTHWC, prediction.kind)


def eps_weight(kind: PredictionKind, alpha: Array, sigma: Array) -> Array:
    """By what a squared error of ``kind`` is multiplied to be that of eps: 1, the signal-to-noise ratio, or alpha²."""
    return _EPS_WEIGHT[kind](alpha, sigma)
