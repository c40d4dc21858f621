"""SVG-LP, VG-LeAP and Causal-LeAP: video, and the actions behind it, by latents with a learnt prior.

One recurrent objective. A frame x_t has the code h_t, the action a_t taken at it the code e_t; at step t the model says
x_{t+1} and a_{t+1}. The three models differ in what each recurrent stack is given, which is the table ``MODELS``:

    stack              svg_lp    vg_leap           causal_leap
    prior of z         h_t       h_t, e_t          h_t
    posterior of z     h_{t+1}   h_{t+1}, e_{t+1}  h_{t+1}
    frame              h_t, z    h_t, z            h_t, e_t, z
    prior of alpha                                 e_t, z of the prior
    posterior of alpha                             e_{t+1}, z
    action                       e_t, z            e_t, alpha

While training every step is given real frames and actions, z and alpha come from the posteriors, and all predictions
count, those within the context too. With S steps, sums over steps, means over the batch, over pixels and over A:

    loss = sum |x̂ - x| + beta · sum KL_z + action · sum ((â - a)² + alpha · KL_alpha)

KL is that of the posterior from the prior; ``reduce`` says whether dimensions are averaged (LeAP's public code) or
summed (SVG). With the mean and the published weights the weight of a dimension's KL_alpha is 1.25e-9, far below what
moves Adam: the action prior hardly learns. That is how it was published; ``sum`` is the way to find out.

Actions are told to the networks, and their error is measured, in [0, 1]: (a + 1) / 2 of model units, as published.

A window has one frame more than the model reads: ``action_BTA[t]`` led to frame t, so that a_t stands at t + 1.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vgen_jax.nn.pixels import to_unit
from vgen_jax.types import Array, Key, Params, StatefulObjective, VgenError, VideoBatch

Moments = tuple[Array, Array]  # mean and log-variance
Seen = Mapping[str, Array]  # what a step may show its stacks, by name


@dataclasses.dataclass(frozen=True)
class Sees:
    """What each recurrent stack of a model is given; nothing for a stack that the model does not have.

    Attributes:
        posterior_in_context: while it watches real frames, a rollout draws z from the posterior (SVG) or, as later
            on, from the prior (LeAP).
    """

    prior: tuple[str, ...]
    posterior: tuple[str, ...]
    frame: tuple[str, ...]
    action_prior: tuple[str, ...] = ()
    action_posterior: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    posterior_in_context: bool = False

    @property
    def stacks(self) -> tuple[str, ...]:
        """The stacks that the model has."""
        names = (field.name for field in dataclasses.fields(self))
        return tuple(name for name in names if isinstance(getattr(self, name), tuple) and getattr(self, name))


MODELS = {
    "svg_lp": Sees(("h",), ("next_h",), ("h", "z"), posterior_in_context=True),
    "vg_leap": Sees(("h", "e"), ("next_h", "next_e"), ("h", "z"), action=("e", "z")),
    "causal_leap": Sees(
        ("h",), ("next_h",), ("h", "e", "z"), ("e", "prior_z"), ("next_e", "z"), ("e", "alpha"),
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class VariationalLoss:
    """The weights of the loss; see the module's docstring.

    Attributes:
        beta: of KL_z (LeAP 1e-3 with the mean over dimensions; SVG 1e-4 with their sum).
        action: of all that concerns actions (1e-4).
        alpha: of KL_alpha within that (1e-4).
        reduce: ``mean`` or ``sum`` over the dimensions of a latent.
        free_bits: nats of each dimension's KL that cost the same as none; 0 for off.
    """

    beta: float
    action: float
    alpha: float
    reduce: Literal["mean", "sum"]
    free_bits: float

    def __post_init__(self) -> None:
        if self.reduce not in ("mean", "sum"):
            raise VgenError(f"objective.loss.reduce is '{self.reduce}': use mean or sum")
        for name in ("beta", "action", "alpha", "free_bits"):
            if getattr(self, name) < 0:
                raise VgenError(f"objective.loss.{name} is {getattr(self, name)}: use 0 or more")


class RecurrentNetworks(NamedTuple):
    """A model's networks as functions of its parameters; ``stats`` is the state of batch normalisation.

    Attributes:
        encode: (params, stats, frames in [-1, 1] (F, H, W, 3), train) -> (codes h, maps, stats).
        decode: (params, stats, codes g, maps, train) -> (frames, stats).
        encode_action: (params, actions in [0, 1]) -> codes e.
        decode_action: (params, codes) -> actions.
        advance: (params, stack, its state, input) -> (its state, moments or a code).
        carry: (stack, batch) -> the state in which a clip begins.
        latent, action_latent: widths of z and alpha.
        skip_back: maps come at the latest from the frame so many before the end of the context.
    """

    encode: Callable[[Params, Any, Array, bool], tuple[Array, Any, Any]]
    decode: Callable[[Params, Any, Array, Any, bool], tuple[Array, Any]]
    encode_action: Callable[[Params, Array], Array]
    decode_action: Callable[[Params, Array], Array]
    advance: Callable[[Params, str, Any, Array], tuple[Any, Any]]
    carry: Callable[[str, int], Any]
    latent: int
    action_latent: int
    skip_back: int


class StepOutput(NamedTuple):
    """What a step gives.

    Attributes:
        frame: the code g of the next frame.
        action: the code of the next action; ``None`` without actions.
        z, alpha: (posterior, prior) of the latents; ``None`` where there was no posterior, or there is no such latent.
    """

    frame: Array
    action: Array | None
    z: tuple[Moments, Moments] | None
    alpha: tuple[Moments, Moments] | None


def unit_action(action: Array) -> Array:
    """Actions in model units as the networks are told them."""
    return (action + 1.0) / 2.0


def model_action(action: Array) -> Array:
    """The inverse of ``unit_action``."""
    return 2.0 * action - 1.0


def divergence(posterior: Moments, prior: Moments) -> Array:
    """KL(posterior ‖ prior) of every dimension of two diagonal Gaussians given as mean and log-variance, in nats."""
    (m_q, v_q), (m_p, v_p) = posterior, prior
    return 0.5 * (v_p - v_q + jnp.exp(v_q - v_p) + (m_q - m_p) ** 2 * jnp.exp(-v_p) - 1.0)


def reduced(kl: Array, loss: VariationalLoss) -> Array:
    """A latent's KL (…, D) as a number (…)."""
    kl = jnp.maximum(kl, loss.free_bits) if loss.free_bits else kl
    return kl.mean(-1) if loss.reduce == "mean" else kl.sum(-1)


