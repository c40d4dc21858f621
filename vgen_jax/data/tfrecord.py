"""TFRecord files and the two protocol buffers within them, read and written without TensorFlow.

A file is a sequence of records: uint64 length, masked CRC-32C of the length, bytes, masked CRC-32C of the bytes, all
little endian. A record here is a ``tf.train.Example``, a map from names to lists of bytes, floats or integers; where
the bytes are a serialised ``TensorProto`` (``tf.io.serialize_tensor``), ``tensor`` makes an array of them. Of the two
messages just what such files hold is understood.

CRC-32C is computed for many parts of a record at once, which are then joined (a CRC is linear): a record of 200 MB
takes seconds instead of minutes.
"""

import functools
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vgen_jax.types import VgenError

LENGTH, CRC = struct.Struct("<Q"), struct.Struct("<I")
_MASK_DELTA, _POLYNOMIAL = 0xA282EAD8, 0x82F63B78
_LANES = 4096  # parts of a record whose CRCs are computed at once; a power of 2
_FLOAT, _UINT8, _STRING = 1, 4, 7  # DataType of TensorProto
_DTYPES: dict[int, np.dtype[Any]] = {
    _FLOAT: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    _UINT8: np.dtype("u1"),
    9: np.dtype("<i8"),
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types

Features = dict[str, list[Any]]


@functools.cache
def _table() -> np.ndarray:
    crc = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = np.where(crc & 1, (crc >> 1) ^ np.uint32(_POLYNOMIAL), crc >> 1).astype(np.uint32)
    return crc


def _applied(operator: np.ndarray, crc: np.ndarray) -> np.ndarray:
    """A linear map of 32 bits, given by what it makes of each bit, on many values."""
    out = np.zeros_like(crc)
    for bit in range(32):
        out ^= np.where(crc >> np.uint32(bit) & np.uint32(1), operator[bit], np.uint32(0)).astype(np.uint32)
    return out


def _zeros_operator(count: int) -> np.ndarray:
    """What ``count`` bytes of zeros make of a CRC, bit by bit."""
    one = np.uint32(1) << np.arange(32, dtype=np.uint32)
    power = _table()[one & np.uint32(255)] ^ (one >> np.uint32(8))
    found = one
    while count:
        if count & 1:
            found = _applied(power, found)
        power = _applied(power, power)
        count >>= 1
    return found


def crc32c(data: bytes | memoryview) -> int:
    """The Castagnoli CRC of some bytes."""
    raw = np.frombuffer(data, np.uint8)
    table = _table()
    if len(raw) < 4 * _LANES:
        one = 0xFFFFFFFF
        for byte in raw.tolist():
            one = int(table[(one ^ byte) & 255]) ^ (one >> 8)
        return one ^ 0xFFFFFFFF
    # To begin with ones is to flip the first four bytes; zeros before them then change nothing.
    each = -(-len(raw) // _LANES)
    padded = np.zeros(_LANES * each, np.uint8)
    padded[len(padded) - len(raw) :] = raw
    padded[len(padded) - len(raw) :][:4] ^= 255
    crc = np.zeros(_LANES, np.uint32)
    for column in np.ascontiguousarray(padded.reshape(_LANES, each).T):
        crc = table[(crc ^ column) & np.uint32(255)] ^ (crc >> np.uint32(8))
    while len(crc) > 1:
        crc = _applied(_zeros_operator(each), crc[::2]) ^ crc[1::2]
        each *= 2
    return int(crc[0]) ^ 0xFFFFFFFF


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a file, one after the other.

    Raises:
        VgenError: missing, truncated or damaged; says where.
    """
    if not path.is_file():
        raise VgenError(f"{path} is missing: name a TFRecord file")
    with path.open("rb") as file:
        number = 0
        while head := file.read(LENGTH.size + CRC.size):
            where = f"{path}: record {number}"
            if len(head) < LENGTH.size + CRC.size:
                raise VgenError(f"{where} is cut off: copy the file again")
            (length,), (crc,) = LENGTH.unpack_from(head), CRC.unpack_from(head, LENGTH.size)
            if _masked(crc32c(head[: LENGTH.size])) != crc:
                raise VgenError(
                    f"{where} begins with no length of a TFRecord: this is another kind of file, or damaged"
                )
            data, tail = file.read(length), file.read(CRC.size)
            if len(data) < length or len(tail) < CRC.size:
                raise VgenError(f"{where} is cut off: copy the file again")
            if _masked(crc32c(data)) != CRC.unpack(tail)[0]:
                raise VgenError(f"{where} is damaged (checksum): copy the file again")
            yield data
            number += 1


def write_record(file: Any, data: bytes) -> None:
    """Appends a record to an open binary file."""
    head = LENGTH.pack(len(data))
    file.write(head + CRC.pack(_masked(crc32c(head))))
    file.write(data)
    file.write(CRC.pack(_masked(crc32c(data))))


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if not byte & 128:
            return value, at


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field of a message: an integer, or the bytes of what has a length or a fixed size."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind not in (_FIXED64, _BYTES, _FIXED32):
            raise ValueError(f"wire type {kind}")
        size, at = _varint(data, at) if kind == _BYTES else (8 if kind == _FIXED64 else 4, at)
        if at + size > len(data):
            raise ValueError("a field goes beyond its message")
        yield key >> 3, data[at : at + size]
        at += size


def parse_example(record: bytes) -> Features:
    """Name -> values of a ``tf.train.Example``; byte strings are views of the record.

    Raises:
        VgenError: another kind of message.
    """
    try:
        found: Features = {}
        for number, features in _fields(memoryview(record)):
            for entry, pair in _fields(features) if number == 1 else ():
                parts = dict(_fields(pair)) if entry == 1 else {}
                if parts:
                    found[bytes(parts[1]).decode()] = _values(parts[2])
        return found
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise VgenError(f"a record is no tf.train.Example ({error!r}): give files of those") from error


def _values(feature: memoryview) -> list[Any]:
    """The list of a Feature, of whichever kind."""
    out: list[Any] = []
    for kind, values in _fields(feature):
        for _, value in _fields(values):
            if kind == 1:
                out.append(value)
            elif kind == 2:
                out += np.frombuffer(value, "<f4").tolist()
            else:
                out += [value] if isinstance(value, int) else _packed(value)
    return out


def _packed(data: memoryview) -> list[int]:
    out, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        out.append(value)
    return out


def tensor(data: bytes | memoryview) -> np.ndarray:
    """The array of a serialised TensorProto of numbers; of strings an array of bytes objects.

    Raises:
        VgenError: another message, a type that is not known here, or too few values for the shape.
    """
    try:
        kind, content = 0, memoryview(b"")
        shape: list[int] = []
        values: list[Any] = []
        for number, value in _fields(memoryview(data)):
            if number == 1:
                kind = value
            elif number == 2:
                shape = [dict(_fields(dim)).get(1, 0) for entry, dim in _fields(value) if entry == 2]
            elif number == 4:
                content = value
            elif number in (5, 7, 8):
                values.append(value)
        if kind == _STRING:
            return np.asarray([bytes(value) for value in values] or _strings(content, shape), object).reshape(shape)
        if kind not in _DTYPES:
            raise ValueError(f"type {kind}")
        if len(content):
            return np.frombuffer(content, _DTYPES[kind]).reshape(shape)
        flat = [number for value in values for number in _numbers(value, kind)]
        # A TensorProto may leave out repetitions of its last value.
        flat += flat[-1:] * (int(np.prod(shape)) - len(flat))
        return np.asarray(flat, _DTYPES[kind]).reshape(shape)
    except (ValueError, IndexError, TypeError) as error:
        raise VgenError(f"a feature is no serialised tensor ({error}): give files that hold those") from error


def _numbers(value: Any, kind: int) -> list[Any]:
    if isinstance(value, int):
        return [value]
    return np.frombuffer(value, "<f4").tolist() if kind == _FLOAT else _packed(value)


def _strings(content: Any, shape: list[int]) -> list[bytes]:
    """Strings as tensor content: their lengths, then their bytes."""
    data, at, lengths = memoryview(content), 0, []
    for _ in range(int(np.prod(shape))):
        length, at = _varint(data, at)
        lengths.append(length)
    ends = at + np.cumsum([0, *lengths])
    return [bytes(data[a:b]) for a, b in zip(ends[:-1], ends[1:], strict=True)]


def _field(number: int, value: int | bytes) -> bytes:
    """One field: an integer, or bytes with their length."""
    if isinstance(value, int):
        return _written(number << 3 | _VARINT) + _written(value)
    return _written(number << 3 | _BYTES) + _written(len(value)) + value


def _written(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def serialise(array: np.ndarray | str) -> bytes:
    """An array of float32 or uint8, or a text, as ``tf.io.serialize_tensor`` writes it.

    Raises:
        VgenError: for another type.
    """
    if isinstance(array, str):
        return _field(1, _STRING) + _field(2, b"") + _field(8, array.encode())
    kinds = {np.dtype(np.float32): _FLOAT, np.dtype(np.uint8): _UINT8}
    if array.dtype not in kinds:
        raise VgenError(f"an array of {array.dtype} cannot be written as a tensor: use float32 or uint8")
    shape = b"".join(_field(2, _field(1, int(size))) for size in array.shape)
    return _field(1, kinds[array.dtype]) + _field(2, shape) + _field(4, np.ascontiguousarray(array).tobytes())


def serialise_example(features: Mapping[str, bytes]) -> bytes:
    """A ``tf.train.Example`` with one byte string under each name."""
    pairs = (
        _field(1, _field(1, name.encode()) + _field(2, _field(1, _field(1, value)))) for name, value in features.items()
    )
    return _field(1, b"".join(pairs))
