"""Samplers as one ``lax.scan``: DDPM, DDIM and DPM-Solver++(2M) differ only in a table of numbers.

Each of them turns x_t into x_s (s the next, cleaner step) linearly,

    x_s = c_x x_t + c_0 x̂_0(x_t) + c_p x̂_0(previous step) + c_n noise,

with coefficients that depend on the schedule alone. They are computed on the host in float64, once:

* DDIM (Song et al. 2021, eq. 12): k = sqrt(sigma_s² - n²), c_x = k / sigma_t, c_0 = alpha_s - k alpha_t / sigma_t,
  n = c_n = eta (sigma_s / sigma_t) sqrt(1 - alpha_t² / alpha_s²).
* DDPM is DDIM with eta = 1: the posterior mean and the posterior ("small") variance of Ho et al. 2020.
* DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): lambda = log(alpha / sigma), h = lambda_s - lambda_t,
  c_x = sigma_s / sigma_t, the rest -alpha_s (e^-h - 1) times x̂_0 + (x̂_0 - x̂_0(previous)) h / (2 h_previous);
  first order in the first and the last step. It needs no evaluation at the end that it leads to, so that its
  ``leading`` and ``linspace`` divide the schedule into one more interval than there are evaluations.
"""

import dataclasses
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vgen_jax.diffusion import prediction
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.types import Array, Condition, Key, Predictor, VgenError

SamplerKind = Literal["ddpm", "ddim", "dpmpp_2m"]
Spacing = Literal["leading", "trailing", "linspace"]
_Coefficients = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # c_x, c_0, c_p, c_n


class Sampling(Protocol):
    """What ``sample`` asks of a sampler; see ``Sampler``."""

    @property
    def kind(self) -> SamplerKind: ...

    @property
    def eta(self) -> float: ...

    @property
    def clip_x0(self) -> float: ...

    def timesteps(self, schedule: Schedule) -> np.ndarray: ...

    def levels(self, schedule: Schedule) -> tuple[np.ndarray, np.ndarray]: ...

    def ends_in_first_order(self) -> bool: ...


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How to sample.

    Attributes:
        kind: ``ddpm`` (ancestral), ``ddim`` or ``dpmpp_2m``.
        steps: network evaluations, in [1, schedule.steps].
        eta: DDIM's stochasticity in [0, 1]; ``ddpm`` is always 1, ``dpmpp_2m`` always deterministic.
        spacing: which steps are visited (names of Lin et al. 2023, table 2); ``trailing`` starts at pure noise.
        steps_offset: added to the steps of ``leading``.
        clip_x0: the estimate of x_0 is clipped to ±clip_x0 (pixel models: 1.0); 0 does not clip.
    """

    kind: SamplerKind = "ddim"
    steps: int = 50
    eta: float = 0.0
    spacing: Spacing = "trailing"
    steps_offset: int = 0
    clip_x0: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("ddpm", "ddim", "dpmpp_2m"):
            raise VgenError(f"sampler.kind '{self.kind}' is unknown: use ddpm, ddim or dpmpp_2m")
        if self.spacing not in ("leading", "trailing", "linspace"):
            raise VgenError(f"sampler.spacing '{self.spacing}' is unknown: use leading, trailing or linspace")
        if self.steps < 1:
            raise VgenError(f"sampler.steps is {self.steps}: use at least 1")
        if not 0.0 <= self.eta <= 1.0:
            raise VgenError(f"sampler.eta is {self.eta}: use a value in [0, 1]")

    def timesteps(self, schedule: Schedule) -> np.ndarray:
        """The visited diffusion steps, int, decreasing, shape (steps,)."""
        total = schedule.steps
        if self.steps > total:
            raise VgenError(f"sampler.steps {self.steps} exceeds schedule.steps {total}: lower it")
        if self.spacing == "trailing":
            t = np.round(np.arange(total, 0, -total / self.steps)).astype(np.int64) - 1
            return t[: self.steps].astype(np.int32)
        points = self.steps + 1 if self.kind == "dpmpp_2m" else self.steps
        if points > total:
            raise VgenError(
                f"sampler.steps {self.steps} with sampler.spacing {self.spacing} leaves dpmpp_2m no end among "
                f"schedule.steps {total}: use at most {total - 1}"
            )
        if self.spacing == "leading":
            t = np.arange(points) * (total // points) + self.steps_offset
            if self.steps_offset < 0 or t[-1] >= total:
                raise VgenError(
                    f"sampler.steps_offset {self.steps_offset} leads to step {t[-1]} of schedule.steps {total}: use 0"
                )
        else:
            t = np.round(np.linspace(0, total - 1, points)).astype(np.int64)
        return t[::-1][: self.steps].astype(np.int32)

    def levels(self, schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
        """ᾱ at each visited step and ᾱ that the step leads to, which is that of the next one; float64, (steps,)."""
        alpha_bar = schedule.alpha_bar()
        visited = alpha_bar[self.timesteps(schedule)]
        return visited, np.append(visited[1:], 1.0 if schedule.set_alpha_to_one else alpha_bar[0])

    def ends_in_first_order(self) -> bool:
        """Whether the last step of ``dpmpp_2m`` drops to first order, as it must where it leads to ᾱ = 1."""
        return True


@dataclasses.dataclass(frozen=True)
class SamplerTable:
    """One row per network evaluation; float32 but for ``t``."""

    t: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray
    c_x: np.ndarray
    c_0: np.ndarray
    c_p: np.ndarray
    c_n: np.ndarray


def sampler_table(sampler: Sampling, schedule: Schedule) -> SamplerTable:
    """The coefficients of the module's docstring for every step."""
    t = sampler.timesteps(schedule)
    before, after = sampler.levels(schedule)
    a_t, a_s = np.sqrt(before), np.sqrt(after)
    s_t, s_s = np.sqrt(1.0 - before), np.sqrt(1.0 - after)
    if sampler.kind == "dpmpp_2m":
        c_x, c_0, c_p, c_n = _dpmpp_2m(a_t, s_t, a_s, s_s, sampler.ends_in_first_order())
    else:
        c_x, c_0, c_p, c_n = _ddim(a_t, s_t, a_s, s_s, 1.0 if sampler.kind == "ddpm" else sampler.eta)
    columns = (np.asarray(c, np.float32) for c in (a_t, s_t, c_x, c_0, c_p, c_n))
    return SamplerTable(t, *columns)


