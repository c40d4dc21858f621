"""Collects walks and scripted paths from a simulator that a player walks through (``shards`` does the work)."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vgen_jax.config import later
from vgen_jax.data.schema import ActionSpace, DatasetInfo, Episode
from vgen_jax.data.shards import CollectReport, collect_shards, part_seed
from vgen_jax.simulators.base import Simulator
from vgen_jax.simulators.explorer import Explorer
from vgen_jax.simulators.maze import PATTERNED, PLAIN, MazeSimulator
from vgen_jax.simulators.maze_layout import MazeConfig
from vgen_jax.simulators.paths import PathsConfig, path_scene, record_path
from vgen_jax.simulators.record import play
from vgen_jax.simulators.vizdoom import VizDoomSimulator
from vgen_jax.types import VgenError

# How to make each: (size, chunk, world) -> Simulator; ``world`` is the config's section ``collect.maze``.
SIMULATORS: dict[str, Callable[[tuple[int, int], int, MazeConfig | None], Simulator]] = {
    "vizdoom": lambda size, chunk, world: VizDoomSimulator(size, chunk),
    "maze_plain": lambda size, chunk, world: MazeSimulator(size, chunk, world or PLAIN),
    "maze_patterned": lambda size, chunk, world: MazeSimulator(size, chunk, world or PATTERNED),
}
_ATTEMPTS = 20
_PLACES, _PATH_ATTEMPTS = 15, 300


@dataclasses.dataclass(frozen=True)
class CollectConfig:
    """What to collect.

    Attributes:
        simulator: ``vizdoom`` (the maps of Freedoom), ``maze_plain`` or ``maze_patterned``.
        split: ``train`` or ``validation``; their scenes are disjoint.
        frames: at least so many are collected, in whole episodes.
        episode_steps: actions per episode, a multiple of chunk; an episode has one frame more.
        size: (height, width) of a frame, multiples of 8.
        chunk: steps per command.
        episodes_per_shard: how much a kill can lose.
        seed: of everything.
        workers: parallel processes; has no influence on what is collected.
        maze: another world of mazes than the simulator's own.
    """

    simulator: str
    split: str
    frames: int
    episode_steps: int
    size: tuple[int, int]
    chunk: int
    episodes_per_shard: int
    seed: int
    workers: int
    maze: MazeConfig | None = later(None)

    def __post_init__(self) -> None:
        if self.maze is not None and not self.simulator.startswith("maze"):
            raise VgenError(f"collect.maze is given, but collect.simulator is {self.simulator!r}: use maze_plain")
        if self.simulator not in SIMULATORS:
            raise VgenError(f"simulator={self.simulator!r} is unknown; expected one of {', '.join(SIMULATORS)}")
        for key in ("frames", "episode_steps", "chunk", "episodes_per_shard", "workers"):
            if getattr(self, key) < 1:
                raise VgenError(f"{key}={getattr(self, key)} must be at least 1")
        if self.episode_steps % self.chunk:
            raise VgenError(f"episode_steps={self.episode_steps} must be a multiple of chunk={self.chunk}")

    @property
    def episodes(self) -> int:
        return math.ceil(self.frames / (self.episode_steps + 1))

    @property
    def shards(self) -> int:
        return math.ceil(self.episodes / self.episodes_per_shard)


def make_simulator(config: CollectConfig) -> Simulator:
    """The simulator that a configuration names."""
    return SIMULATORS[config.simulator](config.size, config.chunk, config.maze)


def record_episode(simulator: Simulator, config: CollectConfig, scene: str, seed: int) -> Episode | None:
    """Plays one episode of the explorer; ``None`` where the simulator ended it early."""
    explorer = Explorer(seed)
    steps, chunk = config.episode_steps, config.chunk
    return play(simulator, scene, seed, config.split, steps, chunk, lambda sight, pose_TP: explorer.next(sight))


def _attempt(
    simulator: Simulator, config: CollectConfig, paths: PathsConfig | None, number: int, attempt: int
) -> tuple[str, Episode | None]:
    """One try at an episode: (scene, the episode)."""
    seed = _episode_seed(config, number, attempt)
    if paths is None:
        scenes = simulator.scenes(config.split)
        scene = scenes[number % len(scenes)]
        return scene, record_episode(simulator, config, scene, seed)
    scene = path_scene(simulator.scenes(paths.scenes), paths, number)
    script = attempt - attempt % _PLACES  # another script where that many places in a row had no room for one
    seeds = (_episode_seed(config, number, script), seed)
    return scene, record_path(simulator, paths, config.split, config.chunk, number, scene, seeds)


def _episode_seed(config: CollectConfig, episode: int, attempt: int) -> int:
    return part_seed(config.seed, config.split, episode, attempt)


@dataclasses.dataclass(frozen=True)
class WalkPlan:
    """See ``data.shards.Plan``: the explorer's walks, or scripted paths, through a simulator."""

    config: CollectConfig
    paths: PathsConfig | None

    @property
    def split(self) -> str:
        return self.config.split

    @property
    def workers(self) -> int:
        return self.config.workers

    @property
    def shards(self) -> int:
        return self.config.shards

    def settings(self) -> dict[str, Any]:
        left_out = {"workers"} if self.config.maze else {"workers", "maze"}
        wanted = {key: value for key, value in dataclasses.asdict(self.config).items() if key not in left_out}
        return wanted if self.paths is None else {**wanted, "paths": dataclasses.asdict(self.paths)}

    def episodes_of(self, shard: int) -> range:
        """The numbers of a shard's episodes."""
        first = shard * self.config.episodes_per_shard
        return range(first, min(first + self.config.episodes_per_shard, self.config.episodes))

    def shard_frames(self, shard: int) -> int:
        return len(self.episodes_of(shard)) * (self.config.episode_steps + 1)

    def open(self) -> "WalkRecorder":
        return WalkRecorder(self, make_simulator(self.config))


