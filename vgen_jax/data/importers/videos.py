"""Imports a folder of videos with a table of actions as a data set of records.

The table is CSV or JSON lines. CSV has one row per action::

    video,step,turn,forward,text
    kitchen/001.mp4,0,0.5,0.2,go to the table
    kitchen/001.mp4,1,0.5,0.2,go to the table

``step`` counts from 0; the action of step t is taken at frame t and leads to frame t+1. Rows of the same text in a row
become one span; an empty text is none. JSON lines have one video each::

    {"video": "kitchen/001.mp4", "actions": [[0.5, 0.2], [0.5, 0.2]], "ids": [3, 3],
     "texts": [{"start": 0, "stop": 2, "text": "go to the table"}], "split": "train"}

In both, ``split`` is optional (all videos have it or none), ``ids`` (CSV: ``id``) are discrete actions, and a video is
one scene: the splits share none.
"""

import csv
import dataclasses
import glob
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageOps

from vgen_jax.data.records import INFO_FILE, EpisodeWriter, shard_name, write_text
from vgen_jax.data.schema import ActionSpace, DatasetInfo, Episode, ShardInfo, TextSpan, validate
from vgen_jax.files.progress import progress
from vgen_jax.types import VgenError


@dataclasses.dataclass(frozen=True)
class ImportConfig:
    """What to import.

    Attributes:
        folder: where the videos are; the table's paths are relative to it.
        table: the CSV or JSONL file; a pattern, ``episodes/*/actions.csv``, for one in each episode's folder, which
            then names its videos from there.
        source: a name for the data set.
        size: (height, width) of the stored frames; videos are cropped to that aspect around their centre and reduced
            with antialiasing.
        chunk: the grid of windows: an episode's windows begin every ``chunk`` actions.
        actions: names of the continuous action's dimensions (CSV: of its columns); empty for none.
        scale: per dimension, what makes 1 in model units; a typical magnitude.
        ids: names of the discrete actions; empty for none.
        validation_fraction: the share of videos for the validation split where the table has no ``split``.
        videos_per_shard: episodes per file.
        seed: of the choice of validation videos.
    """

    folder: str
    table: str
    source: str
    size: tuple[int, int]
    chunk: int
    actions: tuple[str, ...]
    scale: tuple[float, ...]
    ids: tuple[str, ...]
    validation_fraction: float
    videos_per_shard: int
    seed: int

    def __post_init__(self) -> None:
        if min(self.size) < 8 or self.size[0] % 8 or self.size[1] % 8:
            raise VgenError(f"size={self.size}: height and width must be multiples of 8")
        if not 0 <= self.validation_fraction < 1:
            raise VgenError(f"validation_fraction={self.validation_fraction} must be at least 0 and below 1")
        if self.chunk < 1 or self.videos_per_shard < 1:
            raise VgenError(f"chunk={self.chunk} and videos_per_shard={self.videos_per_shard} must be at least 1")

    @property
    def spaces(self) -> dict[str, ActionSpace]:
        spaces = {}
        if self.actions or self.scale:
            spaces["continuous"] = ActionSpace("continuous", self.actions, self.scale)
        if self.ids:
            spaces["discrete"] = ActionSpace("discrete", self.ids)
        return spaces


@dataclasses.dataclass(frozen=True)
class _Entry:
    """What the table says of one video; ``where`` names file and line."""

    video: str
    where: str
    actions: dict[str, np.ndarray]
    texts: tuple[TextSpan, ...]
    split: str | None


def import_videos(out: str | Path, config: ImportConfig) -> DatasetInfo:
    """Writes records and ``dataset.json`` into a folder that holds no data set yet.

    Raises:
        VgenError: what is wrong, with the table's line or the video's name.
    """
    out = Path(out)
    if (out / INFO_FILE).exists():
        raise VgenError(f"{out / INFO_FILE} exists; import into another folder")
    entries = _read_tables(config)
    splits = _assign_splits(entries, config)
    out.mkdir(parents=True, exist_ok=True)
    rates: dict[str, float] = {}
    shards: dict[str, tuple[ShardInfo, ...]] = {}
    with progress(total=len(entries), desc="import", unit="video") as bar:
        for split, members in splits.items():
            groups = [members[n : n + config.videos_per_shard] for n in range(0, len(members), config.videos_per_shard)]
            infos = []
            for number, group in enumerate(groups):
                with EpisodeWriter(out / shard_name(split, number, len(groups))) as writer:
                    for entry in group:
                        writer.write(_episode(entry, split, config, rates))
                        bar.update()
                infos.append(writer.info)
            shards[split] = tuple(infos)
    info = DatasetInfo(
        source=config.source,
        simulator="none",
        simulator_version="none",
        fps=next(iter(rates.values())),
        frame_shape=(*config.size, 3),
        content="frames",
        chunk=config.chunk,
        action_spaces=config.spaces,
        commands=(),
        splits=shards,
    )
    write_text(out / INFO_FILE, info.to_json())
    return info


