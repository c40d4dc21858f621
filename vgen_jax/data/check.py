"""Reads a whole data set and says what is wrong with it, record by record."""

import collections
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vgen_jax.data.codec import FRAMES_PER_RECORD
from vgen_jax.data.records import INFO_FILE, EpisodeSource, read_info, scenes_of
from vgen_jax.data.schema import DatasetInfo, Episode, may_share_scenes, validate
from vgen_jax.files.progress import progress
from vgen_jax.types import VgenError


@dataclasses.dataclass(frozen=True)
class SplitSummary:
    """What a split holds, faulty records left out.

    Attributes:
        hours: of video at the recorded rate.
        scenes: how many episodes each scene has.
        commands: how many stretches of actions each command (or free text) has.
    """

    episodes: int
    frames: int
    hours: float
    scenes: dict[str, int]
    commands: dict[str, int]


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """Summaries by split, and the faults as lines ``file: record n: fault``."""

    splits: dict[str, SplitSummary]
    faults: tuple[str, ...]


def check_data(folder: str | Path) -> CheckReport:
    """Reads, verifies and validates every record of every split; prints the faults and a summary.

    Raises:
        VgenError: there is no readable ``dataset.json``.
    """
    folder = Path(folder)
    info = read_info(folder)
    faults = list(_folder_faults(folder, info))
    splits = {}
    for split in info.splits:
        splits[split], found = _check_split(folder, split)
        faults += found
    report = CheckReport(splits, tuple(faults))
    print(_render(folder, report), flush=True)
    return report


def _folder_faults(folder: Path, info: DatasetInfo) -> Iterator[str]:
    listed = {shard.file for shards in info.splits.values() for shard in shards}
    for path in sorted(folder.glob("*.array_record")):
        if path.name not in listed:
            yield f"{path}: not listed in {INFO_FILE}, so nothing will read it"
    names = list(info.splits)
    for n, first in enumerate(names):
        for second in names[n + 1 :]:
            common = scenes_of(info.splits[first]) & scenes_of(info.splits[second])
            if common and not may_share_scenes(first, second):
                yield f"{folder / INFO_FILE}: scenes in both {first} and {second}: {', '.join(sorted(common))}"


def _check_split(folder: Path, split: str) -> tuple[SplitSummary, list[str]]:
    source = EpisodeSource(folder, split)
    scenes: collections.Counter[str] = collections.Counter()
    commands: collections.Counter[str] = collections.Counter()
    frames, seconds, faults = 0, 0.0, []
    closed: set[int] = set()
    with progress(total=len(source), desc=f"check {split}", unit="episode") as bar:
        for index in range(len(source)):
            bar.update()
            shard, _ = source.locate(index)
            if shard in closed:
                continue
            try:
                source.open_shard(shard)
            except VgenError as error:
                closed.add(shard)
                faults.append(str(error))
                continue
            episode, found = _read(source, index)
            faults += found
            if episode is None:
                continue
            frames += len(episode.frames_THWC)
            seconds += len(episode.frames_THWC) / episode.fps
            scenes[episode.scene] += 1
            commands.update(_commands(source.info, episode))
    summary = SplitSummary(sum(scenes.values()), frames, seconds / 3600, dict(scenes), dict(commands.most_common()))
    return summary, faults


def _read(source: EpisodeSource, index: int) -> tuple[Episode | None, list[str]]:
    """A sound episode, or the faults of all of its records."""
    parts, faults = [], []
    total = source.frames[index]
    try:
        head = source.head(index)
    except VgenError as error:
        return None, [str(error)]
    for start in range(0, total, FRAMES_PER_RECORD):
        try:
            parts.append(source.window(index, start, min(start + FRAMES_PER_RECORD, total)))
        except VgenError as error:
            faults.append(str(error))
    if faults:
        return None, faults
    try:
        episode = head.episode(np.concatenate(parts))
        validate(episode)
        _matches(episode, source, index)
    except VgenError as error:
        return None, [f"{source.name(index)}: {error}"]
    return episode, []


def _matches(episode: Episode, source: EpisodeSource, index: int) -> None:
    """Checks an episode against what ``dataset.json`` says of it; the source has checked its shape."""
    info = source.info
    content = "frames" if episode.frames_THWC.dtype == np.uint8 else "latents"
    pairs = {
        "content": (content, info.content),
        "split": (episode.split, source.split),
        "scene": (episode.scene, source.scenes[index]),
        "fps": (episode.fps, info.fps),
        "action spaces": (sorted(episode.actions), sorted(info.action_spaces)),
    }
    for name, (found, expected) in pairs.items():
        if found != expected:
            raise VgenError(f"{name} {found}, but {INFO_FILE} says {expected}")
    for name, space in info.action_spaces.items():
        values = episode.actions[name]
        if values.ndim == 2 and values.shape[1] != space.width:
            raise VgenError(f"{values.shape[1]} action columns, but {INFO_FILE} names {space.width}")
        space.to_model(values)


def _commands(info: DatasetInfo, episode: Episode) -> Iterator[str]:
    book = info.book
    for span in episode.texts:
        yield book[span.text].name if span.text in book else span.text


def _render(folder: Path, report: CheckReport) -> str:
    lines = [f"{folder}", f"{'split':<12}{'episodes':>10}{'frames':>12}{'hours':>9}{'scenes':>9}{'faults':>9}"]
    for name, split in report.splits.items():
        faults = sum(f"/{name}-" in fault for fault in report.faults)
        lines.append(
            f"{name:<12}{split.episodes:>10}{split.frames:>12}{split.hours:>9.2f}{len(split.scenes):>9}{faults:>9}"
        )
    for name, split in report.splits.items():
        total = sum(split.commands.values())
        shares = ", ".join(f"{command} {count / total:.1%}" for command, count in list(split.commands.items())[:24])
        lines.append(f"{name} commands: {shares or 'none'}")
    lines += [f"FAULT {fault}" for fault in report.faults] or ["no faults"]
    return "\n".join(lines)
