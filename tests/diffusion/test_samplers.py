"""Samplers, driven by Predictors that know the data."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgen_jax.diffusion.prediction import KINDS, target
from vgen_jax.diffusion.samplers import Sampler, normal_like, sample, sampler_table
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.types import Array, Condition, Prediction, Predictor, VgenError

pytestmark = pytest.mark.usefixtures("checked_axes")

SHAPE = (3, 2, 2, 2, 1)
SCHEDULE = Schedule("cosine", 20)
SPACINGS = ("leading", "trailing", "linspace")
KINDS_OF_SAMPLER = {"ddim": 0.0, "ddim_eta": 1.0, "ddpm": 0.0, "dpmpp_2m": 0.0}


def sampler_of(name: str, **changes: object) -> Sampler:
    return Sampler(kind=name.removesuffix("_eta"), eta=KINDS_OF_SAMPLER[name], **changes)


def keys(rng: Array, b: int = SHAPE[0]) -> Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(rng, jnp.arange(b))


def oracle(x0: Array, schedule: Schedule, kind: str) -> Predictor:
    """A Predictor of that kind which knows the data point."""

    def predict(x_t: Array, t_B: Array, condition: Condition) -> Prediction:
        alpha, sigma = schedule.alpha_sigma(t_B)
        return Prediction(target(kind, x0, (x_t - alpha * x0) / sigma, alpha, sigma), kind)

    return predict


def gaussian(schedule: Schedule, scale: float) -> Predictor:
    """The ideal Predictor for data from N(0, scale²)."""

    def predict(x_t: Array, t_B: Array, condition: Condition) -> Prediction:
        alpha, sigma = schedule.alpha_sigma(t_B)
        return Prediction(alpha * scale**2 / (alpha**2 * scale**2 + sigma**2) * x_t, "x0")

    return predict


@pytest.mark.parametrize("name", KINDS_OF_SAMPLER)
@pytest.mark.parametrize("kind", KINDS)
def test_an_oracle_lands_on_the_data(name: str, kind: str, rng: Array) -> None:
    x0, x_T = jax.random.normal(rng, (2, *SHAPE))
    for spacing, steps in itertools.product(SPACINGS, (7, 19)):
        found = sample(
            oracle(x0, SCHEDULE, kind), SCHEDULE, sampler_of(name, steps=steps, spacing=spacing), x_T, Condition(),
            keys(rng),
        )  # fmt: skip
        np.testing.assert_allclose(found, x0, atol=1e-4, err_msg=f"{spacing} {steps}")


@pytest.mark.parametrize("name", KINDS_OF_SAMPLER)
@pytest.mark.parametrize("kind", ["v", "x0"])
def test_an_oracle_lands_on_the_data_from_pure_noise(name: str, kind: str, rng: Array) -> None:
    schedule = Schedule("scaled_linear", 20, 0.01, 0.2, zero_terminal_snr=True)
    x0, x_T = jax.random.normal(rng, (2, *SHAPE))
    for steps in (1, 2, 7):
        found = sample(oracle(x0, schedule, kind), schedule, sampler_of(name, steps=steps), x_T, Condition(), keys(rng))
        np.testing.assert_allclose(found, x0, atol=1e-4, err_msg=str(steps))


def test_without_alpha_one_the_last_step_stays_at_the_first_noise_level(rng: Array) -> None:
    schedule = Schedule("scaled_linear", 20, 0.01, 0.2, set_alpha_to_one=False)
    x0, eps = jax.random.normal(rng, (2, *SHAPE))
    alpha, sigma = schedule.alpha_sigma(jnp.asarray([19, 0]), ndim=1)
    x_T = alpha[0] * x0 + sigma[0] * eps
    for name in ("ddim", "dpmpp_2m"):
        found = sample(oracle(x0, schedule, "eps"), schedule, sampler_of(name, steps=5), x_T, Condition(), keys(rng))
        np.testing.assert_allclose(found, alpha[1] * x0 + sigma[1] * eps, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", ["linear", "cosine", "sigmoid"])
def test_ddpm_is_the_posterior_of_ho_et_al(kind: str) -> None:
    """Mean and variance of q(x_{t-1} | x_t, x_0), Ho et al. 2020, eq. (6) and (7)."""
    schedule = Schedule(kind, 30, *{"linear": (1e-3, 0.1), "cosine": (0.0, 0.0), "sigmoid": (-3.0, 3.0)}[kind])
    table = sampler_table(Sampler("ddpm", steps=30), schedule)
    np.testing.assert_array_equal(table.t, np.arange(30)[::-1])
    alpha_bar = schedule.alpha_bar()
    before = np.append(1.0, alpha_bar[:-1])
    beta = 1 - alpha_bar / before
    np.testing.assert_allclose(table.c_0[::-1], np.sqrt(before) * beta / (1 - alpha_bar), atol=1e-6)
    np.testing.assert_allclose(table.c_x[::-1], np.sqrt(1 - beta) * (1 - before) / (1 - alpha_bar), atol=1e-6)
    np.testing.assert_allclose(table.c_n[::-1] ** 2, (1 - before) / (1 - alpha_bar) * beta, atol=1e-6)


def test_ddim_is_song_et_al(rng: Array) -> None:
    """Eq. (12) in its own words, a loop over predicted x_0 and eps; the noise is that of ``normal_like``."""
    sampler, predictor = Sampler("ddim", steps=6, eta=0.7, spacing="leading"), gaussian(SCHEDULE, 0.5)
    x = x_T = jax.random.normal(rng, SHAPE)
    alpha_bar, visited = SCHEDULE.alpha_bar(), sampler.timesteps(SCHEDULE)
    for number, t in enumerate(visited):
        a_t = alpha_bar[t]
        a_s = alpha_bar[visited[number + 1]] if number + 1 < len(visited) else 1.0
        x0 = predictor(x, jnp.full((3,), t), Condition()).value
        eps = (x - a_t**0.5 * x0) / (1 - a_t) ** 0.5
        s = 0.7 * ((1 - a_s) / (1 - a_t) * (1 - a_t / a_s)) ** 0.5
        noise = normal_like(jax.vmap(jax.random.fold_in, (0, None))(keys(rng), number), SHAPE)
        x = a_s**0.5 * x0 + (1 - a_s - s**2) ** 0.5 * eps + s * noise
    found = sample(predictor, SCHEDULE, sampler, x_T, Condition(), keys(rng))
    np.testing.assert_allclose(found, x, atol=1e-5)


@dataclasses.dataclass(frozen=True)
class EvenSchedule(Schedule):
    """log(alpha / sigma) falls evenly from 3 to -3, so that steps are as short as their number promises."""

    set_alpha_to_one: bool = False

    def alpha_bar(self) -> np.ndarray:
        return 1 / (1 + np.exp(-2 * np.linspace(3, -3, self.steps)))


@pytest.mark.parametrize(("name", "order"), [("ddim", 1.0), ("dpmpp_2m", 2.0)])
def test_order_of_convergence(name: str, order: float, rng: Array) -> None:
    """On Gaussian data the ODE has the solution x_s = x_t sqrt(Var x_s / Var x_t)."""
    scale, errors = 0.5, []
    x_T = jax.random.normal(rng, SHAPE)
    for steps in (20, 80):
        schedule = EvenSchedule(steps=steps)
        alpha_bar = schedule.alpha_bar()
        variance = alpha_bar * scale**2 + 1 - alpha_bar
        found = sample(gaussian(schedule, scale), schedule, sampler_of(name, steps=steps), x_T, Condition(), keys(rng))
        errors.append(float(jnp.abs(found - x_T * (variance[0] / variance[-1]) ** 0.5).max()))
    measured = np.log(errors[0] / errors[1]) / np.log(79 / 19)
    assert abs(measured - order) < 0.25, (measured, errors)


@pytest.mark.parametrize("name", KINDS_OF_SAMPLER)
def test_a_sample_does_not_depend_on_its_batch(name: str, rng: Array) -> None:
    predictor, sampler = gaussian(SCHEDULE, 0.5), sampler_of(name, steps=5)
    whole = sample(predictor, SCHEDULE, sampler, normal_like(keys(rng), SHAPE), Condition(), keys(rng))
    chosen = keys(rng)[jnp.asarray([2, 0])]
    part = sample(predictor, SCHEDULE, sampler, normal_like(chosen, (2, *SHAPE[1:])), Condition(), chosen)
    np.testing.assert_allclose(part, whole[jnp.asarray([2, 0])], atol=1e-6)
    assert float(jnp.abs(whole[0] - whole[1]).max()) > 1e-3


def test_the_estimate_is_clipped(rng: Array) -> None:
    far = lambda x_t, t_B, condition: Prediction(jnp.full_like(x_t, 3.0), "x0")  # noqa: E731
    x_T = jax.random.normal(rng, SHAPE)
    for clip, expected in ((0.0, 3.0), (1.0, 1.0)):
        found = sample(far, SCHEDULE, Sampler("ddim", 4, clip_x0=clip), x_T, Condition(), keys(rng))
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [2, 7, 50, 999, 1000])
def test_visited_steps_decrease(spacing: str, steps: int) -> None:
    t = Sampler(steps=steps, spacing=spacing).timesteps(Schedule(steps=1000))
    assert t.shape == (steps,) and (np.diff(t) < 0).all() and t[-1] >= 0 and t[0] <= 999
    assert spacing == "leading" or t[0] == 999
    assert spacing == "trailing" or t[-1] == 0


def test_modelscope_visits_steps_one_to_981() -> None:
    t = Sampler(steps=50, spacing="leading", steps_offset=1).timesteps(Schedule())
    np.testing.assert_array_equal(t, np.arange(981, 0, -20))


@pytest.mark.parametrize("steps", [1, 7, 50, 999])
def test_dpmpp_does_not_evaluate_the_end_that_it_leads_to(steps: int) -> None:
    for spacing in ("leading", "linspace"):
        t = Sampler("dpmpp_2m", steps, spacing=spacing).timesteps(Schedule(steps=1000))
        assert t.shape == (steps,) and (np.diff(t) < 0).all() and t[-1] > 0, spacing
        assert spacing == "leading" or t[0] == 999


def test_one_step_is_a_whole_sample() -> None:
    """DPM-Solver++ takes it from pure noise; DDIM's linspace has only the schedule's beginning to take it from."""
    first = {
        (kind, spacing): int(Sampler(kind, 1, spacing=spacing).timesteps(Schedule(steps=1000))[0])
        for kind, spacing in itertools.product(("ddim", "dpmpp_2m"), SPACINGS)
    }
    assert {spacing: first["dpmpp_2m", spacing] for spacing in SPACINGS} == {
        "leading": 500, "trailing": 999, "linspace": 999,
    }  # fmt: skip
    assert {spacing: first["ddim", spacing] for spacing in SPACINGS} == {"leading": 0, "trailing": 999, "linspace": 0}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "euler"}, "sampler.kind 'euler'"),
        ({"spacing": "log"}, "sampler.spacing 'log'"),
        ({"steps": 0}, "sampler.steps is 0"),
        ({"eta": 1.5}, "sampler.eta is 1.5"),
    ],
)
def test_what_is_no_sampler_is_refused(changes: dict[str, object], named: str) -> None:
    with pytest.raises(VgenError, match=named):
        Sampler(**changes)


def test_steps_beyond_the_schedule_are_refused() -> None:
    with pytest.raises(VgenError, match="sampler.steps 21 exceeds schedule.steps 20"):
        Sampler(steps=21).timesteps(SCHEDULE)
    with pytest.raises(VgenError, match="sampler.steps_offset 1"):
        Sampler(steps=20, spacing="leading", steps_offset=1).timesteps(SCHEDULE)
    with pytest.raises(VgenError, match="sampler.steps 20 with sampler.spacing linspace.*at most 19"):
        Sampler("dpmpp_2m", 20, spacing="linspace").timesteps(SCHEDULE)


def test_ddim_walks_straight_through_flow_matching(rng: Array) -> None:
    """Its steps are Euler's on dx/ds = eps - x_0, for a network whose estimate depends on where it is."""
    schedule, steps = Schedule("flow", 60), 6
    x_T = jax.random.normal(rng, SHAPE)
    estimate = lambda x, s: 0.3 * jnp.tanh(x) + s  # noqa: E731

    def predictor(x_t: Array, t: Array, condition: Condition) -> Prediction:
        s = (t[:, None, None, None, None] + 1) / 60
        return Prediction(estimate(x_t * jnp.sqrt((1 - s) ** 2 + s**2), s), "x0")

    found = sample(predictor, schedule, Sampler("ddim", steps, spacing="trailing"), x_T, Condition(), keys(rng))
    x, times = np.asarray(x_T, np.float64), np.linspace(1.0, 0.0, steps + 1)
    for s, after in itertools.pairwise(times):
        velocity = (x - estimate(x, s)) / s
        x = x + (after - s) * velocity
    np.testing.assert_allclose(found, x, atol=1e-4)
