"""The denoising loss of AVID, on networks whose inputs can be looked at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vgen_jax.diffusion.prediction import KINDS, eps_weight
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.objectives.adapter import AdapterLoss, adapter, dropped_actions, future_condition
from vgen_jax.objectives.noisy_actions import noisy_actions
from vgen_jax.types import Array, Condition, Objective, Prediction, VgenError

SCHEDULE = Schedule("sigmoid", 200, -3.0, 3.0)


def recording(kind: str, weight: str = "eps", drop: float = 0.0) -> tuple[Objective, list]:
    """The objective of a network that outputs its parameters; it must not be jitted."""
    calls: list = []

    def predict(params: Array, x_t: Array, t_B: Array, condition: Condition) -> Prediction:
        calls.append((x_t, t_B, condition))
        return Prediction(params, kind)

    return adapter(predict, lambda video: video, 2, SCHEDULE, AdapterLoss(weight, drop)), calls


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_weighted_to_the_loss_of_eps(kind: str, rng: Array) -> None:
    batch = tiny.latent_batch(b=3, past=2, future=3)
    x0 = np.asarray(batch.video_BTHWC)[:, 2:]
    output = jax.random.normal(rng, x0.shape)
    objective, calls = recording(kind)
    value, aux = objective(output, batch, rng)
    x_t, t_B, _ = calls[0]
    alpha, sigma = (np.asarray(a, np.float64) for a in SCHEDULE.alpha_sigma(t_B))
    eps = (np.asarray(x_t) - alpha * x0) / sigma
    said = {
        "eps": output, "x0": (x_t - alpha * output) / sigma, "v": sigma * x_t + alpha * output,
        "velocity": (x_t + alpha * output) / (alpha + sigma),
    }[kind]  # fmt: skip
    np.testing.assert_allclose(value, np.mean((np.asarray(said) - eps) ** 2), rtol=2e-3)
    np.testing.assert_allclose(aux["eps_loss"], value)
    plain, aux = recording(kind, "none")[0](output, batch, rng)
    wanted = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0, "velocity": eps - x0}[kind]
    np.testing.assert_allclose(plain, np.mean((np.asarray(output) - wanted) ** 2), rtol=2e-3)
    np.testing.assert_allclose(aux["error"], plain)


def test_the_weight_of_x0_is_the_signal_to_noise_ratio_unclipped() -> None:
    """The published code's largest and mean weight."""
    alpha, sigma = SCHEDULE.alpha_sigma(jnp.arange(200), ndim=1)
    weight = np.asarray(eps_weight("x0", alpha, sigma))
    np.testing.assert_allclose([weight.max(), weight.mean()], [657.8, 13.6], rtol=2e-3)


def test_past_frames_are_condition_and_not_target(rng: Array) -> None:
    batch = tiny.latent_batch(past=2, future=2)
    objective, calls = recording("x0")
    objective(jnp.zeros((2, 2, 8, 8, 3)), batch, rng)
    x_t, _, condition = calls[0]
    assert x_t.shape[1] == 2
    np.testing.assert_array_equal(condition.past_BTHWC, batch.video_BTHWC[:, :2])
    np.testing.assert_array_equal(condition.action_BTA, batch.action_BTA[:, 2:])
    assert condition.action_valid_BT.all()


def test_actions_are_dropped_by_clip_and_as_often_as_asked(rng: Array) -> None:
    batch = tiny.latent_batch(b=400, past=2, future=2, size=1)
    condition = future_condition(batch, batch.video_BTHWC[:, :2])
    dropped = dropped_actions(condition, 0.2, rng)
    kept_BT = np.asarray(dropped.action_valid_BT)
    assert (kept_BT.all(1) == kept_BT.any(1)).all() and 0.72 < kept_BT[:, 0].mean() < 0.88
    np.testing.assert_array_equal(dropped.action_BTA, condition.action_BTA)
    assert dropped_actions(condition, 0.0, rng) is condition


def test_the_classifier_learns_the_actions_of_noisy_frames(rng: Array) -> None:
    batch = tiny.latent_batch(b=2, past=2, future=3)
    right = 30.0 * batch.action_BTA[:, 2:]
    one_hot = jax.nn.one_hot(right.argmax(-1), 2)
    batch = batch.replace(action_BTA=batch.action_BTA.at[:, 2:].set(one_hot))
    seen = []

    def classify(params: Array, x_t: Array, t_B: Array, past: Array) -> Array:
        seen.append((x_t, past))
        return params

    objective = noisy_actions(classify, lambda video: video, 2, SCHEDULE)
    perfect, aux = objective(30.0 * one_hot, batch, rng)
    assert float(perfect) < 1e-6 and float(aux["accuracy"]) == 1.0
    uniform, _ = objective(jnp.zeros_like(one_hot), batch, rng)
    np.testing.assert_allclose(uniform, np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(seen[0][1], batch.video_BTHWC[:, :2])
    assert float(jnp.abs(seen[0][0] - batch.video_BTHWC[:, 2:]).max()) > 0.1


@pytest.mark.parametrize(("weight", "drop", "match"), [("snr", 0.0, "weight 'snr'"), ("eps", 2.0, "drop_action is 2")])
def test_settings_are_checked(weight: str, drop: float, match: str) -> None:
    with pytest.raises(VgenError, match=match):
        AdapterLoss(weight, drop)