def drawn(moments: Moments, noise: Array) -> Array:
    """A sample."""
    return moments[0] + jnp.exp(0.5 * moments[1]) * noise


def noise_widths(networks: RecurrentNetworks, sees: Sees) -> dict[str, int]:
    """The standard normal numbers that a step takes, by name: (B, width) each."""
    widths = {"z": networks.latent}
    if sees.action_prior:
        widths |= {"prior_z": networks.latent, "alpha": networks.action_latent}
    return widths


def model_step(
    networks: RecurrentNetworks, sees: Sees, params: Params, carry: Mapping[str, Any], seen: Seen, noise: Seen,
    informed: bool,
) -> tuple[dict[str, Any], StepOutput]:  # fmt: skip
    """One step of all stacks.

    Args:
        carry: the state of every stack of ``sees``.
        seen: ``h`` and ``e``; with ``informed`` ``next_h`` and ``next_e`` as well. Without actions no ``e``.
        noise: see ``noise_widths``.
        informed: latents come from the posteriors, which see the next frame and action; else from the priors. The
            states of the posteriors then stay as they are.
    """
    carry, seen = dict(carry), dict(seen)

    def advance(stack: str) -> Any:
        given = jnp.concatenate([seen[name] for name in getattr(sees, stack)], axis=-1)
        carry[stack], out = networks.advance(params, stack, carry[stack], given)
        return out

    prior = advance("prior")
    posterior = advance("posterior") if informed else prior
    seen["z"] = drawn(posterior, noise["z"])
    of_z, of_alpha = ((posterior, prior) if informed else None), None
    if sees.action_prior:
        # Without a posterior there is one z, and the action prior sees that one.
        seen["prior_z"] = drawn(prior, noise["prior_z"]) if informed else seen["z"]
        action_prior = advance("action_prior")
        action_posterior = advance("action_posterior") if informed else action_prior
        seen["alpha"] = drawn(action_posterior, noise["alpha"])
        of_alpha = (action_posterior, action_prior) if informed else None
    action = advance("action") if sees.action else None
    return carry, StepOutput(advance("frame"), action, of_z, of_alpha)


