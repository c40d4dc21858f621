"""Conversions between what networks predict."""

import itertools

import jax
import numpy as np
import pytest

from vgen_jax.diffusion.prediction import KINDS, check_kind, convert, target
from vgen_jax.types import Array, Prediction, VgenError


@pytest.fixture
def sample(rng: Array) -> tuple[Array, Array, Array, Array]:
    """x_0, eps, alpha and sigma."""
    k_x, k_eps, k_a = jax.random.split(rng, 3)
    alpha = jax.random.uniform(k_a, (4, 1, 1, 1, 1), minval=0.1, maxval=0.95)
    shape = (4, 2, 3, 3, 2)
    return jax.random.normal(k_x, shape), jax.random.normal(k_eps, shape), alpha, (1 - alpha**2) ** 0.5


@pytest.mark.parametrize(("first", "second"), list(itertools.product(KINDS, KINDS)))
def test_conversions_cycle_and_agree_with_the_targets(first, second, sample) -> None:
    x0, eps, alpha, sigma = sample
    x_t = alpha * x0 + sigma * eps
    there = convert(Prediction(target(first, x0, eps, alpha, sigma), first), second, x_t, alpha, sigma)
    back = convert(there, first, x_t, alpha, sigma)
    assert (there.kind, back.kind) == (second, first)
    np.testing.assert_allclose(there.value, target(second, x0, eps, alpha, sigma), atol=3e-5)
    np.testing.assert_allclose(back.value, target(first, x0, eps, alpha, sigma), atol=3e-5)


def test_v_is_the_derivative_along_the_circle(sample) -> None:
    """With alpha = cos φ and sigma = sin φ, v = dx_φ / dφ (Salimans and Ho 2022, appendix D)."""
    x0, eps, alpha, sigma = sample
    phi = np.arccos(np.asarray(alpha, np.float64))
    at = lambda angle: np.cos(angle) * np.asarray(x0, np.float64) + np.sin(angle) * np.asarray(eps)  # noqa: E731
    slope = (at(phi + 1e-5) - at(phi - 1e-5)) / 2e-5
    np.testing.assert_allclose(target("v", x0, eps, alpha, sigma), slope, atol=1e-5)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(VgenError, match="'velocity'.*eps, x0, v"):
        check_kind("velocity")
