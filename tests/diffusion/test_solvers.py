"""Solvers of flows: their orders, against the exact solution of linear fields and against diffrax."""

import dataclasses

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgen_jax.diffusion.samplers import Sampler, sample
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.diffusion.solvers import Solver, noised, solve, solver_table, velocity
from vgen_jax.types import Array, Condition, Prediction, VgenError

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}
START = jnp.asarray([[1.0, -0.5], [0.3, 2.0]])
MATRIX = np.asarray([[0.8, -2.0], [1.5, 0.3]])


def linear(x_B2: Array, s_B: Array, number: Array) -> Array:
    """dx/ds = M x + s, whose solutions are no polynomials."""
    return x_B2 @ jnp.asarray(MATRIX, jnp.float32).T + s_B[:, None]


def by_diffrax(kind: str, steps: int) -> np.ndarray:
    """The same with diffrax's solvers; of order 4 it has other ones, which serve as the exact solution."""
    solver = {"euler": diffrax.Euler(), "midpoint": diffrax.Midpoint(), "heun": diffrax.Heun()}.get(
        kind, diffrax.Dopri8()
    )

    def field(s: Array, x: Array, _: None) -> Array:
        return jax.vmap(lambda one: jnp.asarray(MATRIX) @ one)(x) + s

    with jax.enable_x64(True):
        x = jnp.asarray(np.asarray(START, np.float64))
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(field), solver, t0=1.0, t1=0.0, dt0=-1.0 / steps, y0=x, max_steps=steps + 1,
            stepsize_controller=diffrax.ConstantStepSize(),
        )  # fmt: skip
        return np.asarray(found.ys[-1])


EXACT = by_diffrax("exact", 64)


def error(kind: str, steps: int) -> float:
    return float(np.abs(np.asarray(solve(linear, Solver(kind, steps, 1.0), START)) - EXACT).max())


@pytest.mark.parametrize("kind", ORDERS)
def test_halving_the_step_divides_the_error_by_two_to_the_order(kind: str) -> None:
    ratio = error(kind, 4) / error(kind, 8)
    assert 2 ** (ORDERS[kind] - 0.5) < ratio < 2 ** (ORDERS[kind] + 0.8)


@pytest.mark.parametrize("kind", ["euler", "midpoint", "heun"])
def test_steps_are_those_of_diffrax(kind: str) -> None:
    np.testing.assert_allclose(solve(linear, Solver(kind, 5, 1.0), START), by_diffrax(kind, 5), rtol=2e-5)


def test_the_three_eighths_rule_integrates_cubics_in_the_time_exactly() -> None:
    """And visits the thirds of a step, unlike the classical rule."""
    found = solve(lambda x, s_B, number: 4.0 * s_B[:, None] ** 3 + 0.0 * x, Solver("rk4", 1, 1.0), jnp.ones((2, 3)))
    np.testing.assert_allclose(found, np.zeros((2, 3)), atol=1e-6)
    np.testing.assert_allclose(solver_table(Solver("rk4", 1, 1.0)).time, [1.0, 2 / 3, 1 / 3, 0.0], atol=1e-6)


def test_a_step_of_euler_is_one_of_ddim_on_the_flow_schedule() -> None:
    """Up to the length that the schedule gives x_s: its ends, noise and data, have the same."""
    steps, shape = 5, (2, 1, 2, 2, 3)
    noise = jax.random.normal(jax.random.key(0), shape)

    def of_flow(x: Array, s_B: Array) -> Array:
        s = s_B.reshape(-1, 1, 1, 1, 1)
        return 0.3 * x + jnp.sin(3.0 * s)

    def predictor(x_t: Array, t_B: Array, condition: Condition) -> Prediction:
        alpha, sigma = schedule.alpha_sigma(t_B)
        return Prediction(of_flow(x_t / (alpha + sigma), (t_B + 1) / schedule.steps), "velocity")

    schedule = Schedule("flow", 10)
    keys = jax.random.split(jax.random.key(1), 2)
    by_ddim = sample(predictor, schedule, Sampler("ddim", steps), noise, Condition(), keys)
    by_euler = solve(lambda x, s_B, number: of_flow(x, s_B), Solver("euler", steps, 1.0), noise)
    np.testing.assert_allclose(by_ddim, by_euler, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("start", [1.0, 0.4])
def test_the_straight_field_of_a_point_leads_to_it(start: float) -> None:
    """From noise, or from a warm start with another guess, whose rest is forgotten in proportion."""
    x_0, guess, eps = (jax.random.normal(jax.random.key(n), (2, 3)) for n in range(3))
    sigma = 1e-3

    def field(x: Array, s_B: Array, number: Array) -> Array:
        s = s_B[:, None]
        width = sigma + (1 - sigma) * s
        return velocity(x_0, (x - (1 - s) * x_0) / width, sigma)

    x = noised(guess, eps, jnp.full((2,), start), sigma)
    found = solve(field, Solver("euler", 7, start), x)
    np.testing.assert_allclose(found, x_0, atol=0.05)


def test_evaluations_are_numbered() -> None:
    def field(x: Array, s_B: Array, number: Array) -> Array:
        return jnp.ones_like(x) * number

    solver = Solver("midpoint", 3, 1.0)
    assert solver.evaluations == 6
    # b is (0, 1): the second evaluation of each step counts, 1, 3 and 5, over steps of -1/3.
    np.testing.assert_allclose(solve(field, solver, jnp.zeros((1, 1))), [[-3.0]], rtol=1e-6)


def test_unknown_settings_are_refused() -> None:
    good = Solver("rk4", 3, 1.0)
    for change, named in (
        ({"kind": "rk5"}, "euler, midpoint"),
        ({"steps": 0}, "at least 1"),
        ({"start": 0.0}, "flow time"),
    ):
        with pytest.raises(VgenError, match=named):
            dataclasses.replace(good, **change)