def teacher_forced(
    networks: RecurrentNetworks, sees: Sees, params: Params, h_BTD: Array, e_BTD: Array | None, rng: Key
) -> tuple[dict[str, Any], StepOutput]:
    """All steps of clips of real frames, informed, as one scan.

    Returns:
        The stacks' states after the last step, and what the steps gave, steps first.
    """
    batch, frames = h_BTD.shape[:2]
    codes = {"h": h_BTD} if e_BTD is None else {"h": h_BTD, "e": e_BTD}
    steps_first = {name: jnp.swapaxes(code, 0, 1) for name, code in codes.items()}
    seen = {name: code[:-1] for name, code in steps_first.items()}
    seen |= {f"next_{name}": code[1:] for name, code in steps_first.items()}
    widths = noise_widths(networks, sees)
    keys = dict(zip(widths, jax.random.split(rng, len(widths)), strict=True))
    noise = {name: jax.random.normal(keys[name], (frames - 1, batch, width)) for name, width in widths.items()}

    def step(carry: dict[str, Any], inputs: tuple[Seen, Seen]) -> tuple[dict[str, Any], StepOutput]:
        return model_step(networks, sees, params, carry, *inputs, informed=True)

    return jax.lax.scan(step, first_carry(networks, sees, batch), (seen, noise))


def first_carry(networks: RecurrentNetworks, sees: Sees, batch: int) -> dict[str, Any]:
    """The state of every stack at the beginning of a clip."""
    return {stack: networks.carry(stack, batch) for stack in sees.stacks}


def skip_frames(steps: int, past: int, skip_back: int) -> Array:
    """The frame whose maps each step's decoder is given: its own one, but none after ``past - skip_back``."""
    return jnp.minimum(jnp.arange(steps), max(0, past - skip_back))


def variational(
    networks: RecurrentNetworks, sees: Sees, past: int, loss: VariationalLoss
) -> StatefulObjective:  # fmt: skip
    """The objective; its model state is the state of batch normalisation.

    Args:
        past: frames of the context; they decide where the decoder's maps come from.

    Raises:
        VgenError: for windows that leave nothing to predict, or without the actions that the model predicts.
    """

    def objective(
        params: Params, model_state: Any, batch: VideoBatch, rng: Key
    ) -> tuple[Array, dict[str, Array], Any]:  # fmt: skip
        if batch.video_BTHWC.shape[1] < past + 2:
            raise VgenError(
                f"config key data.windows has a window of {batch.video_BTHWC.shape[1]} frames, {past} of them context: "
                "use two more, one to predict and one that the last action leads to"
            )
        if sees.action and batch.action_BTA is None:
            raise VgenError("a model that predicts actions is trained on data with actions: set data.action")
        x = to_unit(batch.video_BTHWC[:, :-1])
        b, frames = x.shape[:2]
        h_FD, maps, model_state = networks.encode(params, model_state, x.reshape(b * frames, *x.shape[2:]), True)
        a_BTA = unit_action(jnp.asarray(batch.action_BTA)[:, 1:]) if sees.action else None
        e_BTD = None if a_BTA is None else networks.encode_action(params, a_BTA)
        _, out = teacher_forced(networks, sees, params, h_FD.reshape(b, frames, -1), e_BTD, rng)
        skips = skip_frames(frames - 1, past, networks.skip_back)
        maps = jax.tree.map(lambda m: by_steps(m, b, skips), maps)
        g_FD = jnp.swapaxes(out.frame, 0, 1).reshape(b * (frames - 1), -1)
        decoded, model_state = networks.decode(params, model_state, g_FD, maps, True)
        error = decoded.reshape(b, frames - 1, *x.shape[2:]) - x[:, 1:]
        total = lambda per_SB: per_SB.sum(0).mean()  # noqa: E731  (over steps and batch)
        assert out.z is not None
        aux = {
            "l1": jnp.abs(error).mean((2, 3, 4)).sum(1).mean(),
            "kl": total(reduced(divergence(*out.z), loss)),
            "psnr": 10.0 * jnp.log10(4.0 / (error[:, past - 1 :] ** 2).mean()),
        }
        value = aux["l1"] + loss.beta * aux["kl"]
        if out.action is not None and a_BTA is not None:
            wanted_SBA = jnp.swapaxes(a_BTA, 0, 1)[1:]
            aux["action_mse"] = total(((networks.decode_action(params, out.action) - wanted_SBA) ** 2).mean(-1))
            value = value + loss.action * aux["action_mse"]
        if out.alpha is not None:
            aux["kl_alpha"] = total(reduced(divergence(*out.alpha), loss))
            value = value + loss.action * loss.alpha * aux["kl_alpha"]
        return value, aux, model_state

    return Partial(objective)


def by_steps(map_FHWC: Array, batch: int, frames_S: Array) -> Array:
    """The map of frame ``frames_S[s]`` for step s of each clip, (B·S, h, w, C), clip by clip."""
    map_BTHWC = map_FHWC.reshape(batch, -1, *map_FHWC.shape[1:])
    taken = jnp.take(map_BTHWC, frames_S, axis=1)
    return taken.reshape(-1, *map_FHWC.shape[1:])
