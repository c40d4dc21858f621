"""Slow learning: the loss of masked conditional video diffusion, SlowFast-VGen eq. (1) and (2).

One diffusion step t per window, the past clean, the loss on the future frames only. The loss is the squared error of
whatever the network predicts (``eps``: eq. (2) as printed; the others: the same with another target). ``eps_loss``
is always reported beside it, in the units of eq. (2). Conditions are dropped per sample for classifier-free guidance.

Three options go beyond the paper. ``weighting = "velocity"`` counts the error as one of flow matching's velocity: an
x_0 is predicted, which a narrow network can, and weighed as 1 / max(s, 0.1)² (Li and He 2025, "Back to Basics: Let
Denoising Generative Models Denoise"). ``draw = "noisy"`` draws the flow time s half of the time as 1 - u², u uniform,
and half as sigmoid(N(0.8, 1.2²)) (Esser et al. 2024, with a shift towards noise): what a scene is like is decided at
the noisiest steps, which a logit-normal alone hardly draws. ``flow`` adds a loss of the movement itself, for networks
that move a reference: the mean of |moved - x_0| where the reference shows what is seen.

Eq. (3), fast learning, is the same without a clean past: every frame is noised at t, told to be at t, and counts.
"""

import dataclasses
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vgen_jax.config import later
from vgen_jax.diffusion import masking as masks
from vgen_jax.diffusion import prediction
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.types import Array, Condition, Key, Moved, Objective, Params, Prediction, VgenError, VideoBatch

LEAST_TIME = 0.1  # the flow time below which the weight of an x_0's error grows no more
LOGIT_MEAN, LOGIT_SPREAD = 0.8, 1.2


class Embed(Protocol):
    """Turns a batch's tokens and actions into a Condition with the trainable parameters (text encoder included)."""

    def __call__(self, params: Params, batch: VideoBatch) -> Condition: ...


class Predict(Protocol):
    """A Predictor whose parameters are an argument."""

    def __call__(self, params: Params, x_t_BTHWC: Array, t: Array, condition: Condition) -> Prediction: ...


class ToLatents(Protocol):
    """Latents of a batch's video: an autoencoder on uint8 frames, or the identity on stored latents."""

    def __call__(self, video_BTHWC: Array) -> Array: ...


