"""SVG-LP's and LeAP's objective: what each latent sees, the divergence, and how teacher forcing goes on into
rollouts."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tests.models.test_svg_lp import SMALL, config
from vgen_jax.learning.state import divided
from vgen_jax.objectives.variational import (
    MODELS,
    VariationalLoss,
    divergence,
    reduced,
    skip_frames,
    teacher_forced,
    unit_action,
    variational,
)
from vgen_jax.types import Array, VgenError, VideoBatch
from vgen_jax.worlds.leap import watched
from vgen_jax.worlds.leap_networks import LeapNetworks

LOSS = VariationalLoss(1e-3, 1e-4, 1e-4, "mean", 0.0)
FRAMES, WIDTH = 5, SMALL.code
NETWORKS = {model: LeapNetworks(config(model)) for model in MODELS}
TREES = {model: divided(tiny.random_params(network.init)) for model, network in NETWORKS.items()}


def batch(b: int = 2, frames: int = FRAMES + 1) -> VideoBatch:
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (b, frames, SMALL.size, SMALL.size, 3), np.uint8)
    action = rng.uniform(-1, 1, (b, frames, 2)).astype(np.float32)
    return VideoBatch(video, np.broadcast_to(np.arange(frames) < 2, (b, frames)), action_BTA=action)


def test_the_divergence_of_gaussians() -> None:
    rng = np.random.default_rng(0)
    m_q, v_q, m_p, v_p = rng.normal(size=(4, 3, 5))
    np.testing.assert_allclose(divergence((m_q, v_q), (m_q, v_q)), 0.0, atol=1e-7)
    closed = np.log(np.exp(v_p / 2) / np.exp(v_q / 2)) + (np.exp(v_q) + (m_q - m_p) ** 2) / (2 * np.exp(v_p)) - 0.5
    np.testing.assert_allclose(divergence((m_q, v_q), (m_p, v_p)), closed, rtol=1e-4, atol=1e-6)
    summed, free = dataclasses.replace(LOSS, reduce="sum"), dataclasses.replace(LOSS, reduce="sum", free_bits=10.0)
    np.testing.assert_allclose(reduced(closed, summed), 5 * reduced(closed, LOSS), rtol=1e-5)
    assert (np.asarray(reduced(np.zeros((2, 5)), free)) == 50.0).all()


def influence(model: str, stack: str) -> dict[str, np.ndarray]:
    """Whether codes of frames and actions at each time move the moments of a latent at each step, (steps, times)."""
    networks, sees, params = NETWORKS[model].functions, MODELS[model], TREES[model][0]
    kind = "z" if stack in ("prior", "posterior") else "alpha"

    def moments(h: Array, e: Array) -> Array:
        _, out = teacher_forced(networks, sees, params, h, None if model == "svg_lp" else e, jax.random.key(1))
        return getattr(out, kind)[stack.endswith("prior") and not stack.endswith("posterior")][0][:, 0].sum(-1)

    rng = np.random.default_rng(0)
    h, e = (jnp.asarray(rng.normal(size=(1, FRAMES, width)), jnp.float32) for width in (WIDTH, SMALL.action_code))
    grads = tiny.jit(jax.jacrev(moments, argnums=(0, 1)))(h, e)
    return {name: np.abs(np.asarray(g)).sum((1, 3)) > 0 for name, g in zip("he", grads, strict=True)}


def past(offset: int) -> np.ndarray:
    """True where a time is no later than the step and ``offset``."""
    return np.arange(FRAMES)[None] <= np.arange(FRAMES - 1)[:, None] + offset


@pytest.mark.parametrize("model", MODELS)
def test_priors_never_see_the_future_and_posteriors_do(model: str) -> None:
    nothing = np.zeros((FRAMES - 1, FRAMES), bool)
    prior, posterior = influence(model, "prior"), influence(model, "posterior")
    np.testing.assert_array_equal(prior["h"], past(0))
    # Causal-LeAP's image latent knows no actions; VG-LeAP's sees frame and action as one.
    np.testing.assert_array_equal(prior["e"], past(0) if model == "vg_leap" else nothing)
    next_only = past(1)
    next_only[:, 0] = False  # the posterior's first input is the second frame
    np.testing.assert_array_equal(posterior["h"], next_only)
    np.testing.assert_array_equal(posterior["e"], next_only if model == "vg_leap" else nothing)


def test_the_latent_of_actions_sees_the_frames_of_the_right_branch() -> None:
    """Its prior the prior's z, and so no future frame; its posterior the posterior's, and so the next one."""
    prior, posterior = influence("causal_leap", "action_prior"), influence("causal_leap", "action_posterior")
    np.testing.assert_array_equal(prior["h"], past(0))
    np.testing.assert_array_equal(prior["e"], past(0))
    assert np.diagonal(posterior["h"], 1).all() and np.diagonal(posterior["e"], 1).all()


@pytest.mark.parametrize("model", MODELS)
def test_states_agree_with_a_rollout_while_the_context_lasts(model: str) -> None:
    """The prior's state depends on real frames and actions alone; so it is the same, whoever draws z."""
    networks, (params, stats) = NETWORKS[model].functions, TREES[model]
    video, data = batch().video_BTHWC[:, :FRAMES], batch()
    taken = data.action_BTA[:, 1:FRAMES] if MODELS[model].action else np.zeros((2, FRAMES - 1, 0), np.float32)
    keys = jax.random.split(jax.random.key(0), 2)
    carry, last, _, own = tiny.jit(watched, static_argnums=0)(config(model), params, stats, video, taken, keys)
    x = jnp.asarray(video, jnp.float32) / 127.5 - 1.0
    h = networks.encode(params, stats, x.reshape(-1, *x.shape[2:]), False)[0].reshape(2, FRAMES, -1)
    e = None
    if MODELS[model].action:
        e = networks.encode_action(params, unit_action(jnp.concatenate([taken, jnp.zeros((2, 1, 2))], axis=1)))
    forced, _ = teacher_forced(networks, MODELS[model], params, h, e, jax.random.key(5))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), carry["prior"], forced["prior"])
    np.testing.assert_allclose(last, x[:, -1], atol=1e-6)
    assert own.shape == (2, 2 if MODELS[model].action else 0)


