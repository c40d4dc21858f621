"""An episode as records: bytes in, bytes out, no files.

An episode is a head record, which holds everything but the frames, and then frame records of ``FRAMES_PER_RECORD``
consecutive frames each (the last holds the rest), so that a window reads little more than its own frames. A record is::

    b"VGENEP" | uint16 schema version | uint32 CRC-32 of the payload | payload      (little endian)

and the payload is a safetensors file: numbers as tensors, the rest as JSON in its metadata under ``about``. A frame
record repeats its head's CRC-32 and says which frame is its first one, so that records in a wrong place are noticed.

Latents are stored as they are. uint8 frames are coded losslessly and one by one, so that a window decodes only its own
frames: of RGB, red and blue minus green; then each row but the first minus the row above it (both modulo 256); then
zlib. At 64x64 that is over twice as fast to write and to read as PNG and no larger.
"""

import dataclasses
import json
import struct
import zlib
from typing import Any

import numpy as np
import safetensors.numpy

from vgen_jax.data.schema import SCHEMA_VERSION, Episode, TextSpan, validate
from vgen_jax.types import VgenError

MAGIC = b"VGENEP"
HEADER = struct.Struct("<6sHI")
# Enough that a window of common length touches one or two records, few enough that it reads little in vain.
FRAMES_PER_RECORD = 16


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


def decode_frames(data: np.ndarray, offsets: np.ndarray, shape: tuple[int, ...], start: int, stop: int) -> np.ndarray:
    """The inverse of ``encode_frames`` for frames [start, stop): uint8 (stop-start, H, W, C)."""
    view, places = data.data, offsets.tolist()
    raw = [zlib.decompress(view[places[t] : places[t + 1]]) for t in range(start, stop)]
    frames_THWC = np.frombuffer(bytearray().join(raw), np.uint8).reshape(stop - start, *shape)
    # Sums over 1, 2, 4, ... rows: several times faster than one accumulate, or a loop over the rows.
    rows = 1
    while rows < shape[0]:
        frames_THWC[:, rows:] += frames_THWC[:, :-rows]
        rows *= 2
    if shape[-1] == 3:  # a loop, since a broadcast sum takes ten times as long
        for channel in (0, 2):
            frames_THWC[..., channel] += frames_THWC[..., 1]
    return frames_THWC


