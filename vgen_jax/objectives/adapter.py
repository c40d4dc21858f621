"""The denoising loss of AVID (§2 eq. 3, §3.3 eq. 6): base models, adapters and all baselines are trained by it.

Clean past frames stand in the condition; every frame that follows is noised at one step t per clip and counts. The loss
is the squared error of eps: an x0 prediction's error is weighted by the signal-to-noise ratio, unclipped, a v
prediction's by ᾱ. ``weight = "none"`` leaves the error as it is (latent models with v).
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vgen_jax.diffusion import prediction
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.objectives.masked_diffusion import Predict, ToLatents
from vgen_jax.types import Array, Condition, Key, Objective, Params, VgenError, VideoBatch


@dataclasses.dataclass(frozen=True)
class AdapterLoss:
    """What the loss depends on besides the networks.

    Attributes:
        weight: ``eps`` or ``none``; see the module's docstring.
        drop_action: probability with which a clip's actions are replaced by the null action (AVID: 0.2 for action
            classifier-free guidance, else 0).
    """

    weight: Literal["eps", "none"]
    drop_action: float

    def __post_init__(self) -> None:
        if self.weight not in ("eps", "none"):
            raise VgenError(f"objective.loss.weight '{self.weight}' is unknown: use 'eps' or 'none'")
        if not 0.0 <= self.drop_action <= 1.0:
            raise VgenError(f"objective.loss.drop_action is {self.drop_action}: use a probability in [0, 1]")


def future_condition(batch: VideoBatch, past_BTHWC: Array) -> Condition:
    """The condition of the frames after ``past_BTHWC``: the past, the text, the actions that led to each of them."""
    past = past_BTHWC.shape[1]
    condition = Condition(past_BTHWC=past_BTHWC, token_BL=batch.token_BL)
    if batch.action_BTA is None:
        return condition
    valid = None if batch.action_valid_BT is None else batch.action_valid_BT[:, past:]
    return dataclasses.replace(condition, action_BTA=batch.action_BTA[:, past:], action_valid_BT=valid)


def dropped_actions(condition: Condition, probability: float, rng: Key) -> Condition:
    """The condition with whole clips' actions left out at random."""
    if condition.action_BTA is None or not probability:
        return condition
    shape = condition.action_BTA.shape[:2]
    valid = jnp.ones(shape, bool) if condition.action_valid_BT is None else condition.action_valid_BT
    kept = jax.random.bernoulli(rng, 1.0 - probability, (shape[0], 1))
    return dataclasses.replace(condition, action_valid_BT=valid & kept)


def adapter(predict: Predict, to_latents: ToLatents, past: int, schedule: Schedule, loss: AdapterLoss) -> Objective:
    """The objective.

    Args:
        predict: (params, x_t, t, condition) -> Prediction; a pytree (``Partial``) that holds whatever is frozen.
        to_latents: a pytree: frames to what is denoised.
        past: clean frames that open a clip.
    """

    def objective(
        frozen: tuple[Predict, ToLatents], params: Params, batch: VideoBatch, rng: Key
    ) -> tuple[Array, dict[str, Array]]:
        predict, to_latents = frozen
        k_t, k_eps, k_drop = jax.random.split(rng, 3)
        video = jax.lax.stop_gradient(to_latents(batch.video_BTHWC))
        x0 = video[:, past:]
        condition = dropped_actions(future_condition(batch, video[:, :past]), loss.drop_action, k_drop)
        t_B = jax.random.randint(k_t, x0.shape[:1], 0, schedule.steps)
        eps = jax.random.normal(k_eps, x0.shape)
        alpha, sigma = schedule.alpha_sigma(t_B)
        predicted = predict(params, alpha * x0 + sigma * eps, t_B, condition)
        wanted = prediction.target(predicted.kind, x0, eps, alpha, sigma)
        error_B = ((predicted.value.astype(jnp.float32) - wanted) ** 2).mean((1, 2, 3, 4))
        eps_error_B = error_B * prediction.eps_weight(predicted.kind, alpha, sigma).reshape(-1)
        value = (eps_error_B if loss.weight == "eps" else error_B).mean()
        return value, {"eps_loss": eps_error_B.mean(), "error": error_B.mean()}

    return Partial(objective, (predict, to_latents))
