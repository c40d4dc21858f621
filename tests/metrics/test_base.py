"""Means over a data set: exact, whatever the batches, the padding and the workers."""

import math

import jax
import numpy as np
import pytest

from vgen_jax.metrics.base import Mean, MeanState
from vgen_jax.types import VgenError

MEAN = Mean("psnr")


def wild_values(rng: np.random.Generator, count: int) -> np.ndarray:
    """Magnitudes over twelve decades and both signs, for which ordinary sums depend on their order."""
    return rng.standard_normal(count) * 10.0 ** rng.integers(-6, 6, count)


def filled(*batches: np.ndarray) -> MeanState:
    state = MEAN.init()
    for batch in batches:
        state = MEAN.update(state, values=batch)
    return state


@pytest.mark.parametrize("seed", range(5))
def test_any_split_into_batches_gives_the_same_bits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = wild_values(rng, 400)
    cuts = np.sort(rng.integers(0, 400, 7))
    whole = MEAN.compute(filled(values))
    assert MEAN.compute(filled(*np.split(values, cuts))) == whole
    assert MEAN.compute(filled(rng.permutation(values))) == whole


def test_merging_workers_equals_one_worker() -> None:
    values = wild_values(np.random.default_rng(0), 300)
    parts = [filled(part) for part in np.array_split(values, 4)]
    left = MEAN.merge(MEAN.merge(parts[0], parts[1]), MEAN.merge(parts[2], parts[3]))
    assert MEAN.compute(left) == MEAN.compute(filled(values))
    assert MEAN.compute(MEAN.merge(MEAN.init(), parts[0])) == MEAN.compute(parts[0])


def test_mean_and_interval_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).normal(30, 4, (5, 8))
    results = MEAN.compute(filled(values))
    assert results["psnr"] == pytest.approx(values.mean(), rel=1e-15)
    assert results["psnr_ci95"] == pytest.approx(1.96 * values.std(ddof=1) / math.sqrt(40), rel=1e-12)
    assert results["psnr_count"] == 40


def test_padding_does_not_count_even_if_it_is_nan() -> None:
    values = np.arange(12.0).reshape(4, 3)
    padded = np.concatenate([values, np.full((2, 3), np.nan)])
    mask = np.array([True] * 4 + [False] * 2)
    state = MEAN.update(MEAN.init(), values=padded, mask=mask)
    assert MEAN.compute(state) == MEAN.compute(filled(values))


def test_a_mask_of_the_values_shape_picks_single_values() -> None:
    state = MEAN.update(MEAN.init(), values=np.array([[1.0, 2.0], [3.0, 4.0]]), mask=np.array([[1, 0], [0, 1]]))
    assert MEAN.compute(state)["psnr"] == 2.5


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(VgenError, match=r"psnr: a mask of shape \(3,\)"):
        MEAN.update(MEAN.init(), values=np.zeros((2, 3)), mask=np.ones(3))


def test_one_value_has_an_unknown_interval_and_none_is_an_error() -> None:
    np.testing.assert_equal(MEAN.compute(filled(np.array(2.0))), {"psnr": 2.0, "psnr_ci95": np.nan, "psnr_count": 1.0})
    with pytest.raises(VgenError, match="psnr: no values"):
        MEAN.compute(MEAN.init())


def test_nan_stays_visible() -> None:
    assert math.isnan(MEAN.compute(filled(np.array([1.0, np.nan])))["psnr"])


def test_the_state_is_a_pytree_of_three_arrays() -> None:
    assert len(jax.tree.leaves(MEAN.init())) == 3