def _episode(entry: _Entry, split: str, config: ImportConfig, rates: dict[str, float]) -> Episode:
    path = Path(config.folder) / entry.video
    frames, fps = read_frames(path, config.size)
    first = next(iter(rates.items()), (entry.video, fps))
    if abs(fps - first[1]) > 1e-3 * first[1]:
        raise VgenError(f"{path}: {fps:g} frames/s, but {first[0]} has {first[1]:g}; bring the videos to one rate")
    rates.setdefault(entry.video, first[1])
    for name, values in entry.actions.items():
        if len(values) != len(frames) - 1:
            raise VgenError(
                f"{entry.where}: {len(values)} {name} actions for the {len(frames)} frames of {entry.video}; "
                f"expected {len(frames) - 1}, an action between every two frames"
            )
    episode = Episode(
        source=config.source,
        simulator="none",
        simulator_version="none",
        seed=config.seed,
        split=split,
        scene=f"{config.source}/{entry.video}",
        fps=first[1],
        frames_THWC=frames,
        actions=entry.actions,
        texts=entry.texts,
    )
    try:
        validate(episode)
    except VgenError as error:
        raise VgenError(f"{entry.where}: {entry.video}: {error}") from error
    return episode


def read_frames(path: Path, size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Decodes a video: uint8 (T, H, W, 3) at the size, and its frames per second.

    Raises:
        VgenError: missing, undecodable, or fewer than two frames.
    """
    if not path.is_file():
        raise VgenError(f"{path} is missing; mend the table or the folder")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            fps = float(stream.average_rate or 0)
            frames = [fitted(frame.to_image(), size) for frame in container.decode(stream)]
    except (av.FFmpegError, IndexError) as error:
        raise VgenError(f"{path}: cannot be decoded as a video ({error}); convert it with ffmpeg") from error
    if len(frames) < 2 or fps <= 0:
        raise VgenError(f"{path}: {len(frames)} frames at {fps:g} frames/s; at least 2 frames and a rate are needed")
    return np.stack(frames), fps


def fitted(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """uint8 (height, width, 3): cropped to the aspect around the centre, reduced with antialiasing."""
    scale = min(image.height / size[0], image.width / size[1])
    left, top = (image.width - size[1] * scale) / 2, (image.height - size[0] * scale) / 2
    box = (left, top, left + size[1] * scale, top + size[0] * scale)
    return np.asarray(image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box))


def padded(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """uint8 (height, width, 3): the whole picture, as large as it fits, between black bars."""
    return np.asarray(ImageOps.pad(image.convert("RGB"), (size[1], size[0]), Image.Resampling.BILINEAR))


def _assign_splits(entries: list[_Entry], config: ImportConfig) -> dict[str, list[_Entry]]:
    splits: dict[str, list[_Entry]] = {}
    named = [entry for entry in entries if entry.split is not None]
    if named and len(named) != len(entries):
        bare = next(entry for entry in entries if entry.split is None)
        raise VgenError(f"{bare.where}: {bare.video} has no split, others have one; give all of them one or none")
    if named:
        for entry in named:
            splits.setdefault(str(entry.split), []).append(entry)
        return splits
    held_out = round(len(entries) * config.validation_fraction)
    if config.validation_fraction and not 0 < held_out < len(entries):
        raise VgenError(
            f"validation_fraction={config.validation_fraction} of {len(entries)} videos leaves a split empty; change it"
        )
    order = np.random.default_rng(config.seed).permutation(len(entries))
    splits["train"] = [entries[n] for n in sorted(order[held_out:])]
    if held_out:
        splits["validation"] = [entries[n] for n in sorted(order[:held_out])]
    return splits


def _read_tables(config: ImportConfig) -> list[_Entry]:
    """The entries of the table, or of all tables that a pattern names; those name videos from their own folders."""
    if "*" not in config.table:
        return _read_table(Path(config.table), config)
    tables = [Path(found) for found in sorted(glob.glob(config.table))]
    if not tables:
        raise VgenError(f"{config.table}: no file of that pattern; table= must name .csv or .jsonl files")
    return [
        dataclasses.replace(entry, video=os.path.relpath(table.parent / entry.video, config.folder))
        for table in tables
        for entry in _read_table(table, config)
    ]


def _read_table(path: Path, config: ImportConfig) -> list[_Entry]:
    if not path.is_file():
        raise VgenError(f"{path} is missing; table= must name a .csv or .jsonl file")
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl}
    if path.suffix not in readers:
        raise VgenError(f"{path}: expected a .csv or .jsonl file")
    entries = readers[path.suffix](path, config)
    if not entries:
        raise VgenError(f"{path}: no rows")
    seen: dict[str, str] = {}
    for entry in entries:
        if entry.video in seen:
            raise VgenError(
                f"{entry.where}: {entry.video} was already given at {seen[entry.video]}; keep its rows together"
            )
        seen[entry.video] = entry.where
    return entries


def _read_csv(path: Path, config: ImportConfig) -> list[_Entry]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        wanted = ["video", "step", *config.actions, *(["id"] if config.ids else [])]
        columns = reader.fieldnames or []
        for column in wanted:
            if column not in columns:
                raise VgenError(f"{path}: no column {column!r}; it has {', '.join(columns)}")
        rows = [(f"{path} line {reader.line_num}", row) for row in reader]
    return [
        _csv_entry(video, list(group), config) for video, group in itertools.groupby(rows, key=lambda r: r[1]["video"])
    ]


def _csv_entry(video: str, rows: list[tuple[str, dict[str, str]]], config: ImportConfig) -> _Entry:
    for number, (where, row) in enumerate(rows):
        if row["step"] != str(number):
            raise VgenError(
                f"{where}: step {row['step']!r} of {video}; expected {number}, steps count from 0 without gaps"
            )
    actions: dict[str, Any] = {}
    if config.actions:
        actions["continuous"] = [[_number(row[name], where) for name in config.actions] for where, row in rows]
    if config.ids:
        actions["discrete"] = [_number(row["id"], where) for where, row in rows]
    texts, start = [], 0
    for text, group in itertools.groupby(row["text"] if "text" in row else "" for _, row in rows):
        stop = start + len(list(group))
        if text:
            texts.append(TextSpan(start, stop, text))
        start = stop
    first = rows[0][1]
    split = first["split"] if "split" in first and first["split"] else None
    return _Entry(video, rows[0][0], _arrays(actions, config, rows[0][0]), tuple(texts), split)


def _number(text: str | None, where: str) -> float:
    try:
        return float(text if text is not None else "")
    except ValueError as error:
        raise VgenError(f"{where}: {text!r} is not a number") from error


def _read_jsonl(path: Path, config: ImportConfig) -> list[_Entry]:
    entries = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                entries.append(_json_entry(line, f"{path} line {number}", config))
    return entries


def _json_entry(line: str, where: str, config: ImportConfig) -> _Entry:
    try:
        row = json.loads(line)
        raw = {name: row[key] for key, name, on in _json_keys(config) if on}
        texts = tuple(TextSpan(t["start"], t["stop"], t["text"]) for t in (row["texts"] if "texts" in row else ()))
        video, split = row["video"], row["split"] if "split" in row else None
    except json.JSONDecodeError as error:
        raise VgenError(f"{where}: not valid JSON ({error})") from error
    except (KeyError, TypeError) as error:
        raise VgenError(f"{where}: missing or malformed key {error}") from error
    return _Entry(video, where, _arrays(raw, config, where), texts, split)


def _json_keys(config: ImportConfig) -> Iterable[tuple[str, str, bool]]:
    return ("actions", "continuous", bool(config.actions)), ("ids", "discrete", bool(config.ids))


def _arrays(raw: Mapping[str, Any], config: ImportConfig, where: str) -> dict[str, np.ndarray]:
    """Typed and checked against the config's spaces."""
    arrays = {}
    for name, values in raw.items():
        try:
            array = np.asarray(values, np.float32)
        except (ValueError, TypeError) as error:
            raise VgenError(f"{where}: {name} actions are not a table of numbers ({error})") from error
        expected = (len(array), len(config.actions)) if name == "continuous" else (len(array),)
        if array.shape != expected:
            raise VgenError(f"{where}: {name} actions have shape {array.shape}; expected {expected}")
        if not np.isfinite(array).all():
            step = int(np.argwhere(~np.isfinite(array))[0, 0])
            raise VgenError(f"{where}: {name} action of step {step} is not finite: {array[step].tolist()}")
        if name == "discrete":
            wrong = (array != np.floor(array)) | (array < 0) | (array >= len(config.ids))
            if wrong.any():
                raise VgenError(f"{where}: id {array[wrong][0]:g} is not one of 0..{len(config.ids) - 1}")
            array = array.astype(np.int32)
        arrays[name] = array
    return arrays
