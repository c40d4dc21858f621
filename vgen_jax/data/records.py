"""Episodes as ArrayRecord files.

A folder holds ``dataset.json`` and ``<split>-00000-of-00004.array_record`` files. A record is::

    b"VGENEP" | uint16 schema version | uint32 CRC-32 of the payload | payload      (little endian)

and the payload is a safetensors file: numbers as tensors, the rest as JSON in its metadata under ``episode``.
Latents are stored as they are. uint8 frames are coded losslessly and one by one, so that a window decodes only its own
frames: of RGB, red and blue minus green; then each row but the first minus the row above it (both modulo 256); then
zlib. At 64x64 that is over twice as fast to write and to read as PNG and no larger; the decoder is a ``cumsum`` and
a sum.
"""

import dataclasses
import json
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from array_record.python import array_record_module

from vgen_jax.data.schema import SCHEMA_VERSION, DatasetInfo, Episode, ShardInfo, TextSpan, validate
from vgen_jax.types import VgenError

MAGIC = b"VGENEP"
HEADER = struct.Struct("<6sHI")
INFO_FILE = "dataset.json"
# The frames are compressed already, and one record per group is what makes random access cheap.
WRITER_OPTIONS = "group_size:1,uncompressed"
READER_OPTIONS = "readahead_buffer_size:0,index_storage_option:in_memory"


