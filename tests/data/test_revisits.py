"""Pairs of frames that show the same view: by hand-made poses whose answer is known."""

import dataclasses

import numpy as np
import pytest

from vgen_jax.data.revisits import revisits
from vgen_jax.data.units import DOOM


def poses(x: list[float], heading: list[float]) -> np.ndarray:
    frames = max(len(x), len(heading))
    x, heading = (list(v) * (frames if len(v) == 1 else 1) for v in (x, heading))
    return np.stack([x, np.zeros(frames), np.zeros(frames), heading], axis=1).astype(np.float32)


def by_definition(pose: np.ndarray, gap: int, near: float, turn: float) -> list[tuple[int, int]]:
    """The docstring, as loops."""

    def differ(a: int, b: int) -> tuple[float, float]:
        angle = abs((float(pose[a, 3]) - float(pose[b, 3]) + 180) % 360 - 180)
        return float(np.linalg.norm(pose[a, :3].astype(float) - pose[b, :3].astype(float))), angle

    found = []
    for j in range(len(pose)):
        for i in range(j - gap + 1):
            distance, angle = differ(i, j)
            left = any(d > DOOM.left or a > DOOM.left_turn for d, a in (differ(i, k) for k in range(i + 1, j)))
            if distance <= near and angle <= turn and left:
                found.append((i, j))
                break
    return found


def test_turning_away_and_back_pairs_mirror_frames() -> None:
    pose = poses([0.0], [*np.arange(0, 91, 7.5), *np.arange(82.5, -1, -7.5)])  # frame 12 is the furthest
    assert [tuple(pair) for pair in revisits(pose)] == [(24 - j, j) for j in range(17, 25)]


def test_a_camera_that_only_stands_or_nods_comes_back_to_nothing() -> None:
    assert revisits(poses([0.0], [90.0] * 40)).shape == (0, 2)
    assert not len(revisits(poses([0.0], [0.0, 10, 20, 30, 30, 30, 30, 30, 20, 10, 0])))


def test_the_heading_wraps_around() -> None:
    circle = poses([0.0], list(np.arange(0, 721, 15.0) % 360))
    pairs = revisits(circle)
    np.testing.assert_array_equal(pairs, [(j % 24, j) for j in range(24, 49)])


def test_the_first_visit_is_taken_not_the_last() -> None:
    swing = [*np.arange(0, 91, 15.0), *np.arange(75, -1, -15.0)]
    pairs = revisits(poses([0.0], swing + swing[1:] + swing[1:]))
    assert (0, 12) in map(tuple, pairs) and (0, 24) in map(tuple, pairs) and (0, 36) in map(tuple, pairs)


def test_walking_counts_by_distance() -> None:
    there = list(np.arange(0.0, 331, 33))
    pairs = revisits(poses(there + there[::-1][1:], [0.0]))
    assert (0, 20) in map(tuple, pairs) and (9, 11) not in map(tuple, pairs)


@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_the_docstring_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, heading = np.cumsum(rng.integers(-1, 2, 60)) * 33.0, np.cumsum(rng.integers(-1, 2, 60)) * 30.0
    pose = poses(list(x), list(heading % 360))
    for gap, near, turn in ((8, 8.0, 2.0), (3, 40.0, 31.0)):
        expected = by_definition(pose, gap, near, turn)
        assert [
            tuple(pair) for pair in revisits(pose, dataclasses.replace(DOOM, same_place=near, same_turn=turn), gap=gap)
        ] == expected
