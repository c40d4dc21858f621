"""Classifier-free guidance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgen_jax.compose.guidance import classifier_free
from vgen_jax.types import Array, Condition, Prediction

SHAPE = (2, 3, 2, 2, 1)


def predictor(x_t: Array, t: Array, condition: Condition) -> Prediction:
    """Depends on every argument, row by row."""
    steps = t.reshape(t.shape + (1,) * (5 - t.ndim))
    return Prediction(x_t * condition.text_BLD.sum((1, 2)).reshape(-1, 1, 1, 1, 1) + steps, "v")


def conditions() -> tuple[Condition, Condition]:
    return Condition(jnp.asarray([[[1.0]], [[2.0]]])), Condition(jnp.asarray([[[5.0]], [[7.0]]]))


@pytest.mark.parametrize("t", [jnp.asarray([3, 4]), jnp.asarray([[0, 3, 3], [0, 4, 4]])])
def test_zero_is_the_null_one_is_the_predictor_and_between_it_is_affine(t: Array, rng: Array) -> None:
    x = jax.random.normal(rng, SHAPE)
    condition, null = conditions()
    at = {scale: classifier_free(predictor, null, scale)(x, t, condition) for scale in (0.0, 1.0, 2.0, 9.0)}
    np.testing.assert_array_equal(at[0.0].value, predictor(x, t, null).value)
    np.testing.assert_array_equal(at[1.0].value, predictor(x, t, condition).value)
    step = at[1.0].value - at[0.0].value
    np.testing.assert_allclose(at[2.0].value, at[0.0].value + 2 * step, atol=1e-5)
    np.testing.assert_allclose(at[9.0].value, at[0.0].value + 9 * step, atol=1e-4)
    assert at[9.0].kind == "v" and float(jnp.abs(step).max()) > 1


def test_scale_one_costs_nothing() -> None:
    assert classifier_free(predictor, conditions()[1], 1.0) is predictor