@dataclasses.dataclass(frozen=True)
class WalkRecorder:
    """See ``data.shards.Recorder``."""

    plan: WalkPlan
    simulator: Simulator

    def record(self, shard: int) -> Iterator[Episode]:
        """The shard's episodes; each is tried again with another seed until the simulator lets it end.

        Raises:
            VgenError: for an episode that no seed ends.
        """
        config, paths = self.plan.config, self.plan.paths
        attempts = _ATTEMPTS if paths is None else _PATH_ATTEMPTS
        for number in self.plan.episodes_of(shard):
            for attempt in range(attempts):
                scene, episode = _attempt(self.simulator, config, paths, number, attempt)
                if episode is not None:
                    break
            else:
                why = "ended early" if paths is None else "had no room or did not come back"
                raise VgenError(f"{scene}: {attempts} episodes in a row {why}; use another seed")
            yield episode

    def describe(self) -> DatasetInfo:
        """What ``dataset.json`` says of the data."""
        simulator, config = self.simulator, self.plan.config
        return DatasetInfo(
            source=config.simulator,
            simulator=simulator.name,
            simulator_version=simulator.version,
            fps=simulator.fps,
            frame_shape=(*config.size, 3),
            content="frames",
            chunk=config.chunk,
            action_spaces={
                "continuous": simulator.action_space,
                "discrete": ActionSpace("discrete", tuple(command.name for command in simulator.commands)),
            },
            commands=simulator.commands,
            splits={},
        )

    def close(self) -> None:
        self.simulator.close()


def collect(out: str | Path, config: CollectConfig, paths: PathsConfig | None = None) -> CollectReport:
    """Collects one split into a folder; call it once per split. Prints progress and frames/s per process.

    Args:
        paths: scripted paths instead of the explorer's walks; ``config`` asks for as many steps and frames.

    Raises:
        VgenError: the folder holds a collection with other settings (the key is named), or a worker failed.
    """
    return collect_shards(out, WalkPlan(config, paths))
