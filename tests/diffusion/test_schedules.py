"""Noise schedules."""

import jax.numpy as jnp
import numpy as np
import pytest

from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.types import VgenError

pytestmark = pytest.mark.usefixtures("checked_axes")

SCHEDULES = {
    "linear": Schedule("linear", 100, 1e-4, 0.02),
    "scaled_linear": Schedule("scaled_linear", 1000, 0.00085, 0.012),
    "cosine": Schedule("cosine", 300, 0.0, 0.0),
    "sigmoid": Schedule("sigmoid", 200, -3.0, 3.0),
    "dynamicrafter": Schedule("dynamicrafter", 1000, 0.00085, 0.012),
}


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_noise_only_grows(kind: str, zero_terminal_snr: bool) -> None:
    s = SCHEDULES[kind]
    s = Schedule(kind, s.steps, s.start, s.end, zero_terminal_snr=zero_terminal_snr)
    alpha_bar = s.alpha_bar()
    assert alpha_bar.shape == (s.steps,) and alpha_bar.dtype == np.float64
    assert (np.diff(alpha_bar) < 0).all() and alpha_bar[0] < 1
    assert (alpha_bar[-1] == 0) == zero_terminal_snr


@pytest.mark.parametrize("kind", SCHEDULES)
def test_the_rescaling_keeps_the_first_step(kind: str) -> None:
    s = SCHEDULES[kind]
    rescaled = Schedule(kind, s.steps, s.start, s.end, zero_terminal_snr=True)
    np.testing.assert_allclose(rescaled.alpha_bar()[0], s.alpha_bar()[0], rtol=1e-12)


def test_betas_of_the_linear_kinds() -> None:
    for kind, power in (("linear", 1.0), ("scaled_linear", 0.5)):
        s = SCHEDULES[kind]
        alpha_bar = s.alpha_bar()
        betas = 1 - alpha_bar / np.append(1.0, alpha_bar[:-1])
        np.testing.assert_allclose(betas[[0, -1]], [s.start, s.end], rtol=1e-6)
        np.testing.assert_allclose(np.diff(betas**power), np.diff(betas**power)[0], rtol=1e-6)


def test_the_sigmoid_of_video_diffusion() -> None:
    alpha_bar = SCHEDULES["sigmoid"].alpha_bar()
    np.testing.assert_allclose(1 - alpha_bar[0], 1.518e-3, rtol=1e-3)
    np.testing.assert_allclose(alpha_bar[[0, 100]], [0.99848, 0.4917], rtol=2e-4)
    np.testing.assert_allclose(alpha_bar[199], 1.5e-6, rtol=4e-2)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_dynamicrafters_latents_shrink(zero_terminal_snr: bool) -> None:
    """Signal to noise is that of scaled_linear times s²."""
    plain, shrunk = (
        Schedule(kind, zero_terminal_snr=zero_terminal_snr).alpha_bar() for kind in ("scaled_linear", "dynamicrafter")
    )
    s = Schedule("dynamicrafter").shrink()
    assert s[0] == 1.0 and (s[399:] == 0.7).all() and (np.diff(s[:400]) < 0).all()
    np.testing.assert_allclose(np.diff(s[:400]), -0.3 / 399)
    np.testing.assert_allclose(shrunk / (1 - shrunk), plain / (1 - plain) * s**2, rtol=1e-12)
    assert (Schedule("scaled_linear").shrink() == 1).all()


def test_the_cosine_is_a_cosine_until_its_beta_is_clipped() -> None:
    alpha_bar = SCHEDULES["cosine"].alpha_bar()
    f = lambda t: np.cos((t / 300 + 0.008) / 1.008 * np.pi / 2) ** 2  # noqa: E731
    np.testing.assert_allclose(alpha_bar[:-1], f(np.arange(1, 300)) / f(0), rtol=1e-9)
    np.testing.assert_allclose(alpha_bar[-1] / alpha_bar[-2], 1e-3)


@pytest.mark.parametrize("shape", [(3,), (3, 2)])
def test_alpha_and_sigma_broadcast_and_lie_on_the_circle(shape: tuple[int, ...]) -> None:
    t = jnp.arange(np.prod(shape)).reshape(shape)
    alpha, sigma = SCHEDULES["cosine"].alpha_sigma(t)
    assert alpha.shape == sigma.shape == shape + (1,) * (5 - len(shape)) and alpha.dtype == jnp.float32
    np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, atol=1e-6)
    np.testing.assert_allclose(alpha.reshape(shape) ** 2, SCHEDULES["cosine"].alpha_bar()[np.asarray(t)], atol=1e-6)


def test_flow_matching_is_a_straight_line_in_its_own_scale() -> None:
    s = Schedule("flow", 100)
    alpha, sigma = np.sqrt(s.alpha_bar()), np.sqrt(1 - s.alpha_bar())
    np.testing.assert_allclose(sigma / (alpha + sigma), np.arange(1, 101) / 100, rtol=1e-12)
    assert (np.diff(s.alpha_bar()) < 0).all() and s.alpha_bar()[-1] == 0.0
    assert s.ends_in_noise and Schedule(zero_terminal_snr=True).ends_in_noise and not Schedule().ends_in_noise


def test_the_step_of_a_level_of_noise() -> None:
    """Flow time s is as noisy as x_0 with s / (1 - s) of its deviation; clean is step 0, nothing but noise the last."""
    s = Schedule("flow", 100)
    np.testing.assert_array_equal(s.step_of_noise(jnp.asarray([0.0, 0.2501, 1.0001, np.inf])), [0, 20, 50, 99])
    for kind in SCHEDULES.values():
        ratio = np.sqrt((1 - kind.alpha_bar()) / kind.alpha_bar())
        middle = np.sqrt(ratio[:-1] * ratio[1:])
        np.testing.assert_array_equal(kind.step_of_noise(jnp.asarray(middle)), np.arange(1, kind.steps))


def test_what_is_no_schedule_is_refused() -> None:
    with pytest.raises(VgenError, match="schedule.kind 'exp'"):
        Schedule("exp")
    with pytest.raises(VgenError, match="schedule.steps is 0"):
        Schedule(steps=0)
