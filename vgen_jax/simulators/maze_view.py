"""What a camera in a maze has to see: rays cast through the grid, one for each column of the picture.

Ground truth for "are these the right walls?", from the pose alone: no network, no picture.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vgen_jax.simulators.maze_layout import WALL
from vgen_jax.simulators.maze_wad import CELL, SHADE_RGB, WALL_RGB
from vgen_jax.types import VgenError

FIELD_OF_VIEW = 2 * np.degrees(np.arctan(0.75))  # of a square picture cut out of one of 4:3 that sees 90 degrees


class WallsSeen(NamedTuple):
    """The nearest wall in each column, from the left, each (..., W).

    Attributes:
        distance: map units, along the ray.
        room: number of the room or corridor that the wall belongs to.
        axis: 0 for a wall that faces east or west, 1 for one that faces north or south.
    """

    distance: np.ndarray
    room: np.ndarray
    axis: np.ndarray


def column_angles(width: int, field_of_view: float = FIELD_OF_VIEW) -> np.ndarray:
    """Degrees to the left of the heading at the middle of each column, (W,), of a picture on a plane."""
    across = (2 * (np.arange(width) + 0.5) / width - 1) * np.tan(np.radians(field_of_view / 2))
    return -np.degrees(np.arctan(across))


def walls_seen(room_YX: np.ndarray, pose_P: np.ndarray, angle_W: np.ndarray) -> WallsSeen:
    """The walls that a camera sees.

    Args:
        room_YX: see ``maze_layout.Layout``.
        pose_P: (..., 4): x, y, z in map units, the heading in degrees, counter-clockwise from east.
        angle_W: ``column_angles``.
    """
    pose = np.asarray(pose_P, np.float64)[..., None, :]
    angle = np.radians(pose[..., 3] + angle_W)
    step = np.stack([np.cos(angle), np.sin(angle)])  # (2, ..., W): x, y
    step = np.where(np.abs(step) < 1e-9, 1e-9, step)
    position = np.stack([np.broadcast_to(pose[..., i] / CELL, angle.shape) for i in (0, 1)])
    cell = np.floor(position).astype(np.int64)
    towards = np.sign(step).astype(np.int64)
    # The ray's length, in cells, to the next grid line of either axis, and between two of them.
    between = 1.0 / np.abs(step)
    following = (np.where(step > 0, cell + 1 - position, position - cell)) * between
    room, axis, length = _at(room_YX, cell), np.zeros(angle.shape, np.int64), np.zeros(angle.shape)
    going = np.ones(angle.shape, bool)
    for _ in range(2 * sum(room_YX.shape)):
        nearer = (following[1] < following[0]).astype(np.int64)
        for number in (0, 1):
            taken = going & (nearer == number)
            length = np.where(taken, following[number], length)
            axis = np.where(taken, number, axis)
            cell[number] += taken * towards[number]
            following[number] += taken * between[number]
        entered = _at(room_YX, cell)
        going &= entered != WALL
        room = np.where(going, entered, room)
        if not going.any():
            break
    return WallsSeen(length * CELL, room, axis)


def wall_shades() -> np.ndarray:
    """The two shades of each colour of walls as they are rendered, uint8 (12, 2, 3); plain walls show the first."""
    return np.stack([WALL_RGB, SHADE_RGB], axis=1).astype(np.uint8)


def has_walls(extras: Mapping[str, np.ndarray]) -> bool:
    """Whether an episode's extras are those of a maze, which ``colors_seen`` needs."""
    return {"rooms", "wall_colors", "pose"} <= set(extras)


def colors_seen(extras: Mapping[str, np.ndarray], width: int) -> np.ndarray:
    """The colour of the wall in each column of every frame of an episode, int16 (T, W), from its extras.

    Raises:
        VgenError: an episode that is of no maze.
    """
    if not has_walls(extras):
        raise VgenError(f"the episode is of no maze (its extras: {', '.join(extras)}): record configs/data/maze.py")
    seen = walls_seen(extras["rooms"], extras["pose"], column_angles(width))
    return extras["wall_colors"][seen.room, seen.axis]


def _at(room_YX: np.ndarray, cell_XY: np.ndarray) -> np.ndarray:
    """The grid at cells; what is outside of it is wall."""
    height, width = room_YX.shape
    x, y = cell_XY
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return np.where(inside, room_YX[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)], WALL)