def record_count(frames: int) -> int:
    """How many records an episode of so many frames takes."""
    return 1 + -(-frames // FRAMES_PER_RECORD)


def encode_episode(episode: Episode) -> list[bytes]:
    """Validates an episode and packs it: its head record, then its frame records."""
    validate(episode)
    frames = episode.frames_THWC
    tensors = {f"actions.{name}": values for name, values in episode.actions.items()}
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
    head = _pack(about, tensors)
    _, _, key = HEADER.unpack_from(head)
    records = [head]
    for first in range(0, len(frames), FRAMES_PER_RECORD):
        part = frames[first : first + FRAMES_PER_RECORD]
        if part.dtype == np.uint8:
            data, offsets = encode_frames(part)
            tensors = {"frames": data, "frame_offsets": offsets}
        else:
            tensors = {"latents": part}
        records.append(_pack(_frames_about(key, first, part.shape), tensors))
    return records


def _frames_about(key: int, first: int, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"head": key, "first": first, "shape": list(shape)}


def _pack(about: dict[str, Any], tensors: dict[str, np.ndarray]) -> bytes:
    tensors = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    payload = safetensors.numpy.save(tensors, metadata={"about": json.dumps(about)})
    return HEADER.pack(MAGIC, SCHEMA_VERSION, zlib.crc32(payload)) + payload


@dataclasses.dataclass(frozen=True)
class Head:
    """All of an episode but its frames.

    Attributes:
        key: the CRC-32 that its frame records repeat.
        about: what is neither a text nor a tensor.
        shape: (T, H, W, C) of its frames.
        tensors: ``actions.<name>`` and ``extras.<name>``.
    """

    key: int
    about: dict[str, Any]
    shape: tuple[int, ...]
    texts: tuple[TextSpan, ...]
    tensors: dict[str, np.ndarray]

    def episode(self, frames_THWC: np.ndarray) -> Episode:
        """The whole episode.

        Raises:
            VgenError: the head lacks something.
        """

        def group(prefix: str) -> dict[str, np.ndarray]:
            return {n.removeprefix(prefix): values for n, values in self.tensors.items() if n.startswith(prefix)}

        try:
            return Episode(
                **self.about,
                frames_THWC=frames_THWC,
                actions=group("actions."),
                texts=self.texts,
                extras=group("extras."),
            )
        except TypeError as error:
            raise VgenError(f"malformed head ({error}); make the data again") from error


def parse_head(record: bytes, verify: bool = True) -> Head:
    """Opens a head record. ``verify=False`` skips the CRC, for bytes that were verified before.

    Raises:
        VgenError: not a head record, another schema version, or a failed checksum.
    """
    key, about, tensors = _open(record, verify)
    try:
        shape, texts = tuple(about.pop("frames_shape")), tuple(TextSpan(*span) for span in about.pop("texts"))
    except (KeyError, TypeError) as error:
        raise VgenError("not the head of an episode: records were swapped; make the data again") from error
    return Head(key, about, shape, texts, tensors)


def parse_frames(record: bytes, head: Head, start: int, stop: int, verify: bool = True) -> np.ndarray:
    """Frames [start, stop) of an episode from the frame record that holds them all; no other frame is decoded.

    Returns:
        uint8 or float16 (stop-start, H, W, C).

    Raises:
        VgenError: not that frame record of that episode, another schema version, or damaged.
    """
    _, about, tensors = _open(record, verify)
    first = start - start % FRAMES_PER_RECORD
    shape = (min(FRAMES_PER_RECORD, head.shape[0] - first), *head.shape[1:])
    if about != _frames_about(head.key, first, shape):
        raise VgenError(
            f"not the frames from {first} on of its head's episode: records were swapped; make the data again"
        )
    start, stop = start - first, stop - first
    try:
        if "latents" in tensors:
            return tensors["latents"].reshape(shape)[start:stop]
        return decode_frames(tensors["frames"], tensors["frame_offsets"], shape[1:], start, stop)
    except (zlib.error, KeyError, ValueError, IndexError) as error:
        raise VgenError(f"frames cannot be decoded ({error!r}); make the data again") from error


_DTYPES = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "I16": np.int16, "U16": np.uint16, "I32": np.int32,
    "U32": np.uint32, "I64": np.int64, "U64": np.uint64, "F16": np.float16, "F32": np.float32, "F64": np.float64,
}  # fmt: skip


def _open(record: bytes, verify: bool) -> tuple[int, dict[str, Any], dict[str, np.ndarray]]:
    """(CRC-32, about, tensors) of any record; the tensors are views of it."""
    if len(record) < HEADER.size or not record.startswith(MAGIC):
        raise VgenError("not an episode record (wrong magic bytes); make the data again")
    _, version, crc = HEADER.unpack_from(record)
    if version != SCHEMA_VERSION:
        raise VgenError(f"schema version {version}, this library reads {SCHEMA_VERSION}; make the data again")
    payload = memoryview(record)[HEADER.size :]
    if verify and zlib.crc32(payload) != crc:
        raise VgenError("checksum mismatch, the record is damaged; restore the file or make the data again")
    try:
        return crc, *_unpack(payload)
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise VgenError(f"malformed payload ({error!r}); make the data again") from error


def _unpack(payload: memoryview) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads safetensors without a copy of the frames (its own loader copies every tensor)."""
    (length,) = struct.unpack_from("<Q", payload)
    header = json.loads(bytes(payload[8 : 8 + length]))
    body = payload[8 + length :]
    about = json.loads(header.pop("__metadata__")["about"])
    tensors = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        tensors[name] = np.frombuffer(body[start:stop], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return about, tensors
