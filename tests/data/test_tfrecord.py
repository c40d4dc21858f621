"""TFRecords without TensorFlow: bytes that are known, any length, and every kind of damage."""

import struct
from pathlib import Path

import numpy as np
import pytest

from vgen_jax.data.tfrecord import (
    crc32c,
    parse_example,
    read_records,
    serialise,
    serialise_example,
    tensor,
    write_record,
)
from vgen_jax.types import VgenError


def slow_crc(data: bytes) -> int:
    """Bit by bit, as the polynomial says."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_checksums_are_those_of_rfc_3720() -> None:
    assert crc32c(bytes(32)) == 0x8A9136AA and crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(b"123456789") == 0xE3069283 and crc32c(b"") == 0


@pytest.mark.parametrize("length", [1, 16_383, 16_384, 16_385, 20_001])
def test_parts_joined_give_the_checksum_of_the_whole(length: int) -> None:
    data = np.random.default_rng(length).integers(0, 256, length, np.uint8).tobytes()
    assert crc32c(data) == slow_crc(data)


def test_records_come_back(tmp_path: Path) -> None:
    path, records = tmp_path / "a.tfrecord", [b"", b"abc", bytes(range(256)) * 100]
    with path.open("wb") as file:
        for record in records:
            write_record(file, record)
    assert list(read_records(path)) == records
    # The frame of a record of three bytes, as TensorFlow writes it.
    assert path.read_bytes()[16:28] == struct.pack("<Q", 3) + path.read_bytes()[24:28]


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    with path.open("wb") as file:
        write_record(file, b"first")
        write_record(file, b"second")
    good = path.read_bytes()
    for damaged, message in (
        (good[:-1], "record 1 is cut off"),
        (good[:30], "record 1 is cut off"),
        (good[:14] + b"X" + good[15:], r"record 0 is damaged \(checksum\)"),
        (b"PK" + good[2:], "begins with no length"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(VgenError, match=message):
            list(read_records(path))
    with pytest.raises(VgenError, match="is missing"):
        list(read_records(tmp_path / "none"))


@pytest.mark.parametrize("array", [np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.zeros((0, 5), np.uint8)])
def test_tensors_come_back(array: np.ndarray) -> None:
    found = tensor(serialise(array))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_tensors_as_others_write_them() -> None:
    # dtype float, shape (2, 2), float_val packed with one number: the last one is repeated.
    few = b"\x08\x01" + b"\x12\x08" + b"\x12\x02\x08\x02" * 2 + b"\x2a\x04" + struct.pack("<f", 1.5)
    np.testing.assert_array_equal(tensor(few), np.full((2, 2), 1.5, np.float32))
    # dtype uint8, int_val as single numbers, one of them of two bytes.
    np.testing.assert_array_equal(tensor(b"\x08\x04\x12\x04\x12\x02\x08\x02\x38\x07\x38\xc8\x01"), [7, 200])
    # Strings: as values, and as content, lengths first.
    assert tensor(serialise("corridor")).item() == b"corridor"
    assert tensor(b"\x08\x07\x12\x04\x12\x02\x08\x02\x22\x05\x01\x02abb").tolist() == [b"a", b"bb"]
    for wrong, message in ((b"\x08\x0e\x12\x00", "type 14"), (b"\xff", "no serialised tensor"), (b"\x0b", "wire type")):
        with pytest.raises(VgenError, match=message):
            tensor(wrong)


def test_examples_come_back_and_other_messages_are_refused() -> None:
    found = parse_example(serialise_example({"a": b"x" * 300, "b": b""}))
    assert {name: [bytes(v) for v in values] for name, values in found.items()} == {"a": [b"x" * 300], "b": [b""]}
    # Lists of floats (packed) and of integers (packed, and not).
    floats = b"\x0a\x13\x0a\x11\x0a\x01f\x12\x0c\x12\x0a\x0a\x08" + struct.pack("<ff", 1.0, 2.0)
    assert parse_example(floats) == {"f": [1.0, 2.0]}
    whole = b"\x0a\x0e\x0a\x0c\x0a\x01i\x12\x07\x1a\x05\x0a\x03\x05\xac\x02"
    assert parse_example(whole) == {"i": [5, 300]}
    with pytest.raises(VgenError, match="no tf.train.Example"):
        parse_example(b"\x0a\x7f")
