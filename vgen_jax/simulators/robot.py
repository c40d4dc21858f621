"""A robot that drives through a hall among walking figures: the moving platform of LeAP's experiments, on any machine.

It is told a forward velocity and a turn rate, every command held for three frames, at 20 frames a second, as RoAM's
robot is; it follows them with limited accelerations, and is stopped by walls, boxes and figures. The hall is small,
such that RoAM's 0.1 m/s show in a second. Who drives (``Driver``) cruises, turns away from what is near, and turns for
no reason now and then: what it will do next can partly be seen.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from vgen_jax.data.importers.trajectories import VELOCITIES
from vgen_jax.data.schema import ActionSpace, Command, DatasetInfo, Episode
from vgen_jax.data.shards import part_seed
from vgen_jax.data.units import ROBOT
from vgen_jax.simulators.base import Observation
from vgen_jax.simulators.robot_view import FIGURE_RADIUS, Figures, Hall, distances, draw, make_figures, make_hall
from vgen_jax.types import VgenError

GENERATOR = 1  # changes whenever a seed gives another hall, or a hall other pictures
FPS, HELD = 20.0, 3
SPEED, TURN = 0.1, 1.8  # m/s and rad/s that are 1 in model units
_ACCELERATION, _SWING = 0.4, 9.0  # m/s², rad/s²
_RADIUS = 0.06  # of the robot
_FIRST = {"train": 0, "validation": 100_000_000}  # the seeds of the splits
_SCENES = {"train": 4000, "validation": 400}

# name: (share of the speed, share of the turn rate), paraphrases
_TABLE: dict[str, tuple[float, float, tuple[str, ...]]] = {
    "stop": (0.0, 0.0, ("stop", "stand still")),
    "go forward": (1.0, 0.0, ("go forward", "drive on")),
    "turn left": (0.2, 0.6, ("turn left", "look to the left")),
    "turn right": (0.2, -0.6, ("turn right", "look to the right")),
    "bear left": (0.8, 0.25, ("bear left", "drive in a curve to the left")),
    "bear right": (0.8, -0.25, ("bear right", "drive in a curve to the right")),
}


def robot_space() -> ActionSpace:
    """m/s and rad/s, counter-clockwise; RoAM's scales."""
    return ActionSpace("continuous", VELOCITIES, (SPEED, TURN))


def robot_commands(chunk: int) -> tuple[Command, ...]:
    """The commands with (chunk, 2) actions each; the id is the position."""
    return tuple(
        Command(i, name, texts, ((v * SPEED, w * TURN),) * chunk)
        for i, (name, (v, w, texts)) in enumerate(_TABLE.items())
    )


