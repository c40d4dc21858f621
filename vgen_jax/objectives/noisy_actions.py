"""Training of the action classifier of noisy frames (AVID §4.1): cross-entropy at a random diffusion step."""

from typing import Protocol

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.objectives.masked_diffusion import ToLatents
from vgen_jax.types import Array, Key, Objective, Params, VgenError, VideoBatch


class Classify(Protocol):
    """(params, noisy frames, their step, clean past frames) -> logits (B, T, A) of the actions that led to them."""

    def __call__(self, params: Params, x_t_BTHWC: Array, t_B: Array, past_BTHWC: Array) -> Array: ...


def log_probability_B(logits_BTA: Array, action_BTA: Array) -> Array:
    """Sum over frames of the log-probability of one-hot actions, (B,)."""
    return (jax.nn.log_softmax(logits_BTA, axis=-1) * action_BTA).sum((1, 2))


def noisy_actions(classify: Classify, to_latents: ToLatents, past: int, schedule: Schedule) -> Objective:
    """The objective; logs the accuracy too, over all steps.

    Args:
        past: clean frames that open a clip.
    """

    def objective(to_latents: ToLatents, params: Params, batch: VideoBatch, rng: Key) -> tuple[Array, dict[str, Array]]:
        if batch.action_BTA is None:
            raise VgenError("an action classifier needs actions: set data.action to 'discrete'")
        k_t, k_eps = jax.random.split(rng)
        video = to_latents(batch.video_BTHWC)
        x0 = video[:, past:]
        t_B = jax.random.randint(k_t, x0.shape[:1], 0, schedule.steps)
        alpha, sigma = schedule.alpha_sigma(t_B)
        x_t = alpha * x0 + sigma * jax.random.normal(k_eps, x0.shape)
        logits = classify(params, x_t, t_B, video[:, :past])
        action_BTA = batch.action_BTA[:, past:]
        loss = -log_probability_B(logits, action_BTA).mean() / x0.shape[1]
        right = (logits.argmax(-1) == action_BTA.argmax(-1)).mean()
        return loss, {"accuracy": right.astype(jnp.float32)}

    return Partial(objective, to_latents)
