"""Random mazes in ViZDoom's engine, no assets needed: a world that a small network can learn.

As many mazes as one likes, each from a seed (``maze_layout``), written as WADs of ``_BLOCK`` mazes when they are needed
(``maze_wad``). Colours are as they are drawn: full light, no fake contrast, no gamma.
"""

from pathlib import Path

import numpy as np

from vgen_jax.data.units import DOOM
from vgen_jax.simulators.base import Observation
from vgen_jax.simulators.commands import walker_commands, walker_space
from vgen_jax.simulators.doom import FPS, DoomEngine, import_vizdoom
from vgen_jax.simulators.maze_layout import COLORS, Layout, MazeConfig, make_layout
from vgen_jax.simulators.maze_wad import CELL, WALL_RGB, starts, write_wad
from vgen_jax.types import VgenError

GENERATOR = 1  # changes whenever a seed gives another maze, or a maze other pictures
PLAIN = MazeConfig(
    grid=9, rooms=30, colors=COLORS, patterns=False, floor_lines=False, landmarks=0, train_scenes=4000,
    validation_scenes=400, wording="many",
)  # fmt: skip
PATTERNED = MazeConfig(
    grid=9, rooms=30, colors=COLORS, patterns=True, floor_lines=True, landmarks=0, train_scenes=4000,
    validation_scenes=400, wording="many",
)  # fmt: skip
_FIRST = {"train": 0, "validation": 100_000_000}  # the seeds of the splits
_BLOCK = 100  # mazes of a WAD, which takes half a second to write
_MARGIN = 40  # map units: how far from a cell's centre an episode may start
_TONE = np.arange(256, dtype=np.uint8)


class MazeSimulator:
    """See ``Simulator``. Needs the ``[sim]`` extra. Scenes are named by their seeds, ``maze/123``.

    Args:
        size: (height, width) of a frame, multiples of 8.
        chunk: steps per command.
        config: the world.
    """

    name = "maze"
    fps = FPS
    units = DOOM

    def __init__(self, size: tuple[int, int], chunk: int, config: MazeConfig):
        vizdoom = import_vizdoom()
        self.version = f"{vizdoom.__version__}-{GENERATOR}"
        self.size, self.config = size, config
        self.commands = walker_commands(chunk, config.wording)
        self.action_space = walker_space(chunk)
        self._engine = DoomEngine(size, Path(vizdoom.__file__).parent / "freedoom2.wad", _TONE)
        # The collector asks for them in every episode, and thousands of names take milliseconds.
        counts = {"train": config.train_scenes, "validation": config.validation_scenes}
        self._scenes = {
            split: tuple(f"{self.name}/{seed}" for seed in range(first, first + counts[split]))
            for split, first in _FIRST.items()
        }
        self._layouts: dict[int, Layout] = {}
        self._layout: Layout | None = None

    def scenes(self, split: str) -> tuple[str, ...]:
        if split not in self._scenes:
            raise VgenError(f"split {split!r} has no mazes; expected {' or '.join(self._scenes)}")
        return self._scenes[split]

    def layout(self, scene: str) -> Layout:
        """The maze of a scene."""
        return make_layout(self.config, _seed(scene))

    def reset(self, seed: int, scene: str) -> Observation:
        """Loads the maze and moves the player near the centre of a cell, facing a way, all drawn from the seed."""
        rng = np.random.default_rng(seed)
        number = _seed(scene)
        if number not in self._layouts:
            self._prepare(number - number % _BLOCK)
        self._layout = self._layouts[number]
        self._engine.load(_lump(number), int(rng.integers(2**31)))
        places = starts(self._layout)
        x, y = places[rng.integers(len(places))] + rng.integers(-_MARGIN, _MARGIN + 1, 2)
        self._engine.place(int(x), int(y))
        return self.step(np.array([float(rng.uniform(-180, 180)), 0, 0], np.float32))

    def _prepare(self, first: int) -> None:
        """Writes the WAD of a block of mazes and starts the engine with it."""
        layouts = {n: make_layout(self.config, n) for n in range(first, first + _BLOCK)}
        path = self._engine.folder / "mazes.wad"
        write_wad(path, {_lump(n): layout for n, layout in layouts.items()}, self.config.floor_lines)
        self._engine.start(_lump(first), path)
        self._layouts = layouts

    def step(self, action: np.ndarray) -> Observation:
        return self._engine.step(action)

    def clearance(self) -> tuple[float, float, float]:
        return self._engine.clearance()

    def extras(self, pose_TP: np.ndarray) -> dict[str, np.ndarray]:
        """Ground truth of the last scene.

        Returns:
            ``cell`` (T, 2) int16, row and column of the camera; ``rooms`` (grid, grid) int16 and ``wall_colors``
            (R, 2) int16, see ``maze_layout.Layout``; ``palette`` (12, 3) uint8.
        """
        if self._layout is None:
            raise VgenError("a maze has no ground truth before its first reset")
        return {
            "cell": np.floor(pose_TP[:, 1::-1] / CELL).astype(np.int16),
            "rooms": self._layout.room_YX,
            "wall_colors": self._layout.color_R2,
            "palette": np.asarray(WALL_RGB, np.uint8),
        }

    def close(self) -> None:
        self._engine.close()


def _seed(scene: str) -> int:
    name, _, number = scene.rpartition("/")
    if name != MazeSimulator.name or not number.isdecimal() or str(int(number)) != number:
        raise VgenError(f"scene {scene!r} is no maze: name one like {MazeSimulator.name}/123")
    return int(number)


def _lump(seed: int) -> str:
    return f"M{seed % 10_000_000:07d}"