def value_of(model: str, b: int, loss: VariationalLoss = LOSS) -> Any:
    params, stats = TREES[model]
    objective = variational(NETWORKS[model].functions, MODELS[model], 2, loss)
    return tiny.jit(objective)(params, stats, batch(b), jax.random.key(2))


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_the_loss_is_its_weighted_parts(model: str) -> None:
    value, aux, stats = value_of(model, 2)
    total = aux["l1"] + LOSS.beta * aux["kl"]
    if model != "svg_lp":
        total += LOSS.action * aux["action_mse"]
    if model == "causal_leap":
        total += LOSS.action * LOSS.alpha * aux["kl_alpha"]
    np.testing.assert_allclose(value, total, rtol=1e-6)
    assert ("kl_alpha" in aux) == (model == "causal_leap")
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), stats, TREES[model][1])
    assert min(jax.tree.leaves(moved)) > 0, "both the encoder's and the decoder's averages move"


def test_a_batch_of_one_works() -> None:
    value, aux, _ = value_of("causal_leap", 1)
    assert np.isfinite(value) and all(np.isfinite(part) for part in aux.values())


def test_a_window_has_to_leave_something_to_predict() -> None:
    objective = variational(NETWORKS["svg_lp"].functions, MODELS["svg_lp"], 5, LOSS)
    with pytest.raises(VgenError, match="window of 6 frames, 5 of them context"):
        jax.eval_shape(objective, *TREES["svg_lp"], batch(), jax.random.key(0))
    objective = variational(NETWORKS["vg_leap"].functions, MODELS["vg_leap"], 2, LOSS)
    with pytest.raises(VgenError, match="data with actions"):
        without = dataclasses.replace(batch(), action_BTA=None)
        jax.eval_shape(objective, *TREES["vg_leap"], without, jax.random.key(0))


@pytest.mark.parametrize(("back", "frames"), [(1, [0, 1, 2, 2, 2]), (2, [0, 1, 1, 1, 1])])
def test_maps_come_from_the_context(back: int, frames: list[int]) -> None:
    assert skip_frames(5, 3, back).tolist() == frames
