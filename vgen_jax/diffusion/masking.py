"""Masked conditional video diffusion: a clean past, a noisy future, a loss on the future alone.

SlowFast-VGen §3.1.1, eq. (1) and (2): the first f_p frames of a window enter the network without noise, the last f_g
are noised, all of them share one diffusion step t, and only the last f_g count in the loss. ``past_BT`` marks the clean
frames. Three options go beyond the paper, all off where the paper's setting is asked for:

* ``past_t = "zero"`` tells the network that the clean frames are at diffusion step 0 instead of sharing t (the paper
  does not say that they are; a small network learns faster when it need not find out which frames are clean);
  ``past_t = "level"`` tells it how noisy they are: the step of the schedule at which x_0 is as noisy, 0 if they are
  clean (GameNGen, Valevski et al. 2024, tells its network the level as well);
* ``reference`` gives the network the last past frame beside every frame, on the channels, as image-to-video models do
  with their first frame: what the future is made of need not travel through time first;
* ``augment_past`` adds Gaussian noise of a random level in [0, augment_past] to the past while training, which lowers
  the drift of long rollouts. Where the network is told the level, a fifth of the windows keep a clean past, as sampling
  has it.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.types import Array, Condition, Key, Prediction, Predictor, VgenError

PastStep = Literal["shared", "zero", "level"]
CLEAN_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class Masking:
    """How the past enters the network. See the module's docstring."""

    past_t: PastStep = "shared"
    augment_past: float = 0.0
    reference: bool = False

    def __post_init__(self) -> None:
        if self.past_t not in ("shared", "zero", "level"):
            raise VgenError(f"masking.past_t '{self.past_t}' is unknown: use 'shared' (the paper), 'zero' or 'level'")
        if self.augment_past < 0:
            raise VgenError(f"masking.augment_past is {self.augment_past}: use a standard deviation of 0 or more")

    def steps(self, t_B: Array, past_BT: Array, past_t_B: Array | None = None) -> Array:
        """What the network is told: t_B itself, or t_BT with 0 on the past frames.

        Args:
            past_t_B: the step of the past frames where they are noisy and ``past_t`` is ``level``.
        """
        if self.past_t == "shared":
            return t_B
        known = past_t_B is not None and self.past_t == "level"
        return jnp.where(past_BT, past_t_B[:, None] if known else 0, t_B[:, None])  # type: ignore[index]

    def past_levels(self, samples: int, rng: Key) -> Array:
        """Standard deviations of the noise on the past, one per window, (B,), for training."""
        level_B = jax.random.uniform(rng, (samples,), maxval=self.augment_past)
        if self.past_t != "level":
            return level_B
        return jnp.where(jax.random.bernoulli(jax.random.fold_in(rng, 1), CLEAN_SHARE, (samples,)), 0.0, level_B)

    def inputs(self, x_BTHWC: Array, past_BT: Array) -> Array:
        """What the network sees: x itself, or x and its last past frame, twice the channels."""
        if not self.reference:
            return x_BTHWC
        last_B = past_BT.sum(1) - 1
        reference = jnp.take_along_axis(x_BTHWC, last_B[:, None, None, None, None], axis=1)
        return jnp.concatenate([x_BTHWC, jnp.broadcast_to(reference, x_BTHWC.shape)], axis=-1)


def select_past(past_BT: Array, past: Array, future: Array) -> Array:
    """``past`` on the clean frames and ``future`` on the others, both BTHWC."""
    return jnp.where(past_BT[:, :, None, None, None], past, future)


def noised(x0_BTHWC: Array, eps_BTHWC: Array, t_B: Array, past_BT: Array, schedule: Schedule) -> Array:
    """Eq. (1): x0 on the past frames, alpha_t x0 + sigma_t eps on the others."""
    alpha, sigma = schedule.alpha_sigma(t_B)
    return select_past(past_BT, x0_BTHWC, alpha * x0_BTHWC + sigma * eps_BTHWC)


def augmented_past(x0_BTHWC: Array, past_BT: Array, level_B: Array, rng: Key) -> Array:
    """x0 with noise of standard deviation ``level_B``, one per window, on its past frames."""
    noise = jax.random.normal(rng, x0_BTHWC.shape) * level_B[:, None, None, None, None]
    return select_past(past_BT, x0_BTHWC + noise, x0_BTHWC)


def future_mean(error_BTHWC: Array, past_BT: Array) -> Array:
    """Eq. (2): the mean of ``error`` over the frames that are not past, fp32 scalar. The past has no gradient."""
    weight_BT = (~past_BT).astype(jnp.float32)
    per_frame_BT = error_BTHWC.astype(jnp.float32).mean((2, 3, 4))
    return (per_frame_BT * weight_BT).sum() / weight_BT.sum()


def clean_past(predictor: Predictor, past_BTHWC: Array, past_BT: Array, masking: Masking) -> Predictor:
    """A Predictor for whole windows whose past frames are reset to ``past_BTHWC`` before every call.

    Args:
        predictor: the network; it sees clean past frames, and the step that ``masking`` says.
        past_BTHWC: a whole window; only the frames that ``past_BT`` marks are read.
    """

    def predict(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
        x = select_past(past_BT, past_BTHWC, x_t_BTHWC)
        return predictor(masking.inputs(x, past_BT), masking.steps(t_B, past_BT), condition)

    return predict
