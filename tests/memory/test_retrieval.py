"""Frames from where the camera was before."""

import jax
import numpy as np
import pytest

from vgen_jax.memory.retrieval import DeadReckoning, Retrieval
from vgen_jax.types import Past, VgenError

pytestmark = pytest.mark.usefixtures("checked_axes")

SCALE = (7.5, 0.5, 0.6)
WALK = DeadReckoning(("turn", "forward", "strafe"), SCALE)
KEYS = jax.random.split(jax.random.key(0), 2)


def model_units(*raw: tuple[float, float, float]) -> np.ndarray:
    """(2, T, 3): the same in both videos."""
    return np.broadcast_to(np.asarray(raw, np.float32) / np.float32(SCALE), (2, len(raw), 3))


def frames(first: int, actions: np.ndarray, valid: bool = True) -> Past:
    """Frames whose every value is their number, those of the second video 1000 higher."""
    count = actions.shape[1]
    number = np.arange(first, first + count, dtype=np.float32) + np.asarray([[0.0], [1000.0]], np.float32)
    latents = np.broadcast_to(number[:, :, None, None, None], (2, count, 1, 1, 1))
    return Past(latents, actions, np.full((2, count), valid))


def told(walked: list[tuple[float, float, float]], coming: list[tuple[float, float, float]]) -> tuple[list, np.ndarray]:
    """The numbers of the frames that are recalled for ``coming``, after a start of one frame and ``walked``."""
    memory = Retrieval(WALK)
    start = frames(0, model_units((99.0, 9.0, 9.0)), valid=False)
    m = memory.init(start, KEYS)
    new = frames(1, model_units(*walked))
    m = memory.remember(m, start, new, None, KEYS)
    past = new.last(1)
    recalled = memory.recall(m, past, model_units(*coming))
    assert recalled.adapter is None
    np.testing.assert_array_equal(recalled.past.frames_BTHWC, past.frames_BTHWC)
    reference = recalled.reference
    assert reference is not None
    numbers = np.asarray(reference.frames_BTHWC)[..., 0, 0, 0]
    np.testing.assert_array_equal(numbers[1], numbers[0] + 1000)
    return numbers[0].astype(int).tolist(), np.asarray(reference.motion_BTA)[0]


def test_on_new_ground_it_is_the_last_frame() -> None:
    numbers, motion = told([(0.0, 0.5, 0.0)] * 3, [(0.0, 0.5, 0.0)] * 2)
    assert numbers == [3, 3, 3]
    np.testing.assert_allclose(motion, [[0, 0, 0], [0, 1, 0], [0, 2, 0]], atol=1e-6)


def test_turning_back_shows_what_was_there() -> None:
    numbers, motion = told([(7.5, 0.0, 0.0)] * 3, [(-7.5, 0.0, 0.0)] * 3)
    assert numbers == [3, 2, 1, 0]
    np.testing.assert_allclose(motion, 0.0, atol=1e-6)


def test_walking_back_between_two_frames_is_a_part_of_a_step() -> None:
    numbers, motion = told([(0.0, 0.5, 0.0)] * 2, [(0.0, -0.2, 0.0)])
    assert numbers == [2, 2]
    np.testing.assert_allclose(motion[1], [0, -0.4, 0], atol=1e-6)


def test_a_full_circle_and_a_square_come_back() -> None:
    assert told([(90.0, 0.0, 0.0)] * 3, [(90.0, 0.0, 0.0)])[0][-1] == 0
    side = (90.0, 0.5, 0.0)
    numbers, motion = told([side] * 3, [side])
    assert numbers[-1] == 0
    np.testing.assert_allclose(motion[-1], 0.0, atol=1e-6)


def test_of_equals_the_earliest_is_shown() -> None:
    assert told([(0.0, 0.0, 0.0)] * 3, [(0.0, 0.0, 0.0)] * 2)[0] == [0, 0, 0]


def test_motion_is_in_the_frame_of_the_reference() -> None:
    """After a turn of 90° to the left, what was a step forward is one to the right."""
    start = WALK.poses(model_units((90.0, 0.0, 0.0)))
    end = WALK.poses(model_units((0.0, 0.5, 0.0)))
    np.testing.assert_allclose(WALK.motion(start, end)[0, 0], [-90 / 7.5, 0.0, 0.5 / 0.6], atol=1e-6)


def test_poses_and_motion_are_inverse() -> None:
    rng = np.random.default_rng(0)
    action = rng.normal(size=(1, 1, 3)).astype(np.float32)
    origin = WALK.poses(np.zeros((1, 1, 3), np.float32))
    straight = action * np.float32([0, 1, 1])
    np.testing.assert_allclose(WALK.motion(origin, WALK.poses(straight)), straight, atol=1e-6)


def test_a_walker_that_only_turns_and_walks() -> None:
    walk = DeadReckoning(("forward", "turn"), (0.5, 10.0))
    poses = walk.poses(np.asarray([[0.0, 9.0], [2.0, 0.0]]))
    np.testing.assert_allclose([poses.x[1], poses.y[1]], [0.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(walk.motion(poses.at(0), poses.at(1)), [2.0, 0.0], atol=1e-6)


def test_other_actions_are_refused() -> None:
    with pytest.raises(VgenError, match="actions are left, right: a pose needs"):
        DeadReckoning(("left", "right"), (1.0, 1.0))
    with pytest.raises(VgenError, match="needs a model with actions"):
        Retrieval(WALK).init(Past(np.zeros((2, 1, 1, 1, 1))), KEYS)
