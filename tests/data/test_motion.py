"""The motion that poses say: in the camera's own axes, and undone by the way back."""

from pathlib import Path

import numpy as np
import pytest

from vgen_jax.data.motion import MOTION, MOTION_SPACE, actions_of, realised_motion, space_of
from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.windows import WindowIndex, WindowReader
from vgen_jax.types import VgenError


def pose(*rows: tuple[float, float, float]) -> np.ndarray:
    """x, y, heading of each frame."""
    return np.array([[x, y, 0.0, heading] for x, y, heading in rows], np.float32)


def test_a_walk_is_ahead_and_a_sidestep_is_to_the_right() -> None:
    np.testing.assert_allclose(realised_motion(pose((0, 0, 90), (0, 20, 90))), [[0, 20, 0]], atol=1e-5)
    np.testing.assert_allclose(realised_motion(pose((0, 0, 90), (7, 0, 90))), [[0, 0, 7]], atol=1e-5)
    np.testing.assert_allclose(realised_motion(pose((5, 5, 180), (15, 5, 180))), [[0, -10, 0]], atol=1e-5)


def test_a_turn_to_the_left_is_positive_and_never_the_long_way_round() -> None:
    found = realised_motion(pose((0, 0, 350), (0, 0, 10), (0, 0, 355)))
    np.testing.assert_allclose(found[:, 0], [20, -15], atol=1e-4)


def test_the_way_back_is_the_negative() -> None:
    rng = np.random.default_rng(0)
    there = np.concatenate([rng.normal(0, 20, (9, 3)), rng.uniform(0, 360, (9, 1))], axis=1)
    there[:, 3] = np.cumsum(rng.uniform(-60, 60, 9)) % 360
    np.testing.assert_allclose(realised_motion(there), -realised_motion(there[::-1])[::-1], atol=1e-3)


def test_windows_carry_the_motion_that_led_to_each_frame(dataset: Path) -> None:
    """The fixture walks east, one map unit a step, and looks there."""
    source = EpisodeSource(dataset, "train")
    index = WindowIndex(source.frames, 4, 2, 4)
    sample = WindowReader(source, 2, 4, MOTION, 0, True)(index[1], 1)
    np.testing.assert_array_equal(sample["action_valid"], [False] + [True] * 5)
    turn = source.head(index[1].episode).tensors["extras.pose"][0, 3]
    assert not sample["action"][0].any() and (np.diff(sample["pose"][:, 3]) == 0).all()
    wanted = np.array([0, np.cos(np.radians(turn)), np.sin(np.radians(turn))]) / MOTION_SPACE.scale
    np.testing.assert_allclose(sample["action"][1:], np.tile(wanted, (5, 1)), atol=1e-6)


def test_what_is_not_there_is_named(dataset: Path) -> None:
    info = EpisodeSource(dataset, "train").info
    assert space_of(info, MOTION) is MOTION_SPACE and space_of(info, "discrete") is info.action_spaces["discrete"]
    with pytest.raises(VgenError, match="no actions 'joystick': use one of continuous, discrete, motion"):
        space_of(info, "joystick")
    for action, name in ((MOTION, r"extras\.pose"), ("discrete", r"actions\.discrete")):
        with pytest.raises(VgenError, match=f"has no {name}; it has a, b"):
            actions_of({"b": np.zeros(1), "a": np.zeros(1)}, action)
