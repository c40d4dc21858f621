"""RIVER (Davtyan et al. 2023) and RAFI: flow matching of one frame at a time, given the last and any earlier one.

A state is what stands for a frame: its latent (RIVER), or its latent and, tiled over its places, the action taken at it
(RAFI), in model units. Of a clip of T states one is made, tau uniform in [2, T - 1], from the one before it and one
context frame, uniform in [0, tau - 2]. With eps a standard normal and s uniform in (0, 1] (``diffusion.solvers``)

    x_s = (1 - s) x_0 + (sigma + (1 - sigma) s) eps,      loss = mean |network - ((1 - sigma) eps - x_0)|²

over all channels alike. The papers have t = 1 - s and the velocity's other sign. The action of a state is
the one taken at its frame, as for LeAP, so that a window has one frame more than the model reads. Whether the published
actions are in [0, 1] or in [-1, 1] is not known: ours are in model units.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vgen_jax.diffusion.solvers import noised, velocity
from vgen_jax.objectives.masked_diffusion import ToLatents
from vgen_jax.types import Array, Key, Objective, Params, VgenError, VideoBatch


class Regress(Protocol):
    """The velocity network as a function of its parameters (``models.uvit.UViT``); ``rng`` while training."""

    def __call__(
        self, params: Params, x_BHWC: Array, s_B: Array, reference_BHWC: Array, context_BHWC: Array, distance_B: Array,
        rng: Key | None,
    ) -> Array: ...  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FlowLoss:
    """The loss.

    Attributes:
        sigma: the width of the noise that is left at the data (1e-7).
    """

    sigma: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.sigma < 1.0:
            raise VgenError(f"objective.loss.sigma is {self.sigma}: use a width in [0, 1)")


def states(latent_BTHWC: Array, action_BTA: Array | None) -> Array:
    """Latents, with the actions taken at their frames tiled on further channels."""
    if action_BTA is None:
        return latent_BTHWC
    tiled = jnp.asarray(action_BTA, jnp.float32)[:, :, None, None]
    shape = (*latent_BTHWC.shape[:4], tiled.shape[-1])
    return jnp.concatenate([latent_BTHWC, jnp.broadcast_to(tiled, shape)], axis=-1)


def parts(state: Array, actions: int) -> tuple[Array, Array]:
    """The latents (…, h, w, C) and the actions (…, A) of states: the mean over the places."""
    channels = state.shape[-1] - actions
    return state[..., :channels], state[..., channels:].mean((-3, -2))


def flow_matching(regress: Regress, to_latents: ToLatents, actions: int, loss: FlowLoss) -> Objective:
    """The objective.

    Args:
        regress: the network.
        to_latents: a pytree: frames to latents; the identity on stored latents.
        actions: A of the states; 0 for states without actions.

    Raises:
        VgenError: for windows of fewer than four frames, or without the actions that the states have.
    """

    def objective(to_latents: ToLatents, params: Params, batch: VideoBatch, rng: Key) -> tuple[Array, dict[str, Array]]:
        if batch.video_BTHWC.shape[1] < 4:
            raise VgenError("config key data.windows has windows of fewer than 4 frames: use 4 or more")
        if actions and batch.action_BTA is None:
            raise VgenError("a model that predicts actions is trained on data with actions: set data.action")
        k_frame, k_context, k_time, k_eps, k_drop = jax.random.split(rng, 5)
        latents = jax.lax.stop_gradient(to_latents(batch.video_BTHWC[:, :-1]))
        clip = states(latents, jnp.asarray(batch.action_BTA)[:, 1:] if actions else None)
        b, frames = clip.shape[:2]
        tau_B = jax.random.randint(k_frame, (b,), 2, frames)
        context_B = jnp.floor(jax.random.uniform(k_context, (b,)) * (tau_B - 1)).astype(jnp.int32)
        at = lambda number_B: clip[jnp.arange(b), number_B]  # noqa: E731
        x_0, s_B = at(tau_B), 1.0 - jax.random.uniform(k_time, (b,))
        eps = jax.random.normal(k_eps, x_0.shape)
        found = regress(
            params, noised(x_0, eps, s_B, loss.sigma), s_B, at(tau_B - 1), at(context_B), tau_B - context_B, k_drop
        )  # fmt: skip
        error = (found - velocity(x_0, eps, loss.sigma)) ** 2
        aux = {"latent_error": error[..., : latents.shape[-1]].mean()}
        if actions:
            aux["action_error"] = error[..., latents.shape[-1] :].mean()
        return error.mean(), aux

    return Partial(objective, to_latents)
