"""Rays through the grid, against marching along them in small steps."""

import numpy as np
import pytest

from vgen_jax.simulators.maze import PLAIN
from vgen_jax.simulators.maze_layout import WALL, make_layout
from vgen_jax.simulators.maze_view import FIELD_OF_VIEW, column_angles, walls_seen
from vgen_jax.simulators.maze_wad import CELL

STEP = 0.25  # map units


def marched(room_YX: np.ndarray, pose: np.ndarray, angle: float) -> tuple[float, int, int]:
    """Distance, room and axis of the wall that a point meets; the axis is -1 where it crosses a corner."""
    length = np.arange(0, 2 * CELL * len(room_YX), STEP)
    way = np.radians(pose[3] + angle)
    x, y = (np.floor((pose[i] + length * f(way)) / CELL).astype(int) for i, f in ((0, np.cos), (1, np.sin)))
    inside = (x >= 0) & (x < room_YX.shape[1]) & (y >= 0) & (y < room_YX.shape[0])
    met = int(np.argmax(~inside | (room_YX[np.clip(y, 0, len(room_YX) - 1), np.clip(x, 0, len(room_YX) - 1)] == WALL)))
    crossed = (x[met] != x[met - 1], y[met] != y[met - 1])
    return length[met], int(room_YX[y[met - 1], x[met - 1]]), -1 if all(crossed) else int(crossed[1])


@pytest.mark.parametrize("seed", range(6))
def test_rays_meet_what_a_march_meets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layout = make_layout(PLAIN, seed)
    angles = column_angles(16)
    cells = layout.open_N2[rng.integers(len(layout.open_N2), size=12)]
    xy = (cells[:, ::-1] + rng.uniform(0.02, 0.98, (12, 2))) * CELL
    poses = np.concatenate([xy, np.zeros((12, 1)), rng.uniform(0, 360, (12, 1))], axis=1)
    poses[:4, 3] = (0, 90, 180, 270)
    seen = walls_seen(layout.room_YX, poses, angles)
    wrong = 0
    for n, pose in enumerate(poses):
        for w, angle in enumerate(angles):
            distance, room, axis = marched(layout.room_YX, pose, angle)
            right = abs(seen.distance[n, w] - distance) <= 2 * STEP and seen.room[n, w] == room
            wrong += not (right and axis in (-1, seen.axis[n, w]))
    assert wrong <= 1, "a ray may cut a corner between two steps of the march, but that is rare"


def test_shapes_are_those_of_the_poses() -> None:
    layout = make_layout(PLAIN, 0)
    y, x = layout.start
    pose = np.array([x * CELL + 96, y * CELL + 96, 0, 30.0])
    one = walls_seen(layout.room_YX, pose, column_angles(8))
    many = walls_seen(layout.room_YX, np.broadcast_to(pose, (2, 3, 4)), column_angles(8))
    assert one.distance.shape == (8,) and many.room.shape == (2, 3, 8)
    np.testing.assert_array_equal(many.axis[1, 2], one.axis)
    np.testing.assert_array_equal(many.distance[0, 1], one.distance)


def test_columns_lie_on_a_plane_and_the_first_is_on_the_left() -> None:
    angles = column_angles(64)
    assert (np.diff(angles) < 0).all() and angles[0] > 0
    np.testing.assert_allclose(angles, -angles[::-1])
    np.testing.assert_allclose(np.diff(np.tan(np.radians(angles))), -2 * np.tan(np.radians(FIELD_OF_VIEW / 2)) / 64)
