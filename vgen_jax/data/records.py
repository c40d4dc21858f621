"""Episodes in ArrayRecord files: one writer, and random access to windows of frames.

A folder holds ``dataset.json`` and ``<split>-00000-of-00004.array_record`` files; see ``codec`` for what a record is.
``dataset.json`` knows how many frames every episode has, and so in which records of which file it lies.
"""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from array_record.python import array_record_module

from vgen_jax.data.codec import FRAMES_PER_RECORD, Head, encode_episode, parse_frames, parse_head, record_count
from vgen_jax.data.schema import DatasetInfo, Episode, ShardInfo
from vgen_jax.types import VgenError

INFO_FILE = "dataset.json"
# The frames are compressed already, and one record per group is what makes random access cheap.
WRITER_OPTIONS = "group_size:1,uncompressed"
READER_OPTIONS = "readahead_buffer_size:0,index_storage_option:in_memory"
_HEADS = 256  # parsed heads kept per process, some 20 kB each


def shard_name(split: str, shard: int, shards: int) -> str:
    return f"{split}-{shard:05d}-of-{shards:05d}.array_record"


class EpisodeWriter:
    """Writes one shard; the file appears under its name only when it is whole.

    A killed process leaves ``<name>.part``, which the next writer of the shard overwrites.
    """

    def __init__(self, path: Path):
        self.path = path
        self._part = path.with_name(path.name + ".part")
        self._frames: list[int] = []
        self._scenes: list[str] = []

    def __enter__(self) -> "EpisodeWriter":
        self._part.unlink(missing_ok=True)
        self._writer = array_record_module.ArrayRecordWriter(str(self._part), WRITER_OPTIONS)
        return self

    def write(self, episode: Episode) -> None:
        try:
            for record in encode_episode(episode):
                self._writer.write(record)
        except RuntimeError as error:
            raise VgenError(f"{self._part}: cannot write ({error}); is the disk full?") from error
        self._frames.append(len(episode.frames_THWC))
        self._scenes.append(episode.scene)

    @property
    def info(self) -> ShardInfo:
        return ShardInfo(self.path.name, tuple(self._frames), tuple(self._scenes))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writer.close()
        except RuntimeError as fault:
            raise VgenError(f"{self._part}: cannot write ({fault}); is the disk full?") from fault
        if kind is None:
            os.replace(self._part, self.path)
        else:
            self._part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a small file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def read_info(folder: str | os.PathLike[str]) -> DatasetInfo:
    """Reads ``dataset.json``."""
    path = Path(folder) / INFO_FILE
    if not path.is_file():
        raise VgenError(f"{path} is missing; collect or import data into that folder first")
    return DatasetInfo.from_json(path.read_text(), str(path))


