"""The predictor's losses against NumPy; what is not known does not count."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vgen_jax.objectives.action import ActionTarget, action
from vgen_jax.types import Array, VgenError, VideoBatch

B, T, A = 2, 4, 3
RNG = np.random.default_rng(0)
FOUND = RNG.normal(size=(B, T - 1, A)).astype(np.float32)
VALID = np.array([[False, True, True, True], [False, True, False, True]])


def batch(action_BTA: np.ndarray) -> VideoBatch:
    frames = np.zeros((B, T, 8, 8, 3), np.uint8)
    return VideoBatch(frames, np.arange(T)[None] < 1, None, action_BTA.astype(np.float32), VALID)


def value(target: ActionTarget, action_BTA: np.ndarray, rng: Array) -> tuple[float, dict[str, float]]:
    objective = action(Partial(lambda params, frames: params), target)
    loss, aux = objective(jnp.asarray(FOUND), batch(action_BTA), rng)
    return float(loss), {name: float(x) for name, x in aux.items()}


def test_ids_have_a_cross_entropy(rng: Array) -> None:
    ids = RNG.integers(0, A, (B, T))
    loss, aux = value(ActionTarget("discrete", (), ()), np.eye(A)[ids], rng)
    chance = np.exp(FOUND) / np.exp(FOUND).sum(-1, keepdims=True)
    own = np.take_along_axis(chance, ids[:, 1:, None], -1)[..., 0]
    known = VALID[:, 1:]
    assert loss == pytest.approx(-np.log(own)[known].mean(), rel=1e-5)
    assert aux["accuracy"] == pytest.approx((FOUND.argmax(-1) == ids[:, 1:])[known].mean())


def test_values_are_normalised(rng: Array) -> None:
    raw = RNG.normal(size=(B, T, A)) * 5 + 2
    loss, aux = value(ActionTarget("continuous", (2.0,) * A, (5.0,) * A), raw, rng)
    error = (FOUND - (raw[:, 1:] - 2) / 5)[VALID[:, 1:]]
    assert loss == pytest.approx((error**2).mean(), rel=1e-5)
    assert aux["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)


def test_a_deviation_of_zero_is_refused() -> None:
    with pytest.raises(VgenError, match="above 0"):
        ActionTarget("continuous", (0.0,), (0.0,))