class RobotSimulator:
    """See ``Simulator``. Scenes are named by their seeds, ``robot/123``.

    Args:
        size: (height, width) of a frame.
        chunk: steps per command.
        figures: who walks about.
        side: of the hall, m.
        boxes: that stand about.
    """

    name = "robot"
    version = str(GENERATOR)
    fps = FPS
    units = ROBOT

    def __init__(self, size: tuple[int, int], chunk: int = HELD, figures: int = 3, side: float = 1.6, boxes: int = 4):
        self.size, self.action_space, self.commands = size, robot_space(), robot_commands(chunk)
        self._count, self._side, self._boxes = figures, side, boxes
        self._hall: Hall | None = None

    def scenes(self, split: str) -> tuple[str, ...]:
        if split not in _FIRST:
            raise VgenError(f"split {split!r} has no halls; expected {' or '.join(_FIRST)}")
        return tuple(f"{self.name}/{_FIRST[split] + n}" for n in range(_SCENES[split]))

    def reset(self, seed: int, scene: str) -> Observation:
        """The hall is the scene's; the start, a heading and the figures are the seed's."""
        self._hall = make_hall(np.random.default_rng(int(scene.rpartition("/")[2])), self._side, self._boxes)
        rng = np.random.default_rng((seed, 2))
        self._figures: Figures = make_figures(rng, self._side, self._count)
        self._place = self._side / 2 + rng.uniform(-0.1, 0.1, 2)
        self._heading, self._velocity, self._seconds = float(rng.uniform(-np.pi, np.pi)), np.zeros(2), 0.0
        return self._look()

    def step(self, action: np.ndarray) -> Observation:
        """Follows (2,) a forward velocity and a turn rate for a frame, as far as accelerations and walls allow."""
        limits = np.array([_ACCELERATION, _SWING]) / FPS
        self._velocity = self._velocity + np.clip(np.asarray(action, np.float64) - self._velocity, -limits, limits)
        before = self._heading
        self._heading += self._velocity[1] / FPS
        self._seconds += 1.0 / FPS
        ahead = (before + self._heading) / 2
        wanted = self._place + self._velocity[0] / FPS * np.array([np.cos(ahead), np.sin(ahead)])
        if self._free(wanted):
            self._place = wanted
        else:
            self._velocity[0] = 0.0
        return self._look()

    def _free(self, place_2: np.ndarray) -> bool:
        hall = self._hall_now()
        if not ((place_2 > _RADIUS) & (place_2 < hall.side - _RADIUS)).all():
            return False
        gap = np.maximum(hall.box_N4[:, :2] - place_2, place_2 - hall.box_N4[:, 2:]).max(1, initial=-np.inf)
        apart = np.linalg.norm(self._figures.places(self._seconds) - place_2, axis=1)
        return bool((gap > _RADIUS).all() and (apart > _RADIUS + FIGURE_RADIUS).all())

    def _hall_now(self) -> Hall:
        if self._hall is None:
            raise VgenError("the simulator stands nowhere yet: reset it to a scene first")
        return self._hall

    def _look(self) -> Observation:
        frame = draw(self._hall_now(), self._figures, self._place, self._heading, self._seconds, self.size)
        pose = np.array([*self._place, 0.0, math.degrees(self._heading)], np.float32)
        return Observation(frame, pose, False)

    def clearance(self) -> tuple[float, float, float]:
        """Metres to what stands left, ahead and right, figures included."""
        hall = self._hall_now()
        angles = self._heading + np.radians([30.0, 0.0, -30.0])
        ray_32 = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        far_3 = distances(hall, self._place, ray_32)[0]
        for offset in self._figures.places(self._seconds) - self._place:
            along_3 = ray_32 @ offset
            aside_3 = np.linalg.norm(offset - along_3[:, None] * ray_32, axis=1)
            far_3 = np.where((along_3 > 0) & (aside_3 < FIGURE_RADIUS + _RADIUS), np.minimum(far_3, along_3), far_3)
        left, ahead, right = (float(far) for far in far_3)
        return left, ahead, right

    def extras(self, pose_TP: np.ndarray) -> dict[str, np.ndarray]:
        return {}

    def close(self) -> None:
        """There is nothing to end."""


class Driver:
    """Says what is done next, given what is near. The same seed and the same sights give the same commands."""

    def __init__(self, seed: int):
        self._rng = np.random.default_rng((seed, 3))
        self._speed, self._drift = self._rng.uniform(0.6, 1.0), 0.0
        self._side, self._whim, self._left = 0.0, 0.0, 0

    def next(self, clearance: tuple[float, float, float]) -> np.ndarray:
        """(2,) raw: m/s and rad/s."""
        left, ahead, right = clearance
        self._drift = 0.7 * self._drift + self._rng.normal(0.0, 0.05)
        if min(ahead, left, right) < 0.22:
            if not self._side:
                self._side = 1.0 if left > right else -1.0
            return np.array([0.25 * SPEED * (ahead > 0.15), self._side * 0.65 * TURN])
        self._side = 0.0
        if self._left:
            self._left -= 1
        elif self._rng.random() < 0.06:
            self._left, self._whim = int(self._rng.integers(3, 9)), float(self._rng.uniform(-0.5, 0.5))
            self._speed = float(self._rng.uniform(0.4, 1.0))
        else:
            self._whim = 0.0
        return np.array([self._speed * SPEED, np.clip(self._whim + self._drift, -1.0, 1.0) * TURN])


