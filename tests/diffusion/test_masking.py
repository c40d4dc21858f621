"""Clean past, noisy future, a loss on the future alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgen_jax.diffusion import masking as masks
from vgen_jax.diffusion.masking import Masking
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.types import Array, Condition, Prediction, VgenError

pytestmark = pytest.mark.usefixtures("checked_axes")

SHAPE = (3, 4, 2, 2, 1)
PAST_BT = np.asarray([[True, True, False, False], [True, False, False, False], [True, True, True, False]])
SCHEDULE = Schedule("cosine", 50)


def test_equation_1(rng: Array) -> None:
    x0, eps = jax.random.normal(rng, (2, *SHAPE))
    t_B = jnp.asarray([0, 20, 49])
    x_t = np.asarray(masks.noised(x0, eps, t_B, PAST_BT, SCHEDULE))
    np.testing.assert_array_equal(x_t[PAST_BT], np.asarray(x0)[PAST_BT])
    alpha_bar = SCHEDULE.alpha_bar()[np.asarray(t_B)].reshape(3, 1, 1, 1, 1)
    expected = np.sqrt(alpha_bar) * np.asarray(x0) + np.sqrt(1 - alpha_bar) * np.asarray(eps)
    np.testing.assert_allclose(x_t[~PAST_BT], expected[~PAST_BT], atol=1e-6)


def test_equation_2_is_a_mean_over_the_future_without_gradient_in_the_past(rng: Array) -> None:
    error = jax.random.normal(rng, SHAPE)
    value, grad = jax.value_and_grad(lambda e: masks.future_mean(e, PAST_BT))(error)
    np.testing.assert_allclose(value, np.asarray(error)[~PAST_BT].mean(), rtol=1e-5)
    assert (np.asarray(grad)[PAST_BT] == 0.0).all() and (np.asarray(grad)[~PAST_BT] != 0.0).all()


def test_what_the_network_is_told() -> None:
    t_B = jnp.asarray([5, 6, 7])
    np.testing.assert_array_equal(Masking("shared").steps(t_B, PAST_BT), t_B)
    told = np.asarray(Masking("zero").steps(t_B, PAST_BT))
    np.testing.assert_array_equal(told, [[0, 0, 5, 5], [0, 6, 6, 6], [0, 0, 0, 7]])
    noisy = np.asarray(Masking("level").steps(t_B, PAST_BT, jnp.asarray([1, 2, 3])))
    np.testing.assert_array_equal(noisy, [[1, 1, 5, 5], [2, 6, 6, 6], [3, 3, 3, 7]])
    np.testing.assert_array_equal(Masking("zero").steps(t_B, PAST_BT, jnp.asarray([1, 2, 3])), told)
    np.testing.assert_array_equal(Masking("level").steps(t_B, PAST_BT), told)


def test_augmentation_touches_the_past_alone_with_one_level_per_window(rng: Array) -> None:
    x0 = jnp.zeros((64, 4, 16, 16, 1))
    past_BT = np.broadcast_to(PAST_BT[0], (64, 4))
    k_level, k_noise = jax.random.split(rng)
    level_B = Masking(augment_past=0.5).past_levels(64, k_level)
    noise = np.asarray(masks.augmented_past(x0, past_BT, level_B, k_noise))
    assert (noise[:, 2:] == 0).all()
    spread = noise[:, :2].std((2, 3, 4))
    np.testing.assert_allclose(spread[:, 0], spread[:, 1], rtol=0.3)
    assert spread.max() < 0.55 and spread.min() < 0.1 and abs(spread.mean() - 0.25) < 0.06
    np.testing.assert_allclose(spread[:, 0], level_B, atol=0.06)


def test_a_fifth_of_the_pasts_stay_clean_where_the_level_is_told(rng: Array) -> None:
    level_B = np.asarray(Masking("level", 0.4).past_levels(4096, rng))
    assert abs((level_B == 0).mean() - 0.2) < 0.03 and 0.37 < level_B.max() < 0.4
    assert (np.asarray(Masking("zero", 0.4).past_levels(4096, rng)) > 0).all()


def test_the_past_is_reset_before_every_call(rng: Array) -> None:
    seen = {}

    def predictor(x_t: Array, t: Array, condition: Condition) -> Prediction:
        seen.update(x=np.asarray(x_t), t=np.asarray(t))
        return Prediction(x_t, "eps")

    clean, noisy = jax.random.normal(rng, (2, *SHAPE))
    predict = masks.clean_past(predictor, clean, PAST_BT, Masking("zero"))
    predict(noisy, jnp.asarray([3, 3, 3]), Condition())
    np.testing.assert_array_equal(seen["x"][PAST_BT], np.asarray(clean)[PAST_BT])
    np.testing.assert_array_equal(seen["x"][~PAST_BT], np.asarray(noisy)[~PAST_BT])
    np.testing.assert_array_equal(seen["t"], np.where(PAST_BT, 0, 3))


@pytest.mark.parametrize(
    ("changes", "named"), [({"past_t": "none"}, "past_t"), ({"augment_past": -1.0}, "augment_past")]
)
def test_what_is_no_masking_is_refused(changes: dict[str, object], named: str) -> None:
    with pytest.raises(VgenError, match=f"masking.{named}"):
        Masking(**changes)
