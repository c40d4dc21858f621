"""Collects episodes from a simulator in parallel processes.

A shard's content depends on the seed and on its number alone, never on the number of workers; a finished shard is
skipped when the collection is started again.
"""

import concurrent.futures
import dataclasses
import json
import math
import multiprocessing
import multiprocessing.util
import queue
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vgen_jax.data.records import (
    INFO_FILE,
    EpisodeWriter,
    read_info,
    scenes_of,
    shard_name,
    write_text,
)
from vgen_jax.data.schema import SCHEMA_VERSION, ActionSpace, DatasetInfo, Episode, ShardInfo, may_share_scenes
from vgen_jax.data.sims.base import Simulator
from vgen_jax.data.sims.explorer import Explorer
from vgen_jax.data.sims.paths import PathsConfig, path_scene, record_path
from vgen_jax.data.sims.record import play
from vgen_jax.data.sims.vizdoom import VizDoomSimulator
from vgen_jax.log import progress as progress_bar
from vgen_jax.types import VgenError

SIMULATORS = {"vizdoom": VizDoomSimulator}
_ATTEMPTS = 20
_PLACES, _PATH_ATTEMPTS = 15, 300


@dataclasses.dataclass(frozen=True)
class CollectConfig:
    """What to collect.

    Attributes:
        simulator: ``vizdoom``.
        split: ``train`` or ``validation``; their scenes are disjoint.
        frames: at least so many are collected, in whole episodes.
        episode_steps: actions per episode, a multiple of chunk; an episode has one frame more.
        size: (height, width) of a frame, multiples of 8.
        chunk: steps per command.
        episodes_per_shard: how much a kill can lose.
        seed: of everything.
        workers: parallel processes; has no influence on what is collected.
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

    def __post_init__(self) -> None:
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


class CollectReport(NamedTuple):
    """What a collection did.

    Attributes:
        frames: of the whole split.
        new_frames: collected by this run.
        seconds: this run's wall clock.
        frames_per_second: new frames per second and worker process (simulating, coding and writing; one process keeps
            one core busy), without the processes' start.
    """

    frames: int
    new_frames: int
    seconds: float
    frames_per_second: float


def make_simulator(config: CollectConfig) -> Simulator:
    return SIMULATORS[config.simulator](config.size, config.chunk)


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
    # A number of the split's name; Python's own hash differs between processes.
    split = sum(ord(letter) << i for i, letter in enumerate(config.split))
    return int(np.random.SeedSequence((config.seed, split, episode, attempt)).generate_state(1)[0])


class _Worker:
    """One process's simulator, started with its first shard, and the queue on which it tells its progress."""

    simulator: Simulator | None = None
    progress: Any = None

    @classmethod
    def start(cls, progress: Any) -> None:
        cls.progress = progress

    @classmethod
    def the_simulator(cls, config: CollectConfig) -> Simulator:
        # Not in the pool's initializer: a fault there would break the pool instead of reaching the parent as itself.
        if cls.simulator is None:
            cls.simulator = make_simulator(config)
            multiprocessing.util.Finalize(None, cls.simulator.close, exitpriority=1)
        return cls.simulator


def _collect_shard(folder: Path, config: CollectConfig, paths: PathsConfig | None, shard: int) -> None:
    simulator = _Worker.the_simulator(config)
    attempts = _ATTEMPTS if paths is None else _PATH_ATTEMPTS
    first = shard * config.episodes_per_shard
    with EpisodeWriter(folder / shard_name(config.split, shard, config.shards)) as writer:
        for number in range(first, min(first + config.episodes_per_shard, config.episodes)):
            started = time.monotonic()
            for attempt in range(attempts):
                scene, episode = _attempt(simulator, config, paths, number, attempt)
                if episode is not None:
                    break
            else:
                why = "ended early" if paths is None else "had no room or did not come back"
                raise VgenError(f"{scene}: {attempts} episodes in a row {why}; use another seed")
            writer.write(episode)
            _Worker.progress.put((len(episode.frames_THWC), time.monotonic() - started))
        write_text(_index_path(folder, config, shard), json.dumps(dataclasses.asdict(writer.info)))


def _index_path(folder: Path, config: CollectConfig, shard: int) -> Path:
    return folder / f".{shard_name(config.split, shard, config.shards)}.json"


def _read_index(folder: Path, config: CollectConfig, shard: int) -> ShardInfo | None:
    """The finished shard's index, ``None`` if it has to be (re)made. The shard's file is the last to appear."""
    path = _index_path(folder, config, shard)
    if not (path.is_file() and (folder / shard_name(config.split, shard, config.shards)).is_file()):
        return None
    raw = json.loads(path.read_text())
    return ShardInfo(raw["file"], tuple(raw["frames"]), tuple(raw["scenes"]))


