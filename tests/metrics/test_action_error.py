"""The action error ratio: AVID's two definitions, exact under any batches; its normalised score."""

import numpy as np
import pytest

from vgen_jax.metrics.action_error import ActionErrorRatio, action_scores, ratio_interval
from vgen_jax.metrics.normalised import BOUNDS, HIGHER_IS_BETTER, normalised_score
from vgen_jax.types import VgenError

RNG = np.random.default_rng(0)


def test_scores_of_clips() -> None:
    wanted = np.eye(3)[[[0, 1, 2, 0]]]
    found = np.eye(3)[[[0, 1, 0, 1]]] * 5 - 1
    np.testing.assert_allclose(action_scores("discrete", found, wanted), [0.5])
    np.testing.assert_allclose(action_scores("continuous", wanted + 0.25, wanted), [0.25])
    with pytest.raises(VgenError, match=r"\(1, 4, 3\) for actions \(1, 3, 3\)"):
        action_scores("discrete", found, wanted[:, 1:])


@pytest.mark.parametrize(("kind", "expected"), [("discrete", 0.8 / 0.4), ("continuous", 0.4 / 0.8)])
def test_the_ratio_is_above_one_where_generated_videos_are_worse(kind, expected: float) -> None:
    metric = ActionErrorRatio("action_error_ratio_test", kind)
    real, generated = np.array([0.7, 0.8, 0.9]), np.array([0.2, 0.4, 0.6])
    whole = metric.update(metric.init(), real=real, generated=generated)
    parts = metric.update(metric.init(), real=real[:1])
    parts = metric.merge(parts, metric.update(metric.init(), real=np.r_[real[1:], 9.0], mask=np.array([1, 1, 0])))
    parts = metric.update(parts, generated=generated)
    for state in (whole, parts):
        found = metric.compute(state)
        assert found["action_error_ratio_test"] == pytest.approx(expected, rel=1e-12)
        name = {"discrete": "accuracy", "continuous": "mae"}[kind]
        assert found[f"action_error_ratio_test_{name}_real"] == pytest.approx(0.8)
        assert found[f"action_error_ratio_test_{name}_generated_count"] == 3


def test_nothing_right_is_an_infinite_ratio() -> None:
    metric = ActionErrorRatio("a", "discrete")
    assert metric.compute(metric.update(metric.init(), real=np.ones(2), generated=np.zeros(2)))["a"] == np.inf


def test_the_interval_holds_the_ratio_and_draws_pairs() -> None:
    under = RNG.uniform(1, 9, 400)
    low, high = ratio_interval(2 * under, under)
    assert low == pytest.approx(2) == high  # each pair has this ratio
    low, high = ratio_interval(2 + RNG.normal(size=400), 1 + 0.1 * RNG.normal(size=400))
    assert 1.8 < low < 2 < high < 2.2


def test_the_best_of_all_scores_one_and_the_worst_zero() -> None:
    for bounds in BOUNDS.values():
        best = {name: bounds[name][1 if up else 0] for name, up in HIGHER_IS_BETTER.items()}
        worst = {name: bounds[name][0 if up else 1] for name, up in HIGHER_IS_BETTER.items()}
        middle = {name: sum(bounds[name]) / 2 for name in bounds}
        assert [normalised_score(x, bounds) for x in (best, worst, middle)] == pytest.approx([1, 0, 0.5])
    assert normalised_score({"psnr": 3.0, "fid": 3.0}, {"psnr": (3.0, 3.0), "fid": (3.0, 3.0)}) == 1
    with pytest.raises(VgenError, match="lacks fid, fvd"):
        normalised_score({"psnr": 1.0}, {"psnr": (0, 2), "fvd": (1, 2), "fid": (1, 2)})