def _ddim(a_t: np.ndarray, s_t: np.ndarray, a_s: np.ndarray, s_s: np.ndarray, eta: float) -> _Coefficients:
    noise = eta * s_s / s_t * np.sqrt(np.maximum(0.0, 1.0 - (a_t / a_s) ** 2))
    k = np.sqrt(np.maximum(0.0, s_s**2 - noise**2))
    return k / s_t, a_s - k * a_t / s_t, np.zeros_like(a_t), noise


def _dpmpp_2m(
    a_t: np.ndarray, s_t: np.ndarray, a_s: np.ndarray, s_s: np.ndarray, first_order_end: bool
) -> _Coefficients:
    with np.errstate(divide="ignore", invalid="ignore"):
        lambda_t, lambda_s = np.log(a_t) - np.log(s_t), np.log(a_s) - np.log(s_s)
        h = lambda_s - lambda_t
        ratio = np.append(0.0, h[1:] / (2.0 * h[:-1]))  # 0 after an infinite first step (zero terminal SNR)
        step = a_s * (1.0 - np.exp(-h))
    if first_order_end:
        ratio[-1] = 0.0
    return s_s / s_t, step * (1.0 + ratio), -step * ratio, np.zeros_like(a_t)


def normal_like(key_B: Key, shape: tuple[int, ...]) -> Array:
    """Standard normal noise whose row b depends on ``key_B[b]`` alone, so that a sample is the same in any batch."""
    return jax.vmap(lambda key: jax.random.normal(key, shape[1:]))(key_B)


# x_t, the last estimate of x_0, the number of the step.
Carry = tuple[Array, Array, Array]
Row = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A sampler's way through a schedule, for those who take its steps one by one; ``sample`` takes them in one scan.

    Attributes:
        table: one row per step.
        clip_x0: see ``Sampler``.
    """

    table: SamplerTable
    clip_x0: float

    def rows(self) -> Row:
        """The table as arrays, steps first."""
        return {name: jnp.asarray(column) for name, column in dataclasses.asdict(self.table).items()}

    def start(self, x_T: Array) -> Carry:
        """The carry of the first step."""
        x = x_T.astype(jnp.float32)
        return x, jnp.zeros_like(x), jnp.zeros((), jnp.int32)

    def step(self, predictor: Predictor, condition: Condition, key_B: Key, carry: Carry, row: Row) -> Carry:
        """One step."""
        x, x0_previous, number = carry
        predicted = predictor(x, steps_of(x, row), condition)
        x0 = prediction.to_x0(predicted, x, row["alpha"], row["sigma"])
        if self.clip_x0:
            x0 = jnp.clip(x0, -self.clip_x0, self.clip_x0)
        new = row["c_x"] * x + row["c_0"] * x0 + row["c_p"] * x0_previous
        if np.any(self.table.c_n > 0):
            new += row["c_n"] * normal_like(jax.vmap(jax.random.fold_in, (0, None))(key_B, number), x.shape)
        return new, x0, number + 1


def steps_of(x: Array, row: Row) -> Array:
    """The row's diffusion step for every sample of ``x``."""
    return jnp.full(x.shape[:1], row["t"], jnp.int32)


def trajectory(sampler: Sampling, schedule: Schedule) -> Trajectory:
    """The sampler's way through the schedule."""
    return Trajectory(sampler_table(sampler, schedule), sampler.clip_x0)


def sample(
    predictor: Predictor, schedule: Schedule, sampler: Sampling, x_T: Array, condition: Condition, key_B: Key
) -> Array:
    """Runs the sampler from ``x_T`` (standard normal, float32) and returns x_0 of the same shape.

    Args:
        key_B: one PRNG key per sample, used only by stochastic samplers.
    """
    way = trajectory(sampler, schedule)

    def step(carry: Carry, row: Row) -> tuple[Carry, None]:
        return way.step(predictor, condition, key_B, carry, row), None

    (x_0, _, _), _ = jax.lax.scan(step, way.start(x_T), way.rows())
    return x_0


def sample_path(
    predictor: Predictor, schedule: Schedule, sampler: Sampling, x_T: Array, condition: Condition, key_B: Key
) -> tuple[Array, Array]:
    """``sample``, and the x_t at which the Predictor was asked, (steps, B, …): those of ``sampler.timesteps``."""
    way = trajectory(sampler, schedule)

    def step(carry: Carry, row: Row) -> tuple[Carry, Array]:
        return way.step(predictor, condition, key_B, carry, row), carry[0]

    (x_0, _, _), path = jax.lax.scan(step, way.start(x_T), way.rows())
    return x_0, path
