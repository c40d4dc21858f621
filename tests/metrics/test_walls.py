"""The wall score: right pictures are right, wrong walls and blank pictures are not."""

import numpy as np
import pytest

from vgen_jax.metrics.walls import Walls, columns_right, shares_right
from vgen_jax.types import VgenError

SHADES = np.array([[(200, 0, 0), (100, 0, 0)], [(0, 200, 0), (0, 100, 0)], [(0, 0, 200), (100, 0, 0)]])


def painted(color_TW: np.ndarray, height: int = 64, shade: int = 0) -> np.ndarray:
    """Frames whose walls have these colours; ceiling and floor are grey."""
    frames = np.full((*color_TW.shape[:1], height, color_TW.shape[1], 3), 60, np.uint8)
    frames[:, height // 4 : 3 * height // 4] = SHADES[color_TW, shade][:, None]
    return frames


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, (5, 16))


@pytest.mark.parametrize("height", [16, 32, 64])
def test_the_truth_is_right_in_either_shade(truth: np.ndarray, height: int) -> None:
    for shade in (0, 1):
        assert columns_right(painted(truth, height, shade), truth, SHADES).all()


def test_other_walls_are_wrong(truth: np.ndarray) -> None:
    other = (truth + 1) % 3
    assert not columns_right(painted(other), truth, SHADES).any()
    assert (
        columns_right(painted(np.where(np.arange(16) < 4, other, truth)), truth, SHADES) == (np.arange(16) >= 4)
    ).all()


def test_a_shade_of_two_colours_is_right_for_both(truth: np.ndarray) -> None:
    right = columns_right(painted(np.zeros_like(truth), shade=1), truth, SHADES)
    np.testing.assert_array_equal(right, truth != 1)


def test_most_of_the_band_decides_and_the_rest_of_the_picture_does_not(truth: np.ndarray) -> None:
    frames = painted(truth)
    frames[:, :28], frames[:, 33:] = 255, 0
    frames[:, 28:30] = SHADES[(truth + 1) % 3, 0][:, None]
    assert columns_right(frames, truth, SHADES).all()
    frames[:, 30] = frames[:, 29]
    assert not columns_right(frames, truth, SHADES).any()


def test_small_errors_of_colour_are_forgiven(truth: np.ndarray) -> None:
    noise = np.random.default_rng(1).integers(-20, 21, (5, 64, 16, 3))
    assert columns_right(np.clip(painted(truth) + noise, 0, 255).astype(np.uint8), truth, SHADES).all()
    first = np.zeros((1, 16), int)
    for between, forgiven in (((97, 103, 0), True), ((90, 110, 0), False)):  # of two shades, nearer to the other's
        assert columns_right(np.full((1, 64, 16, 3), between, np.uint8), first, SHADES).all() == forgiven


def test_a_frame_is_right_at_four_fifths() -> None:
    right = np.arange(10) < np.array([[8], [7], [10], [0]])
    assert shares_right(right) == (25 / 40, 0.5)


def test_batches_and_workers_do_not_matter(truth: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    right = rng.random((6, 5, 16)) < rng.random((6, 1, 1))
    metric = Walls()
    whole = metric.compute(metric.update(metric.init(), right=right))
    first, second = (metric.update(metric.init(), right=part) for part in (right[:2], list(right[2:])))
    assert metric.compute(metric.merge(first, second)) == whole
    assert whole["walls_columns"] == pytest.approx(right.mean()) and whole["walls_frames_count"] == 6
    masked = metric.update(metric.init(), right=right, mask=np.arange(6) < 2)
    assert metric.compute(masked) == metric.compute(first)
    with pytest.raises(VgenError, match="no values"):
        metric.compute(metric.init())


def test_what_does_not_fit_is_refused(truth: np.ndarray) -> None:
    frames = painted(truth)
    for video, colors, fault in (
        (frames.astype(np.float32), truth, "uint8"),
        (frames, truth[:4], r"shape \(4, 16\) for 5 frames of 16"),
        (frames, truth + 1, "colours 1 to 3 of 3"),
    ):
        with pytest.raises(VgenError, match=fault):
            columns_right(video, colors, SHADES)
