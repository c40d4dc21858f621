"""Collects a split of a data set in parallel processes, shard by shard, whatever plays it.

A shard's content depends on the plan and on its number alone, never on the number of workers; a finished shard is
skipped when the collection is started again.
"""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import multiprocessing.util
import queue
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from vgen_jax.data.records import INFO_FILE, EpisodeWriter, read_info, scenes_of, shard_name, write_text
from vgen_jax.data.schema import SCHEMA_VERSION, DatasetInfo, Episode, ShardInfo, may_share_scenes
from vgen_jax.files.progress import progress as progress_bar
from vgen_jax.types import VgenError


class Recorder(Protocol):
    """Plays a plan's shards, in one process."""

    def record(self, shard: int) -> Iterator[Episode]:
        """The episodes of a shard; they depend on the plan and on its number alone."""
        ...

    def describe(self) -> DatasetInfo:
        """What ``dataset.json`` says of the data; its splits are left empty."""
        ...

    def close(self) -> None: ...


class Plan(Protocol):
    """What to collect. It travels to the processes and must be picklable."""

    @property
    def split(self) -> str: ...

    @property
    def workers(self) -> int:
        """Parallel processes; without influence on what is collected."""
        ...

    @property
    def shards(self) -> int: ...

    def settings(self) -> Mapping[str, Any]:
        """All that decides the content, as JSON; a folder that was begun with other settings is refused."""
        ...

    def shard_frames(self, shard: int) -> int:
        """About how many frames a shard will have, for the progress bar."""
        ...

    def open(self) -> Recorder: ...


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


class _Worker:
    """One process's recorder, opened with its first shard, and the queue on which it tells its progress."""

    recorder: Recorder | None = None
    progress: Any = None

    @classmethod
    def start(cls, progress: Any) -> None:
        cls.progress = progress

    @classmethod
    def the_recorder(cls, plan: Plan) -> Recorder:
        # Not in the pool's initializer: a fault there would break the pool instead of reaching the parent as itself.
        if cls.recorder is None:
            cls.recorder = plan.open()
            multiprocessing.util.Finalize(None, cls.recorder.close, exitpriority=1)
        return cls.recorder


def _collect_shard(folder: Path, plan: Plan, shard: int) -> None:
    recorder = _Worker.the_recorder(plan)
    with EpisodeWriter(folder / shard_name(plan.split, shard, plan.shards)) as writer:
        started = time.monotonic()
        for episode in recorder.record(shard):
            writer.write(episode)
            now = time.monotonic()
            _Worker.progress.put((len(episode.frames_THWC), now - started))
            started = now
        write_text(_index_path(folder, plan, shard), json.dumps(dataclasses.asdict(writer.info)))


def _index_path(folder: Path, plan: Plan, shard: int) -> Path:
    return folder / f".{shard_name(plan.split, shard, plan.shards)}.json"


def _read_index(folder: Path, plan: Plan, shard: int) -> ShardInfo | None:
    """The finished shard's index, ``None`` if it has to be (re)made. The shard's file is the last to appear."""
    path = _index_path(folder, plan, shard)
    if not (path.is_file() and (folder / shard_name(plan.split, shard, plan.shards)).is_file()):
        return None
    raw = json.loads(path.read_text())
    return ShardInfo(raw["file"], tuple(raw["frames"]), tuple(raw["scenes"]))


def _check_same(folder: Path, plan: Plan) -> None:
    """Refuses to continue a collection that was begun with other settings."""
    path = folder / f"{plan.split}.collect.json"
    # The shards of another schema version could not be read with the new ones.
    wanted = json.loads(json.dumps({**plan.settings(), "schema_version": SCHEMA_VERSION}))
    if path.is_file():
        found = json.loads(path.read_text())
        for key in wanted:
            if key not in found or found[key] != wanted[key]:
                had = found[key] if key in found else "absent"
                raise VgenError(f"{path}: {key} is {had} there and {wanted[key]} now; use another folder")
    else:
        write_text(path, json.dumps(wanted, indent=1))


def collect_shards(out: str | Path, plan: Plan) -> CollectReport:
    """Collects one split into a folder; call it once per split. Prints progress and frames/s.

    Raises:
        VgenError: the folder holds a collection with other settings (the key is named), or a worker failed.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    _check_same(folder, plan)
    todo = [s for s in range(plan.shards) if _read_index(folder, plan, s) is None]
    if todo and _is_listed(folder, plan):
        todo = []
    started = time.monotonic()
    new_frames, busy = _run_workers(folder, plan, todo) if todo else (0, 0.0)
    seconds = time.monotonic() - started
    if not _is_listed(folder, plan):
        _write_info(folder, plan)
    info = read_info(folder)
    report = CollectReport(info.frames(plan.split), new_frames, seconds, new_frames / max(busy, 1e-9))
    speed = (
        f", {report.frames_per_second:.0f} frames/s per process ({plan.workers} at most), {new_frames / seconds:.0f} "
        "frames/s in all with the processes' start"
    )
    print(
        f"{plan.split}: {report.frames} frames in {plan.shards} shards, {new_frames} new{speed if todo else ''}",
        flush=True,
    )
    return report


def _run_workers(folder: Path, plan: Plan, todo: list[int]) -> tuple[int, float]:
    """Returns the new frames and the seconds that the processes took for them, added up."""
    context = multiprocessing.get_context("spawn")
    progress = context.Queue()
    total = sum(plan.shard_frames(shard) for shard in todo)
    collected, busy = 0, 0.0
    pool = concurrent.futures.ProcessPoolExecutor(
        min(plan.workers, len(todo)), mp_context=context, initializer=_Worker.start, initargs=(progress,)
    )
    try:
        running = {pool.submit(_collect_shard, folder, plan, shard) for shard in todo}
        with progress_bar(total=total, unit="frame", desc=f"collect {plan.split}") as bar:
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


def _is_listed(folder: Path, plan: Plan) -> bool:
    return (folder / INFO_FILE).is_file() and plan.split in read_info(folder).splits


def _write_info(folder: Path, plan: Plan) -> None:
    """Adds the split to ``dataset.json``, which then replaces the shards' own indices."""
    shards = []
    for number in range(plan.shards):
        index = _read_index(folder, plan, number)
        if index is None:
            raise VgenError(f"{folder}: shard {number} of {plan.split} vanished; start the collection again")
        shards.append(index)
    recorder = plan.open()
    recorder.close()
    info = dataclasses.replace(recorder.describe(), splits={plan.split: tuple(shards)})
    if (folder / INFO_FILE).is_file():
        info = merge(read_info(folder), info, folder)
    write_text(folder / INFO_FILE, info.to_json())
    for number in range(plan.shards):
        _index_path(folder, plan, number).unlink()


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


def part_seed(seed: int, split: str, *numbers: int) -> int:
    """A seed for one part of a split of a collection; other splits and other numbers have others."""
    # A number of the split's name; Python's own hash differs between processes.
    name = sum(ord(letter) << i for i, letter in enumerate(split))
    return int(np.random.SeedSequence((seed, name, *numbers)).generate_state(1)[0])
