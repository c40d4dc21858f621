"""The objective of slow learning, on toy networks whose inputs can be looked at."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tests import tiny
from vgen_jax.diffusion import prediction
from vgen_jax.diffusion.masking import Masking
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.objectives.masked_diffusion import DiffusionLoss, drawn_steps, drawn_times, dropped, masked_diffusion
from vgen_jax.types import Array, Condition, Moved, Objective, Prediction, VgenError, VideoBatch

SCHEDULE = Schedule("cosine", 50)
PAPER = Masking()
NO_DROP = DiffusionLoss("v", 0.0, 0.0)


class Seen(NamedTuple):
    """What the network was called with."""

    x_t: Array
    t: Array
    condition: Condition


def recording(
    kind: str, masking: Masking = PAPER, loss: DiffusionLoss | None = None, clean_past: bool = True
) -> tuple[Objective, list[Seen]]:
    """The objective of a network that outputs its parameters; it must not be jitted."""
    calls: list[Seen] = []

    def predict(params: Array, x_t: Array, t: Array, condition: Condition) -> Prediction:
        calls.append(Seen(x_t, t, condition))
        return Prediction(params, kind)

    def embed(params: Array, batch: VideoBatch) -> Condition:
        return Condition(batch.token_BL, None, batch.action_BTA, batch.action_valid_BT)

    loss = loss or DiffusionLoss(kind, 0.0, 0.0)
    return masked_diffusion(embed, predict, lambda video: video, SCHEDULE, masking, loss, clean_past), calls


@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
def test_the_loss_is_what_numpy_says(kind: str, rng: Array) -> None:
    batch = tiny.latent_batch(b=3, past=1, future=2)
    objective, calls = recording(kind)
    output = jax.random.normal(rng, batch.video_BTHWC.shape)
    value, aux = objective(output, batch, rng)
    x0, out, past = (np.asarray(a) for a in (batch.video_BTHWC, output, batch.past_BT))
    x_t, t = np.asarray(calls[0].x_t), np.asarray(calls[0].t)
    np.testing.assert_array_equal(x_t[past], x0[past])
    alpha_bar = SCHEDULE.alpha_bar()[t].reshape(3, 1, 1, 1, 1)
    alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    eps = (x_t - alpha * x0) / sigma
    wanted = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0}[kind]
    told = {"eps": out, "x0": (x_t - alpha * out) / sigma, "v": sigma * x_t + alpha * out}[kind]
    np.testing.assert_allclose(value, ((out - wanted) ** 2)[~past].mean(), rtol=1e-3)
    np.testing.assert_allclose(aux["eps_loss"], ((told - eps) ** 2)[~past].mean(), rtol=1e-3)
    assert abs(eps[~past].std() - 1) < 0.15 and len(set(t.tolist())) > 1


@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
@pytest.mark.parametrize("augment_past", [0.0, 0.5])
def test_the_past_has_no_gradient(kind: str, augment_past: float, rng: Array) -> None:
    batch = tiny.latent_batch()
    objective, _ = recording(kind, Masking(augment_past=augment_past))
    grad = jax.grad(lambda out: objective(out, batch, rng)[0])(jnp.ones(batch.video_BTHWC.shape))
    past = np.asarray(batch.past_BT)
    assert (np.asarray(grad)[past] == 0.0).all() and (np.asarray(grad)[~past] != 0.0).all()


def test_the_past_frames_are_no_target(rng: Array) -> None:
    """Other past frames, seen by a network that does not look at them, leave the loss as it is, bit for bit."""
    batch = tiny.latent_batch()
    other = batch.replace(video_BTHWC=jnp.where(batch.past_BT[:, :, None, None, None], 7.0, batch.video_BTHWC))
    objective, _ = recording("v")
    output = jnp.ones(batch.video_BTHWC.shape)
    assert objective(output, batch, rng)[0] == objective(output, other, rng)[0]


def test_the_autoencoder_gets_no_gradient(rng: Array) -> None:
    batch = tiny.latent_batch()
    embed = lambda params, batch: Condition()  # noqa: E731
    predict = lambda params, x_t, t, condition: Prediction(params * x_t, "v")  # noqa: E731

    def loss(scale: Array) -> Array:
        objective = masked_diffusion(embed, predict, lambda video: scale * video, SCHEDULE, Masking(), NO_DROP)
        return objective(jnp.ones(()), batch, rng)[0]

    assert jax.grad(loss)(jnp.ones(())) == 0.0


def test_noisy_draws_are_the_mixture_that_is_promised(rng: Array) -> None:
    """Half 1 - u²: P(s > 1 - h) = sqrt(h); half a logit-normal around 0.8."""
    s = np.asarray(drawn_times(200_000, rng), np.float64)
    assert s.min() > 0 and s.max() <= 1
    logit = scipy.stats.norm(0.8, 1.2)
    for high in (0.05, 0.3, 0.7):
        below = logit.cdf(np.log((1 - high) / high))
        np.testing.assert_allclose((s > 1 - high).mean(), 0.5 * np.sqrt(high) + 0.5 * (1 - below), atol=5e-3)


def test_noisy_steps_are_as_noisy_on_any_schedule(rng: Array) -> None:
    time = np.asarray(drawn_times(4096, rng))
    for schedule in (Schedule("flow", 1000), Schedule("cosine", 1000)):
        t = np.asarray(drawn_steps(DiffusionLoss("x0", draw="noisy"), schedule, (0.0, 1.0), 4096, rng))
        assert t.min() >= 0 and t.max() <= 999
        alpha_bar = schedule.alpha_bar()[t]
        alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
        np.testing.assert_allclose(sigma / (alpha + sigma), time, atol=0.02)


def test_the_velocity_weight_makes_an_x0_error_one_of_the_velocity(rng: Array) -> None:
    batch = tiny.latent_batch(b=16)
    out = jax.random.normal(rng, batch.video_BTHWC.shape)
    objective, calls = recording("x0", loss=DiffusionLoss("x0", 0.0, 0.0, "velocity"))
    value, _ = objective(out, batch, rng)
    alpha, sigma = SCHEDULE.alpha_sigma(calls[0].t)
    x_t, x0, future = calls[0].x_t, batch.video_BTHWC, ~np.asarray(batch.past_BT)
    s = np.asarray(sigma / (alpha + sigma))
    velocity = prediction.target("velocity", x0, (x_t - alpha * x0) / sigma, alpha, sigma)
    error = np.asarray(prediction.to_velocity(Prediction(out, "x0"), x_t, alpha, sigma) - velocity)
    wanted = (error**2 * np.minimum(1.0, (s / 0.1) ** 2))[future].mean()
    np.testing.assert_allclose(value, wanted, rtol=1e-3)


def test_the_movement_is_judged_where_the_reference_shows_it(rng: Array) -> None:
    batch = tiny.latent_batch()
    shown = jnp.zeros((*batch.video_BTHWC.shape[:-1], 1)).at[:, :, :4].set(1.0)
    embed = lambda params, batch: Condition()  # noqa: E731

    def predict(params: Array, x_t: Array, t: Array, condition: Condition) -> Prediction:
        return Prediction(jax.lax.stop_gradient(params), "x0", Moved(params, shown))

    def loss(out: Array, flow: float) -> tuple[Array, dict[str, Array]]:
        settings = DiffusionLoss("x0", 0.0, 0.0, flow=flow)
        return masked_diffusion(embed, predict, lambda video: video, SCHEDULE, Masking(), settings)(out, batch, rng)

    out = batch.video_BTHWC + 0.3 * jnp.where(shown > 0, 1.0, 7.0)
    (plain, _), (value, aux) = loss(out, 0.0), loss(out, 0.5)
    np.testing.assert_allclose([aux["flow_loss"], value - plain], [0.3, 0.15], rtol=1e-3)
    grad = np.asarray(jax.grad(lambda out: loss(out, 0.5)[0])(out))
    counted = np.asarray(~batch.past_BT[:, :, None, None, None] & (shown > 0)) & np.ones(grad.shape, bool)
    assert (grad[counted] != 0).all() and (grad[~counted] == 0).all()
    objective, _ = recording("x0", loss=DiffusionLoss("x0", flow=0.5))
    with pytest.raises(VgenError, match="objective.loss.flow.*slow.warp"):
        objective(out, batch, rng)


def test_the_network_is_told_how_noisy_the_past_is(rng: Array) -> None:
    batch = tiny.latent_batch(b=64, size=16)
    objective, calls = recording("x0", Masking("level", 0.8))
    objective(jnp.zeros(batch.video_BTHWC.shape), batch, rng)
    past_t = np.asarray(calls[0].t)[:, 0]
    spread = np.asarray(calls[0].x_t - batch.video_BTHWC)[:, :2].std((1, 2, 3, 4))
    assert (past_t == 0).any() and (spread[past_t == 0] < 0.2).all()
    alpha_bar = SCHEDULE.alpha_bar()[past_t]
    np.testing.assert_allclose(spread[past_t > 0], np.sqrt((1 - alpha_bar) / alpha_bar)[past_t > 0], atol=0.06)


@pytest.mark.parametrize("past_t", ["shared", "zero"])
def test_one_step_per_window(past_t: str, rng: Array) -> None:
    batch = tiny.latent_batch(b=16)
    objective, calls = recording("v", Masking(past_t))
    objective(jnp.zeros(batch.video_BTHWC.shape), batch, rng)
    told = np.asarray(calls[0].t)
    if past_t == "shared":
        assert told.shape == (16,)
    else:
        assert (told[:, :2] == 0).all() and (told[:, 2] == told[:, 3]).all()
    assert told.max() < 50 and len(np.unique(told)) > 5


def test_augmented_past_is_noisy_and_the_future_is_not_changed_by_it(rng: Array) -> None:
    batch = tiny.latent_batch()
    seen = []
    for level in (0.0, 0.5):
        objective, calls = recording("v", Masking(augment_past=level))
        objective(jnp.zeros(batch.video_BTHWC.shape), batch, rng)
        seen.append(np.asarray(calls[0].x_t))
    assert (seen[0][:, :2] != seen[1][:, :2]).all()
    np.testing.assert_array_equal(seen[0][:, 2:], seen[1][:, 2:])


def test_drop_probabilities(rng: Array) -> None:
    batch = tiny.latent_batch(b=2048, size=1)
    tokens, valid = np.asarray(batch.token_BL), np.asarray(batch.action_valid_BT)
    none = dropped(batch, DiffusionLoss("v", 0.0, 0.0), rng)
    np.testing.assert_array_equal(none.token_BL, tokens)
    np.testing.assert_array_equal(none.action_valid_BT, valid)
    every = dropped(batch, DiffusionLoss("v", 1.0, 1.0), rng)
    np.testing.assert_array_equal(every.token_BL, np.broadcast_to([1] + [0] * 7, tokens.shape))
    assert not np.asarray(every.action_valid_BT).any()
    some = dropped(batch, DiffusionLoss("v", 0.3, 0.6), rng)
    text, action = np.asarray(some.token_BL)[:, 1] == 0, ~np.asarray(some.action_valid_BT)[:, -1]
    np.testing.assert_allclose([text.mean(), action.mean()], [0.3, 0.6], atol=0.05)
    np.testing.assert_allclose((text & action).mean(), 0.18, atol=0.04)


def test_dropping_works_without_text_and_without_actions(rng: Array) -> None:
    bare = tiny.latent_batch().replace(token_BL=None, action_BTA=None, action_valid_BT=None)
    out = dropped(bare, DiffusionLoss("v", 1.0, 1.0), rng)
    assert out.token_BL is None and out.action_valid_BT is None


def test_eps_on_zero_terminal_snr_is_refused() -> None:
    for schedule in (Schedule(zero_terminal_snr=True), Schedule("flow")):
        with pytest.raises(VgenError, match="'eps'.*zero_terminal_snr.*use 'v', 'x0' or 'velocity'"):
            masked_diffusion(None, None, lambda video: video, schedule, Masking(), DiffusionLoss("eps"))
    with pytest.raises(VgenError, match="objective.drop_text is 2"):
        DiffusionLoss("v", drop_text=2.0)
    with pytest.raises(VgenError, match="objective.loss.draw is 'high'"):
        DiffusionLoss("v", draw="high")
    with pytest.raises(VgenError, match="objective.loss.weighting is 'snr'"):
        DiffusionLoss("v", weighting="snr")
    with pytest.raises(VgenError, match="objective.loss.flow is -1"):
        DiffusionLoss("v", flow=-1.0)


@pytest.mark.parametrize("masking", [PAPER, Masking("zero", 0.3, reference=True)])
def test_without_a_clean_past_every_frame_is_noised_and_counts(masking: Masking, rng: Array) -> None:
    batch = tiny.latent_batch(past=1, future=3)
    objective, calls = recording("x0", masking, clean_past=False)
    output = jax.random.normal(rng, batch.video_BTHWC.shape)
    value, _ = objective(output, batch, rng)
    np.testing.assert_allclose(value, np.mean((output - batch.video_BTHWC) ** 2), rtol=1e-5)
    x_t, t = calls[0].x_t, np.asarray(calls[0].t)
    t_BT = np.broadcast_to(t[:, None] if t.ndim == 1 else t, (2, 4))
    assert (t_BT == t_BT[:, :1]).all() and t_BT[0, 0] != t_BT[1, 0], "one step for all frames of a window"
    alpha, sigma = (np.asarray(x) for x in SCHEDULE.alpha_sigma(t_BT[:, 0]))
    eps = (np.asarray(x_t[..., :3]) - alpha * np.asarray(batch.video_BTHWC)) / sigma
    assert np.abs(eps.std((0, 2, 3, 4)) - 1).max() < 0.3
    if masking.reference:
        np.testing.assert_array_equal(x_t[..., 3:], np.broadcast_to(x_t[:, :1, ..., :3], x_t[..., 3:].shape))