@dataclasses.dataclass(frozen=True)
class RobotConfig:
    """What to record; a ``data.shards.Plan``.

    Attributes:
        split: ``train`` or ``validation``; their halls are disjoint.
        episodes: drives, each in a hall of its own as long as there are any.
        steps: actions of a drive, a multiple of 3; it has one frame more.
        size: (height, width) of a frame, multiples of 8.
        figures: who walks about.
        boxes: that stand about.
        side: of the hall, m.
        episodes_per_shard: how much a kill can lose.
        seed: of everything.
        workers: parallel processes; has no influence on what is recorded.
    """

    split: str
    episodes: int
    steps: int
    size: tuple[int, int]
    figures: int
    boxes: int
    side: float
    episodes_per_shard: int
    seed: int
    workers: int

    def __post_init__(self) -> None:
        for key in ("episodes", "steps", "episodes_per_shard", "workers"):
            if getattr(self, key) < 1:
                raise VgenError(f"{key}={getattr(self, key)} must be at least 1")
        if self.steps % HELD:
            raise VgenError(f"steps={self.steps} must be a multiple of {HELD}, for which a command is held")
        if self.size[0] % 8 or self.size[1] % 8 or min(self.size) < 8:
            raise VgenError(f"size={self.size}: height and width must be multiples of 8")
        if self.side < 1.0 or min(self.boxes, self.figures) < 0:
            raise VgenError(f"side={self.side}, boxes={self.boxes}, figures={self.figures}: use 1 m or more, 0 or more")

    @property
    def shards(self) -> int:
        return math.ceil(self.episodes / self.episodes_per_shard)

    def settings(self) -> dict[str, Any]:
        return {key: value for key, value in dataclasses.asdict(self).items() if key != "workers"}

    def episodes_of(self, shard: int) -> range:
        """The numbers of a shard's drives."""
        first = shard * self.episodes_per_shard
        return range(first, min(first + self.episodes_per_shard, self.episodes))

    def shard_frames(self, shard: int) -> int:
        return len(self.episodes_of(shard)) * (self.steps + 1)

    def open(self) -> "RobotRecorder":
        return RobotRecorder(self, RobotSimulator(self.size, HELD, self.figures, self.side, self.boxes))


@dataclasses.dataclass(frozen=True)
class RobotRecorder:
    """See ``data.shards.Recorder``."""

    config: RobotConfig
    simulator: RobotSimulator

    def record(self, shard: int) -> Iterator[Episode]:
        """The shard's drives."""
        scenes = self.simulator.scenes(self.config.split)
        for number in self.config.episodes_of(shard):
            yield self._drive(scenes[number % len(scenes)], part_seed(self.config.seed, self.config.split, number))

    def _drive(self, scene: str, seed: int) -> Episode:
        config, simulator, driver = self.config, self.simulator, Driver(seed)
        seen = simulator.reset(seed, scene)
        frames, poses, actions = [seen.frame_HWC], [seen.pose], []
        command = np.zeros(2)
        for step in range(config.steps):
            if step % HELD == 0:
                command = driver.next(simulator.clearance())
            seen = simulator.step(command)
            frames.append(seen.frame_HWC)
            poses.append(seen.pose)
            actions.append(command)
        return Episode(
            source=simulator.name,
            simulator=simulator.name,
            simulator_version=simulator.version,
            seed=seed,
            split=config.split,
            scene=scene,
            fps=FPS,
            frames_THWC=np.stack(frames),
            actions={"continuous": np.asarray(actions, np.float32)},
            extras={"pose": np.stack(poses)},
        )

    def describe(self) -> DatasetInfo:
        """What ``dataset.json`` says of the data."""
        simulator = self.simulator
        return DatasetInfo(
            source=simulator.name,
            simulator=simulator.name,
            simulator_version=simulator.version,
            fps=FPS,
            frame_shape=(*self.config.size, 3),
            content="frames",
            chunk=HELD,
            action_spaces={"continuous": simulator.action_space},
            commands=simulator.commands,
            splits={},
        )

    def close(self) -> None:
        self.simulator.close()
