"""Slow learning: the loss of masked conditional video diffusion, SlowFast-VGen eq. (1) and (2).

One diffusion step t per window, the past clean, the loss on the future frames only. The loss is the squared error of
whatever the network predicts (``eps``: eq. (2) as printed; ``v``, ``x0``: the same with another target). ``eps_loss``
is always reported beside it, in the units of eq. (2). Conditions are dropped per sample for classifier-free guidance.

Eq. (3), fast learning, is the same without a clean past: every frame is noised at t, told to be at t, and counts.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vgen_jax.diffusion import masking as masks
from vgen_jax.diffusion import prediction
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.types import Array, Condition, Key, Objective, Params, Prediction, VgenError, VideoBatch


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
        kind: what the network predicts: ``eps``, ``x0`` or ``v``.
        drop_text: probability with which a sample's text is replaced by the empty text.
        drop_action: probability with which a sample's actions are replaced by the learned null action.
    """

    kind: str = "eps"
    drop_text: float = 0.1
    drop_action: float = 0.1

    def __post_init__(self) -> None:
        prediction.check_kind(self.kind)
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
    if loss.kind == "eps" and schedule.zero_terminal_snr:
        raise VgenError("objective.kind 'eps' cannot be sampled with schedule.zero_terminal_snr: use 'v' or 'x0'")

    t_first, t_end = (round(part * schedule.steps) for part in t_range)

    def objective(to_latents: ToLatents, params: Params, batch: VideoBatch, rng: Key) -> tuple[Array, dict[str, Array]]:
        k_t, k_eps, k_drop, k_past = jax.random.split(rng, 4)
        x0 = jax.lax.stop_gradient(to_latents(batch.video_BTHWC))
        t_B = jax.random.randint(k_t, x0.shape[:1], t_first, t_end)
        eps = jax.random.normal(k_eps, x0.shape)
        clean_BT = batch.past_BT if clean_past else jnp.zeros_like(batch.past_BT)
        x_t = masks.noised(x0, eps, t_B, clean_BT, schedule)
        if masking.augment_past:
            x_t = masks.augmented_past(x_t, clean_BT, masking.augment_past, k_past)
        condition = embed(params, dropped(batch, loss, k_drop))
        predicted = predict(params, masking.inputs(x_t, batch.past_BT), masking.steps(t_B, clean_BT), condition)
        alpha, sigma = schedule.alpha_sigma(t_B)
        wanted = prediction.target(predicted.kind, x0, eps, alpha, sigma)
        value = masks.future_mean((predicted.value - wanted) ** 2, clean_BT)
        eps_error = (prediction.to_eps(predicted, x_t, alpha, sigma) - eps) ** 2
        return value, {"eps_loss": masks.future_mean(jax.lax.stop_gradient(eps_error), clean_BT)}

    return Partial(objective, to_latents)
