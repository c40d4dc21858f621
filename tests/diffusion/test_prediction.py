"""Conversions between what networks predict."""

import itertools

import jax
import numpy as np
import pytest

from vgen_jax.diffusion.prediction import KINDS, check_kind, convert, eps_weight, shifted, target, velocity_weight
from vgen_jax.types import Array, Prediction, VgenError

pytestmark = pytest.mark.usefixtures("checked_axes")


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


def test_the_velocity_is_the_derivative_by_flow_time(sample) -> None:
    """u = dx_s / ds of x_s = (1 - s) x_0 + s eps, whatever the schedule scales x_s by."""
    x0, eps, alpha, sigma = (np.asarray(a, np.float64) for a in sample)
    s = sigma / (alpha + sigma)
    at = lambda time: (1 - time) * x0 + time * eps  # noqa: E731
    np.testing.assert_allclose(at(s) / np.sqrt((1 - s) ** 2 + s**2), alpha * x0 + sigma * eps, rtol=1e-5)
    slope = (at(s + 1e-5) - at(s - 1e-5)) / 2e-5
    np.testing.assert_allclose(target("velocity", x0, eps, alpha, sigma), slope, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("weight", "other"), [(eps_weight, "eps"), (lambda *a: velocity_weight(*a, 0.0), "velocity")])
def test_weighted_errors_are_those_of_the_other_kind(kind, weight, other, sample) -> None:
    x0, eps, alpha, sigma = sample
    x_t = alpha * x0 + sigma * eps
    wrong = Prediction(target(kind, x0, eps, alpha, sigma) + 0.5, kind)
    error = (convert(wrong, other, x_t, alpha, sigma).value - target(other, x0, eps, alpha, sigma)) ** 2
    np.testing.assert_allclose(np.broadcast_to(0.25 * weight(kind, alpha, sigma), error.shape), error, rtol=2e-2)


def test_the_weight_is_bounded_where_it_has_a_pole() -> None:
    alpha, sigma = np.asarray([1.0, 0.0]), np.asarray([0.0, 1.0])
    np.testing.assert_allclose(velocity_weight("x0", alpha, sigma, 0.1), [100.0, 1.0])
    np.testing.assert_allclose(velocity_weight("eps", alpha, sigma, 0.1), [1.0, 100.0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_shift_of_eps_is_one_of_every_kind(kind, sample) -> None:
    x0, eps, alpha, sigma = sample
    x_t = alpha * x0 + sigma * eps
    moved = shifted(Prediction(target(kind, x0, eps, alpha, sigma), kind), 0.25 * x0, alpha, sigma)
    np.testing.assert_allclose(convert(moved, "eps", x_t, alpha, sigma).value, eps + 0.25 * x0, atol=1e-4)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(VgenError, match="'epsilon'.*eps, x0, v, velocity"):
        check_kind("epsilon")