class EpisodeSource:
    """Random access to the episodes of a split: ``len(source)``, ``source.head(i)``, ``source.window(i, start, stop)``.

    Lengths and scenes come from ``dataset.json``, so that an index costs no decoding. Every fault is a ``VgenError``
    that names file and record. A record's CRC is checked when a process first reads it; the frames of later reads are
    guarded by the Adler-32 within their zlib streams and by ArrayRecord's own chunk hashes. Threads may share a source.

    Attributes:
        frames: T of each episode.
        scenes: scene of each episode.
    """

    def __init__(self, folder: str | os.PathLike[str], split: str):
        self.folder = Path(folder)
        self.info = read_info(folder)
        self.split = split
        if split not in self.info.splits:
            raise VgenError(f"{self.folder / INFO_FILE}: no split {split!r}, only {', '.join(self.info.splits)}")
        self.shards = self.info.splits[split]
        self.frames = tuple(n for shard in self.shards for n in shard.frames)
        self.scenes = tuple(s for shard in self.shards for s in shard.scenes)
        # The first episode of each shard, and the first record of each episode, counted over all shards.
        self._episodes = np.cumsum([0, *(len(shard.frames) for shard in self.shards)])
        self._records = np.cumsum([0, *(record_count(frames) for frames in self.frames)])
        self._start_process()

    def _start_process(self) -> None:
        """What belongs to a process and does not travel to another one."""
        self._readers: dict[int, Any] = {}
        self._verified = bytearray(int(self._records[-1]))  # by record; a bytearray, because threads set its items
        self._heads = functools.lru_cache(_HEADS)(self._read_head)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_readers", "_verified", "_heads")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_process()

    def open(self) -> "EpisodeSource":
        """Opens every shard, so that a missing or truncated one is found now and not in the middle of an epoch."""
        for shard in range(len(self.shards)):
            self.open_shard(shard)
        return self

    def __len__(self) -> int:
        return len(self.frames)

    def locate(self, index: int) -> tuple[int, int]:
        """(shard, number within it of the head record) of an episode; its frame records follow the head."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(np.searchsorted(self._episodes, index, side="right")) - 1
        return shard, int(self._records[index] - self._records[self._episodes[shard]])

    def name(self, index: int, part: int = 0) -> str:
        """File, number in the file and content of an episode's record: its head, or its frame record part - 1."""
        shard, record = self.locate(index)
        first = (part - 1) * FRAMES_PER_RECORD
        last = min(first + FRAMES_PER_RECORD, self.frames[index]) - 1
        what = f"frames {first} to {last}" if part else "head"
        return f"{self.folder / self.shards[shard].file}: record {record + part}: episode {index}, {what}"

    def open_shard(self, shard: int) -> Any:
        """The shard's ArrayRecord reader, opened and checked against ``dataset.json`` once."""
        if shard not in self._readers:
            path = self.folder / self.shards[shard].file
            if not path.is_file():
                raise VgenError(f"{path} is missing; restore it or make the data again")
            try:
                reader = array_record_module.ArrayRecordReader(str(path), READER_OPTIONS)
                found = reader.num_records()
            except (RuntimeError, ValueError, IndexError) as error:
                raise VgenError(f"{path}: cannot be opened ({error}); restore it or make the data again") from error
            # A truncated file opens without complaint as one of no records.
            expected = sum(record_count(frames) for frames in self.shards[shard].frames)
            if found != expected:
                raise VgenError(
                    f"{path}: {found} records instead of {expected}, the file is truncated or not the one "
                    f"that {INFO_FILE} describes; restore it or make the data again"
                )
            self._readers[shard] = reader
        return self._readers[shard]

    def head(self, index: int) -> Head:
        """All of an episode but its frames, checked against ``dataset.json``; a few hundred are kept."""
        return self._heads(index)

    def _read_head(self, index: int) -> Head:
        data, place = self._read(index, 0), int(self._records[index])
        with self._naming(index, 0):
            head = parse_head(data, verify=not self._verified[place])
            expected = (self.frames[index], *self.info.frame_shape)
            if head.shape != expected:
                raise VgenError(f"frame shape {head.shape}, but {INFO_FILE} says {expected}; make the data again")
        self._verified[place] = 1
        return head

    def window(self, index: int, start: int, stop: int) -> np.ndarray:
        """Frames [start, stop) of an episode, uint8 or float16 (stop-start, H, W, C); reads only the records of these.

        Raises:
            VgenError: a damaged record (file and record are named), or frames that the episode does not have.
        """
        head = self.head(index)
        if not 0 <= start < stop <= self.frames[index]:
            raise VgenError(f"{self.name(index)}: frames [{start}, {stop}) asked of an episode of {self.frames[index]}")
        pieces = []
        for part in range(1 + start // FRAMES_PER_RECORD, 2 + (stop - 1) // FRAMES_PER_RECORD):
            data, place = self._read(index, part), int(self._records[index]) + part
            first = (part - 1) * FRAMES_PER_RECORD
            begin, end = max(start, first), min(stop, first + FRAMES_PER_RECORD)
            with self._naming(index, part):
                pieces.append(parse_frames(data, head, begin, end, verify=not self._verified[place]))
            self._verified[place] = 1
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def episode(self, index: int) -> Episode:
        """A whole episode."""
        head, frames_THWC = self.head(index), self.window(index, 0, self.frames[index])
        with self._naming(index, 0):
            return head.episode(frames_THWC)

    def _read(self, index: int, part: int) -> bytes:
        """A record of an episode, 0 is its head. One a call: ArrayRecord takes longer for two at once."""
        shard, record = self.locate(index)
        reader = self.open_shard(shard)
        try:
            return reader.read([record + part])[0]
        except (RuntimeError, ValueError, IndexError) as error:
            raise VgenError(f"{self.name(index, part)}: cannot be read ({error}); restore the file") from error

    @contextlib.contextmanager
    def _naming(self, index: int, part: int) -> Iterator[None]:
        """Puts a record's name before the faults found in it."""
        try:
            yield
        except VgenError as error:
            raise VgenError(f"{self.name(index, part)}: {error}") from error


def scenes_of(shards: Sequence[ShardInfo]) -> set[str]:
    return {scene for shard in shards for scene in shard.scenes}
