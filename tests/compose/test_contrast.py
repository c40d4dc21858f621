"""A memory as guidance."""

import jax.numpy as jnp
import numpy as np

from vgen_jax.compose.contrast import contrastive
from vgen_jax.types import Array, Condition, Prediction

X, T = jnp.ones((2, 3, 2, 2, 1)), jnp.zeros(2, jnp.int32)


def base(x_t: Array, t: Array, condition: Condition) -> Prediction:
    return Prediction(2.0 * x_t, "x0")


def memory(x_t: Array, t: Array, condition: Condition) -> Prediction:
    return Prediction(2.0 * x_t + 1.0, "x0")


def test_zero_forgets_one_is_the_memory_and_beyond_it_exaggerates() -> None:
    at = {scale: contrastive(base, memory, scale)(X, T, Condition()) for scale in (0.0, 1.0, 3.0)}
    np.testing.assert_array_equal(at[0.0].value, base(X, T, Condition()).value)
    np.testing.assert_array_equal(at[3.0].value, 2.0 * X + 3.0)
    assert at[3.0].kind == "x0"


def test_scale_one_costs_nothing() -> None:
    assert contrastive(base, memory, 1.0) is memory
