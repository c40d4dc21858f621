"""Noise schedules: x_t = alpha_t x_0 + sigma_t eps with alpha_t² = ᾱ_t and sigma_t² = 1 - ᾱ_t.

SlowFast-VGen eq. (7), (8); AVID §3. Everything is computed on the host in float64, once; the networks and the samplers
see float32 tables. The rescaling to zero terminal SNR is Lin et al. 2023, "Common Diffusion Noise Schedules and Sample
Steps are Flawed", algorithm 1.

Flow matching (Lipman et al. 2023) is one of them. Its x_s = (1 - s) x_0 + s eps, with flow time s = 1 at pure noise
and s = 0 at the data, is divided by sqrt((1 - s)² + s²), so that alpha² + sigma² is 1 as ever; step t is at
s = (t + 1) / steps. A straight step of its ODE from s to r, x_r = x̂_0 + (r / s) (x_s - x̂_0), is then a step of DDIM.
Any schedule has a flow time by its signal-to-noise ratio, s = sigma / (alpha + sigma).
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np

from vgen_jax.types import Array, VgenError

ScheduleKind = Literal["linear", "scaled_linear", "cosine", "sigmoid", "dynamicrafter", "flow"]
MAX_BETA = 0.999
SHRINK_STEPS, SHRINK_END = 400, 0.7  # of DynamiCrafter


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A discrete noise schedule of ``steps`` diffusion steps.

    Attributes:
        kind: ``linear`` (beta linear), ``scaled_linear`` (sqrt(beta) linear), ``cosine`` (Nichol and Dhariwal 2021),
            ``sigmoid`` (Jabri et al. 2022; AVID uses start -3, end 3, tau 1), ``dynamicrafter`` (Xing et al. 2023:
            ``scaled_linear``, rescaled or not, of an x_0 that shrinks with t, see ``shrink``) or ``flow`` (flow
            matching; its last step is pure noise).
        steps: number of diffusion steps.
        start: first beta for the linear kinds; the sigmoid's left end; unused by ``cosine`` and ``flow``.
        end: last beta for the linear kinds; the sigmoid's right end; unused by ``cosine`` and ``flow``.
        zero_terminal_snr: rescale so that the last step is pure noise. Needs a ``v`` or ``x0`` prediction.
        set_alpha_to_one: what a sampler takes as ᾱ before step 0: 1, or (False) ᾱ_0.
    """

    kind: ScheduleKind = "scaled_linear"
    steps: int = 1000
    start: float = 0.00085
    end: float = 0.012
    zero_terminal_snr: bool = False
    set_alpha_to_one: bool = True

    def __post_init__(self) -> None:
        if self.kind not in _ALPHA_BAR:
            raise VgenError(f"schedule.kind '{self.kind}' is unknown: use one of {', '.join(_ALPHA_BAR)}")
        if self.steps < 1:
            raise VgenError(f"schedule.steps is {self.steps}: use a positive number of diffusion steps")

    def alpha_bar(self) -> np.ndarray:
        """ᾱ of every step, float64, shape (steps,), decreasing in (0, 1) (0 at the end with zero terminal SNR)."""
        alpha_bar = _ALPHA_BAR[self.kind](self)
        return rescale_zero_terminal_snr(alpha_bar) if self.zero_terminal_snr else alpha_bar

    @property
    def ends_in_noise(self) -> bool:
        """Whether the last step says nothing of x_0, so that an ``eps`` network cannot be sampled."""
        return self.zero_terminal_snr or self.kind == "flow"

    def step_of_noise(self, level_B: Array) -> Array:
        """The first step at which noise is at least ``level_B`` times as strong as x_0, int32, (B,)."""
        alpha_bar = self.alpha_bar()
        with np.errstate(divide="ignore"):
            ratio = np.sqrt((1.0 - alpha_bar) / alpha_bar)
        found = jnp.searchsorted(jnp.asarray(ratio, jnp.float32), level_B)
        return jnp.minimum(found, self.steps - 1).astype(jnp.int32)

    def shrink(self) -> np.ndarray:
        """s_t, by which x_0 is multiplied before it is noised at step t, float64, (steps,); 1 for most kinds.

        For ``dynamicrafter`` it falls from 1 to 0.7 in the first 400 steps. Its network is given a s x_0 + sigma eps,
        a² + sigma² = 1; here that is divided by sqrt(a² s² + sigma²), so that alpha² + sigma² is 1 as ever.
        """
        s = np.ones(self.steps)
        if self.kind == "dynamicrafter":
            s[:] = SHRINK_END
            s[:SHRINK_STEPS] = np.linspace(1.0, SHRINK_END, SHRINK_STEPS)[: self.steps]
        return s

    def alpha_sigma(self, t: Array, ndim: int = 5) -> tuple[Array, Array]:
        """alpha_t and sigma_t (float32) of int steps ``t``, of shape (B,) or (B, T), broadcastable to ``ndim`` axes."""
        alpha_bar = self.alpha_bar()
        alpha = jnp.asarray(np.sqrt(alpha_bar), jnp.float32)[t]
        sigma = jnp.asarray(np.sqrt(1.0 - alpha_bar), jnp.float32)[t]
        shape = t.shape + (1,) * (ndim - t.ndim)
        return alpha.reshape(shape), sigma.reshape(shape)


def _from_betas(betas: np.ndarray) -> np.ndarray:
    return np.cumprod(1.0 - np.minimum(betas, MAX_BETA))


def _from_alpha_bar(alpha_bar: np.ndarray) -> np.ndarray:
    """From ᾱ at steps+1 points to the steps' ᾱ, with every beta clipped to at most 0.999."""
    return _from_betas(1.0 - alpha_bar[1:] / alpha_bar[:-1])


def _linear(s: Schedule) -> np.ndarray:
    return _from_betas(np.linspace(s.start, s.end, s.steps, dtype=np.float64))


def _scaled_linear(s: Schedule) -> np.ndarray:
    return _from_betas(np.linspace(s.start**0.5, s.end**0.5, s.steps, dtype=np.float64) ** 2)


def _cosine(s: Schedule) -> np.ndarray:
    u = np.linspace(0.0, 1.0, s.steps + 1, dtype=np.float64)
    return _from_alpha_bar(np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2)


def _sigmoid(s: Schedule) -> np.ndarray:
    u = np.linspace(s.start, s.end, s.steps + 1, dtype=np.float64)
    first, last, curve = (1.0 / (1.0 + np.exp(-x)) for x in (np.float64(s.start), np.float64(s.end), u))
    alpha_bar = (last - curve) / (last - first)
    return _from_alpha_bar(alpha_bar / alpha_bar[0])


def _dynamicrafter(s: Schedule) -> np.ndarray:
    alpha_bar = dataclasses.replace(s, kind="scaled_linear").alpha_bar()
    signal = alpha_bar * s.shrink() ** 2
    return signal / (signal + 1.0 - alpha_bar)


def _flow(s: Schedule) -> np.ndarray:
    time = np.arange(1, s.steps + 1, dtype=np.float64) / s.steps
    return (1.0 - time) ** 2 / ((1.0 - time) ** 2 + time**2)


_ALPHA_BAR = {
    "linear": _linear,
    "scaled_linear": _scaled_linear,
    "cosine": _cosine,
    "sigmoid": _sigmoid,
    "dynamicrafter": _dynamicrafter,
    "flow": _flow,
}


def rescale_zero_terminal_snr(alpha_bar: np.ndarray) -> np.ndarray:
    """Shifts and scales sqrt(ᾱ) so that its last value is 0 and its first is kept."""
    root = np.sqrt(alpha_bar)
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return root**2