@dataclasses.dataclass(frozen=True)
class DiffusionLoss:
    """What the loss depends on besides the networks.

    Attributes:
        kind: what the network predicts: ``eps``, ``x0``, ``v`` or ``velocity``.
        drop_text: probability with which a sample's text is replaced by the empty text.
        drop_action: probability with which a sample's actions are replaced by the learned null action.
        weighting: ``plain``, the error of what is predicted, or ``velocity``.
        draw: how t is drawn, ``uniform`` or ``noisy``.
        flow: weight of the loss of the movement; 0 for none.
    """

    kind: str = "eps"
    drop_text: float = 0.1
    drop_action: float = 0.1
    weighting: Literal["plain", "velocity"] = later("plain")
    draw: Literal["uniform", "noisy"] = later("uniform")
    flow: float = later(0.0)

    def __post_init__(self) -> None:
        prediction.check_kind(self.kind)
        for name, known in (("weighting", ("plain", "velocity")), ("draw", ("uniform", "noisy"))):
            if getattr(self, name) not in known:
                raise VgenError(f"objective.loss.{name} is '{getattr(self, name)}': use {' or '.join(known)}")
        if self.flow < 0:
            raise VgenError(f"objective.loss.flow is {self.flow}: use a weight of 0 or more")
        for name in ("drop_text", "drop_action"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise VgenError(f"objective.{name} is {getattr(self, name)}: use a probability in [0, 1]")


def without_text(token_BL: Array, drop_B: Array) -> Array:
    """Tokens with the empty text (its end mark alone) where ``drop_B``."""
    empty_L = jnp.zeros(token_BL.shape[1:], token_BL.dtype).at[0].set(1)
    return jnp.where(drop_B[:, None], empty_L, token_BL)


def dropped(batch: VideoBatch, loss: DiffusionLoss, rng: Key) -> VideoBatch:
    """The batch with conditions dropped at random, text and actions independently."""
    k_text, k_action = jax.random.split(rng)
    samples = batch.past_BT.shape[:1]
    if batch.token_BL is not None:
        drop_B = jax.random.bernoulli(k_text, loss.drop_text, samples)
        batch = dataclasses.replace(batch, token_BL=without_text(batch.token_BL, drop_B))
    if batch.action_valid_BT is not None:
        drop_B = jax.random.bernoulli(k_action, loss.drop_action, samples)
        batch = dataclasses.replace(batch, action_valid_BT=batch.action_valid_BT & ~drop_B[:, None])
    return batch


def drawn_times(samples: int, rng: Key) -> Array:
    """Flow times of the draw ``noisy``, (B,), in (0, 1]."""
    k_choice, k_near, k_all = jax.random.split(rng, 3)
    near_noise_B = 1.0 - jax.random.uniform(k_near, (samples,)) ** 2
    anywhere_B = jax.nn.sigmoid(LOGIT_MEAN + LOGIT_SPREAD * jax.random.normal(k_all, (samples,)))
    return jnp.where(jax.random.bernoulli(k_choice, 0.5, (samples,)), near_noise_B, anywhere_B)


def drawn_steps(loss: DiffusionLoss, schedule: Schedule, t_range: tuple[float, float], samples: int, rng: Key) -> Array:
    """Diffusion steps, int32, (B,)."""
    first, end = (round(part * schedule.steps) for part in t_range)
    if loss.draw == "uniform":
        return jax.random.randint(rng, (samples,), first, end)
    # The noise is s / (1 - s) times as strong as x_0 at flow time s, on any schedule.
    time_B = drawn_times(samples, rng)
    return jnp.clip(schedule.step_of_noise(time_B / (1.0 - time_B)), first, end - 1)


def movement_error(moved: Moved | None, x0_BTHWC: Array, past_BT: Array) -> Array:
    """The mean of |moved - x_0| over what the reference shows of the future frames, a scalar."""
    if moved is None:
        raise VgenError("objective.loss.flow needs a network that moves a reference: set slow.warp, or the weight to 0")
    weight = moved.inside_BTHW1 * (~past_BT)[:, :, None, None, None]
    error = (weight * jnp.abs(moved.frames_BTHWC - x0_BTHWC)).sum() / x0_BTHWC.shape[-1]
    return error / jnp.maximum(weight.sum(), 1.0)


def masked_diffusion(
    embed: Embed,
    predict: Predict,
    to_latents: ToLatents,
    schedule: Schedule,
    masking: masks.Masking,
    loss: DiffusionLoss,
    clean_past: bool = True,
    t_range: tuple[float, float] = (0.0, 1.0),
) -> Objective:
    """The objective of slow learning, or without ``clean_past`` that of fast learning.

    Args:
        to_latents: a pytree (``Partial``) that holds the frozen autoencoder, if there is one.
        clean_past: False noises the past as well and counts its error. ``past_BT`` then says only which frame a network
            with ``masking.reference`` sees beside the others: the one it sees when sampling, as noisy as the rest.
        t_range: t is uniform in this part of the schedule, 0 its cleanest step and 1 its end.

    Raises:
        VgenError: for an ``eps`` network on a schedule with zero terminal SNR, whose last step says nothing of x_0.
    """
    if loss.kind == "eps" and schedule.ends_in_noise:
        raise VgenError(
            "objective.kind 'eps' cannot be sampled with schedule.zero_terminal_snr or schedule.kind 'flow': "
            "use 'v', 'x0' or 'velocity'"
        )

    def objective(to_latents: ToLatents, params: Params, batch: VideoBatch, rng: Key) -> tuple[Array, dict[str, Array]]:
        k_t, k_eps, k_drop, k_past = jax.random.split(rng, 4)
        x0 = jax.lax.stop_gradient(to_latents(batch.video_BTHWC))
        t_B = drawn_steps(loss, schedule, t_range, x0.shape[0], k_t)
        eps = jax.random.normal(k_eps, x0.shape)
        clean_BT = batch.past_BT if clean_past else jnp.zeros_like(batch.past_BT)
        x_t = masks.noised(x0, eps, t_B, clean_BT, schedule)
        past_t_B = None
        if masking.augment_past:
            k_level, k_noise = jax.random.split(k_past)
            level_B = masking.past_levels(x0.shape[0], k_level)
            x_t, past_t_B = masks.augmented_past(x_t, clean_BT, level_B, k_noise), schedule.step_of_noise(level_B)
        condition = embed(params, dropped(batch, loss, k_drop))
        steps = masking.steps(t_B, clean_BT, past_t_B)
        predicted = predict(params, masking.inputs(x_t, batch.past_BT), steps, condition)
        alpha, sigma = schedule.alpha_sigma(t_B)
        wanted = prediction.target(predicted.kind, x0, eps, alpha, sigma)
        error = (predicted.value - wanted) ** 2
        if loss.weighting == "velocity":
            error = error * prediction.velocity_weight(predicted.kind, alpha, sigma, LEAST_TIME)
        value = masks.future_mean(error, clean_BT)
        eps_error = (prediction.to_eps(predicted, x_t, alpha, sigma) - eps) ** 2
        aux = {"eps_loss": masks.future_mean(jax.lax.stop_gradient(eps_error), clean_BT)}
        if loss.flow:
            aux["flow_loss"] = movement_error(predicted.moved, x0, clean_BT)
            value = value + loss.flow * aux["flow_loss"]
        return value, aux

    return Partial(objective, to_latents)
