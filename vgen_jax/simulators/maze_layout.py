"""Random mazes on a grid: rooms of a few cells, joined by corridors, each with a pair of wall textures of its own.

A pure function of the seed. The textures are numbers; ``maze_wad`` draws them.
"""

import dataclasses

import numpy as np

from vgen_jax.config import later
from vgen_jax.simulators.wording import WORDINGS, Wording
from vgen_jax.types import VgenError

WALL = -1
COLORS, FLOORS, PATTERNS = 12, 6, 5
MIN_GRID, MIN_OPEN = 5, 12
_SIDES = ((1, 3), (3, 1), (1, 2), (2, 3), (3, 2), (3, 3), (2, 2))  # cells of a room, height and width


@dataclasses.dataclass(frozen=True)
class MazeConfig:
    """A world of mazes.

    Attributes:
        grid: cells on each side, the outer ring of which is wall.
        rooms: tries to place a room; those that touch another one are dropped.
        colors: of the palette that are used, in [3, 12].
        patterns: walls carry one of five patterns in two shades of their colour, else they are plain.
        floor_lines: every cell of the floor has a frame.
        landmarks: in how many rooms of a maze a thing of the game stands.
        train_scenes, validation_scenes: mazes of each split; their seeds are disjoint.
        wording: how commands are said, see ``simulators.wording``.
    """

    grid: int
    rooms: int
    colors: int
    patterns: bool
    floor_lines: bool
    landmarks: int
    train_scenes: int
    validation_scenes: int
    wording: Wording = later("few")

    def __post_init__(self) -> None:
        if self.grid < MIN_GRID:
            raise VgenError(f"config key collect.maze.grid is {self.grid}: use {MIN_GRID} cells or more")
        if not 3 <= self.colors <= COLORS:
            raise VgenError(f"config key collect.maze.colors is {self.colors}: use 3 to {COLORS}")
        if self.rooms < 2 or self.landmarks < 0:
            raise VgenError("config keys collect.maze.rooms and landmarks: use 2 rooms or more, landmarks of 0 or more")
        if self.wording not in WORDINGS:
            raise VgenError(f"config key collect.maze.wording is {self.wording!r}: use {' or '.join(WORDINGS)}")
        for name, most in (("train_scenes", 10_000_000), ("validation_scenes", 1_000_000)):
            if not 1 <= getattr(self, name) <= most:
                raise VgenError(f"config key collect.maze.{name} is {getattr(self, name)}: use 1 to {most:,}")


@dataclasses.dataclass(frozen=True)
class Layout:
    """A maze. Row 0 is in the south, column 0 in the west; R counts rooms and corridors.

    Attributes:
        room_YX: int16, the number of the room or corridor of each cell, ``WALL`` elsewhere.
        color_R2: int16, the colours of walls that face east or west, and of those that face north or south.
        pattern_R2: int16, their patterns; ``WALL`` for plain ones.
        floor_R: int16, the colour of the floor.
        landmark_Y2: int16, cells (row, column) with a landmark.
        start: a cell (row, column).
    """

    room_YX: np.ndarray
    color_R2: np.ndarray
    pattern_R2: np.ndarray
    floor_R: np.ndarray
    landmark_Y2: np.ndarray
    start: tuple[int, int]

    @property
    def open_N2(self) -> np.ndarray:
        """Cells (row, column) that one can stand in."""
        return np.argwhere(self.room_YX != WALL)


def make_layout(config: MazeConfig, seed: int) -> Layout:
    """The maze of a seed; every open cell can be reached from every other one.

    Raises:
        VgenError: the palette has too few pairs of colours for the rooms and corridors of this grid.
    """
    rng = np.random.default_rng((seed, 7))
    room_YX = _carved(config, rng)
    while (room_YX != WALL).sum() < MIN_OPEN:
        room_YX = _carved(config, rng)
    ids = np.unique(room_YX[room_YX != WALL])
    room_YX = np.where(room_YX == WALL, WALL, np.searchsorted(ids, room_YX)).astype(np.int16)
    count = len(ids)
    pairs = np.argwhere(np.triu(np.ones((config.colors, config.colors)), 1))
    if count > len(pairs):
        raise VgenError(
            f"a maze has {count} rooms and corridors, {config.colors} colours only {len(pairs)} pairs: "
            "raise collect.maze.colors or lower collect.maze.rooms"
        )
    color_R2 = rng.permuted(pairs[rng.permutation(len(pairs))[:count]], axis=1).astype(np.int16)
    pattern_R2 = rng.integers(PATTERNS, size=(count, 2)).astype(np.int16)
    cells = np.argwhere(room_YX != WALL)
    marked = [cells[rng.choice(np.flatnonzero(room_YX[tuple(cells.T)] == r))] for r in range(count)]
    chosen = rng.permutation(count)[: config.landmarks]
    return Layout(
        room_YX,
        color_R2,
        pattern_R2 if config.patterns else np.full_like(pattern_R2, WALL),
        rng.integers(FLOORS, size=count).astype(np.int16),
        np.asarray([marked[r] for r in chosen], np.int16).reshape(-1, 2),
        tuple(int(n) for n in cells[rng.integers(len(cells))]),  # type: ignore[arg-type]
    )


def _carved(config: MazeConfig, rng: np.random.Generator) -> np.ndarray:
    """Rooms from 0 on, then corridors, with numbers that may have gaps."""
    n = config.grid
    room_YX = np.full((n, n), WALL, np.int64)
    rooms: list[tuple[int, int, int, int]] = []
    for _ in range(config.rooms):
        height, width = _SIDES[rng.integers(len(_SIDES))]
        if max(height, width) > n - 2:
            continue
        y, x = int(rng.integers(1, n - height)), int(rng.integers(1, n - width))
        if (room_YX[y - 1 : y + height + 1, x - 1 : x + width + 1] != WALL).any():
            continue
        room_YX[y : y + height, x : x + width] = len(rooms)
        rooms.append((y, x, height, width))
    for number in range(1, len(rooms)):
        corridor = config.rooms + number
        y, x = _inside(rooms[number], rng)
        end = _inside(rooms[rng.integers(number)], rng)
        while (y, x) != end:
            if y != end[0]:
                y += int(np.sign(end[0] - y))
            else:
                x += int(np.sign(end[1] - x))
            if room_YX[y, x] == WALL:
                room_YX[y, x] = corridor
    return room_YX


def _inside(room: tuple[int, int, int, int], rng: np.random.Generator) -> tuple[int, int]:
    y, x, height, width = room
    return y + int(rng.integers(height)), x + int(rng.integers(width))