def _check_same(folder: Path, config: CollectConfig, paths: PathsConfig | None) -> None:
    """Refuses to continue a collection that was begun with other settings."""
    path = folder / f"{config.split}.collect.json"
    wanted = {key: value for key, value in dataclasses.asdict(config).items() if key != "workers"}
    if paths is not None:
        wanted["paths"] = dataclasses.asdict(paths)
    wanted["schema_version"] = SCHEMA_VERSION  # the shards of another version could not be read with the new ones
    wanted = json.loads(json.dumps(wanted))
    if path.is_file():
        found = json.loads(path.read_text())
        for key in wanted:
            if key not in found or found[key] != wanted[key]:
                had = found[key] if key in found else "absent"
                raise VgenError(f"{path}: {key} is {had} there and {wanted[key]} now; use another folder")
    else:
        write_text(path, json.dumps(wanted, indent=1))


def collect(out: str | Path, config: CollectConfig, paths: PathsConfig | None = None) -> CollectReport:
    """Collects one split into a folder; call it once per split. Prints progress and frames/s per process.

    Args:
        paths: scripted paths instead of the explorer's walks; ``config`` asks for as many steps and frames.

    Raises:
        VgenError: the folder holds a collection with other settings (the key is named), or a worker failed.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    _check_same(folder, config, paths)
    todo = [s for s in range(config.shards) if _read_index(folder, config, s) is None]
    if todo and _is_listed(folder, config):
        todo = []
    started = time.monotonic()
    new_frames, busy = _run_workers(folder, config, paths, todo) if todo else (0, 0.0)
    seconds = time.monotonic() - started
    if not _is_listed(folder, config):
        _write_info(folder, config)
    info = read_info(folder)
    report = CollectReport(info.frames(config.split), new_frames, seconds, new_frames / max(busy, 1e-9))
    speed = f", {report.frames_per_second:.0f} frames/s per process ({config.workers} at most)" if todo else ""
    print(f"{config.split}: {report.frames} frames in {config.shards} shards, {new_frames} new{speed}", flush=True)
    return report


def _run_workers(folder: Path, config: CollectConfig, paths: PathsConfig | None, todo: list[int]) -> tuple[int, float]:
    """Returns the new frames and the seconds that the processes took for them, added up."""
    context = multiprocessing.get_context("spawn")
    progress = context.Queue()
    total = sum(_shard_frames(config, shard) for shard in todo)
    collected, busy = 0, 0.0
    pool = concurrent.futures.ProcessPoolExecutor(
        min(config.workers, len(todo)), mp_context=context, initializer=_Worker.start, initargs=(progress,)
    )
    try:
        running = {pool.submit(_collect_shard, folder, config, paths, shard) for shard in todo}
        with progress_bar(total=total, unit="frame", desc=f"collect {config.split}") as bar:
            while running:
                finished, running = concurrent.futures.wait(
                    running, timeout=0.2, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for future in finished:
                    future.result()
                while True:
                    try:
                        frames, spent = progress.get(timeout=0.0 if running else 0.2)
                    except queue.Empty:
                        break
                    collected, busy = collected + frames, busy + spent
                    bar.update(frames)
    except concurrent.futures.process.BrokenProcessPool as error:
        raise VgenError("a collecting process died (killed, or out of memory); start again to go on") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return collected, busy


def _shard_frames(config: CollectConfig, shard: int) -> int:
    episodes = min(config.episodes_per_shard, config.episodes - shard * config.episodes_per_shard)
    return episodes * (config.episode_steps + 1)


def _is_listed(folder: Path, config: CollectConfig) -> bool:
    return (folder / INFO_FILE).is_file() and config.split in read_info(folder).splits


def _write_info(folder: Path, config: CollectConfig) -> None:
    """Adds the split to ``dataset.json``, which then replaces the shards' own indices."""
    simulator = make_simulator(config)
    simulator.close()
    spaces = {
        "continuous": simulator.action_space,
        "discrete": ActionSpace("discrete", tuple(command.name for command in simulator.commands)),
    }
    shards = []
    for number in range(config.shards):
        index = _read_index(folder, config, number)
        if index is None:
            raise VgenError(f"{folder}: shard {number} of {config.split} vanished; start the collection again")
        shards.append(index)
    info = DatasetInfo(
        source=config.simulator,
        simulator=simulator.name,
        simulator_version=simulator.version,
        fps=simulator.fps,
        frame_shape=(*config.size, 3),
        content="frames",
        chunk=config.chunk,
        action_spaces=spaces,
        commands=simulator.commands,
        splits={config.split: tuple(shards)},
    )
    if (folder / INFO_FILE).is_file():
        info = merge(read_info(folder), info, folder)
    write_text(folder / INFO_FILE, info.to_json())
    for number in range(config.shards):
        _index_path(folder, config, number).unlink()


def merge(old: DatasetInfo, new: DatasetInfo, folder: Path) -> DatasetInfo:
    """The splits of both, which must agree in everything else and share no scene (but see ``may_share_scenes``)."""
    for field in dataclasses.fields(DatasetInfo):
        a, b = getattr(old, field.name), getattr(new, field.name)
        if field.name != "splits" and a != b:
            raise VgenError(f"{folder / INFO_FILE}: {field.name} is {a} there and {b} now; use another folder")
    for name, shards in old.splits.items():
        for other, added in new.splits.items():
            common = scenes_of(shards) & scenes_of(added)
            if common and not may_share_scenes(name, other):
                raise VgenError(f"{folder}: scene {min(common)} is in splits {name} and {other}; use another folder")
    return dataclasses.replace(old, splits={**old.splits, **new.splits})