def encode_frames(frames_THWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (T, H, W, C) to (bytes (N,) uint8, offsets (T+1,) int64 of each frame's bytes)."""
    plain_THWC = frames_THWC.copy()
    if frames_THWC.shape[-1] == 3:
        for channel in (0, 2):
            plain_THWC[..., channel] -= frames_THWC[..., 1]
    delta_THWC = plain_THWC.copy()
    delta_THWC[:, 1:] -= plain_THWC[:, :-1]
    coded = [_deflate(frame) for frame in delta_THWC]
    offsets = np.cumsum([0, *(len(c) for c in coded)], dtype=np.int64)
    return np.frombuffer(b"".join(coded), np.uint8), offsets


def _deflate(delta_HWC: np.ndarray) -> bytes:
    # Run lengths only: on differences it is faster than a search for matches, and smaller.
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return packer.compress(delta_HWC.data) + packer.flush()


def decode_frames(
    data: np.ndarray, offsets: np.ndarray, shape: tuple[int, int, int], start: int, stop: int
) -> np.ndarray:
    """The inverse of ``encode_frames`` for frames [start, stop): uint8 (stop-start, H, W, C)."""
    view = data.data
    raw = [zlib.decompress(view[offsets[t] : offsets[t + 1]]) for t in range(start, stop)]
    frames_THWC = np.frombuffer(bytearray().join(raw), np.uint8).reshape(stop - start, *shape)
    # Loops over rows and channels: several times faster than one accumulate and one broadcast sum.
    for row in range(1, shape[0]):
        frames_THWC[:, row] += frames_THWC[:, row - 1]
    if shape[-1] == 3:
        for channel in (0, 2):
            frames_THWC[..., channel] += frames_THWC[..., 1]
    return frames_THWC


def encode_episode(episode: Episode) -> bytes:
    """Validates an episode and packs it into one record's bytes."""
    validate(episode)
    tensors: dict[str, np.ndarray] = {}
    frames = episode.frames_THWC
    if frames.dtype == np.uint8:
        tensors["frames"], tensors["frame_offsets"] = encode_frames(frames)
    else:
        tensors["latents"] = frames
    tensors.update({f"actions.{name}": values for name, values in episode.actions.items()})
    tensors.update({f"extras.{name}": values for name, values in episode.extras.items()})
    about = {
        "source": episode.source,
        "simulator": episode.simulator,
        "simulator_version": episode.simulator_version,
        "seed": episode.seed,
        "split": episode.split,
        "scene": episode.scene,
        "fps": episode.fps,
        "frames_shape": frames.shape,
        "texts": [dataclasses.astuple(span) for span in episode.texts],
    }
    tensors = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    payload = safetensors.numpy.save(tensors, metadata={"episode": json.dumps(about)})
    return HEADER.pack(MAGIC, SCHEMA_VERSION, zlib.crc32(payload)) + payload


@dataclasses.dataclass(frozen=True)
class Record:
    """A parsed record: everything but the frames is decoded."""

    about: dict[str, Any]
    tensors: dict[str, np.ndarray]

    @property
    def frames(self) -> int:
        return int(self.about["frames_shape"][0])

    @property
    def texts(self) -> tuple[TextSpan, ...]:
        return tuple(TextSpan(*span) for span in self.about["texts"])

    def window(self, start: int, stop: int) -> np.ndarray:
        """Frames [start, stop), uint8 or float16 (stop-start, H, W, C)."""
        if not 0 <= start < stop <= self.frames:
            raise VgenError(f"frames [{start}, {stop}) asked of an episode of {self.frames}")
        if "latents" in self.tensors:
            return self.tensors["latents"][start:stop]
        shape = self.about["frames_shape"]
        try:
            return decode_frames(self.tensors["frames"], self.tensors["frame_offsets"], tuple(shape[1:]), start, stop)
        except (zlib.error, ValueError, IndexError) as error:
            raise VgenError(f"frames [{start}, {stop}) cannot be decoded ({error}); make the data again") from error


def parse_record(record: bytes, verify: bool = True) -> Record:
    """Opens one record. ``verify=False`` skips the CRC, for bytes that were verified before.

    Raises:
        VgenError: not a record, another schema version, or a failed checksum.
    """
    if len(record) < HEADER.size or not record.startswith(MAGIC):
        raise VgenError("not an episode record (wrong magic bytes); make the data again")
    _, version, crc = HEADER.unpack_from(record)
    if version != SCHEMA_VERSION:
        raise VgenError(f"schema version {version}, this library reads {SCHEMA_VERSION}; make the data again")
    payload = memoryview(record)[HEADER.size :]
    if verify and zlib.crc32(payload) != crc:
        raise VgenError("checksum mismatch, the record is damaged; restore the file or make the data again")
    try:
        return _unpack(payload)
    except (ValueError, KeyError, TypeError, struct.error, safetensors.SafetensorError) as error:
        raise VgenError(f"malformed payload ({error!r}); make the data again") from error


_DTYPES = {"U8": np.uint8, "I32": np.int32, "I64": np.int64, "F16": np.float16, "F32": np.float32, "F64": np.float64}


def _unpack(payload: memoryview) -> Record:
    """Reads safetensors without a copy of the frames (its own loader copies every tensor)."""
    (length,) = struct.unpack_from("<Q", payload)
    header = json.loads(bytes(payload[8 : 8 + length]))
    body = payload[8 + length :]
    about = json.loads(header.pop("__metadata__")["episode"])
    tensors = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        tensors[name] = np.frombuffer(body[start:stop], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return Record(about, tensors)


def decode_episode(record: bytes) -> Episode:
    """Unpacks a whole record; the inverse of ``encode_episode``."""
    parsed = parse_record(record)
    about, tensors = parsed.about, parsed.tensors

    def group(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}

    try:
        return Episode(
            source=about["source"],
            simulator=about["simulator"],
            simulator_version=about["simulator_version"],
            seed=about["seed"],
            split=about["split"],
            scene=about["scene"],
            fps=about["fps"],
            frames_THWC=parsed.window(0, parsed.frames),
            actions=group("actions."),
            texts=parsed.texts,
            extras=group("extras."),
        )
    except (KeyError, TypeError) as error:
        raise VgenError(f"malformed payload ({error!r}); make the data again") from error


def decode_window(record: bytes, start: int, stop: int) -> np.ndarray:
    """Frames [start, stop) of a record; no other frame is decoded."""
    return parse_record(record).window(start, stop)


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
            self._writer.write(encode_episode(episode))
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
    """Random access to the episodes of a split: ``len(source)``, ``source[i] -> bytes``, ``source.record(i)``.

    Lengths and scenes come from ``dataset.json``, so that an index costs no decoding. Every fault is a ``VgenError``
    that names file and record. A record's CRC is checked when a process first reads it; the frames of later reads are
    guarded by the Adler-32 within their zlib streams and by ArrayRecord's own chunk hashes.

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
        self._first = np.cumsum([0, *(len(shard.frames) for shard in self.shards)])
        self._readers: dict[int, Any] = {}
        self._verified: set[int] = set()

    def open(self) -> "EpisodeSource":
        """Opens every shard, so that a missing or truncated one is found now and not in the middle of an epoch."""
        for shard in range(len(self.shards)):
            self.open_shard(shard)
        return self

    def __len__(self) -> int:
        return len(self.frames)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}

    def locate(self, index: int) -> tuple[int, int]:
        """(shard, record within it) of an episode."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        return shard, index - int(self._first[shard])

    def name(self, index: int) -> str:
        shard, record = self.locate(index)
        return f"{self.folder / self.shards[shard].file}: record {record}"

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
            expected = len(self.shards[shard].frames)
            if found != expected:
                raise VgenError(
                    f"{path}: {found} records instead of {expected}, the file is truncated or not the one "
                    f"that {INFO_FILE} describes; restore it or make the data again"
                )
            self._readers[shard] = reader
        return self._readers[shard]

    def __getitem__(self, index: int) -> bytes:
        shard, record = self.locate(index)
        try:
            return self.open_shard(shard).read([record])[0]
        except (RuntimeError, ValueError, IndexError) as error:
            raise VgenError(f"{self.name(index)}: cannot be read ({error}); restore the file") from error

    def record(self, index: int) -> Record:
        """The parsed record, verified on this process's first read of it."""
        data = self[index]
        try:
            parsed = parse_record(data, verify=index not in self._verified)
        except VgenError as error:
            raise VgenError(f"{self.name(index)}: {error}") from error
        if parsed.frames != self.frames[index]:
            raise VgenError(f"{self.name(index)}: {parsed.frames} frames, {INFO_FILE} says {self.frames[index]}")
        self._verified.add(index)
        return parsed


def scenes_of(shards: Sequence[ShardInfo]) -> set[str]:
    return {scene for shard in shards for scene in shard.scenes}
