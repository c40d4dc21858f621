"""Episodes as records: lossless, a window decodes its own frames alone, and no damage goes unnoticed."""

import dataclasses
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from vgen_jax.data import codec
from vgen_jax.data.codec import FRAMES_PER_RECORD, HEADER, encode_episode, parse_frames, parse_head, record_count
from vgen_jax.data.schema import Episode
from vgen_jax.types import VgenError


def decode(records: Sequence[bytes]) -> Episode:
    """The inverse of ``encode_episode``."""
    head, total = parse_head(records[0]), (len(records) - 1) * FRAMES_PER_RECORD
    starts = range(0, total, FRAMES_PER_RECORD)
    ends = [min(start + FRAMES_PER_RECORD, head.shape[0]) for start in starts]
    parts = [parse_frames(*args) for args in zip(records[1:], [head] * len(ends), starts, ends, strict=True)]
    return head.episode(np.concatenate(parts))


def assert_same(a: Episode, b: Episode) -> None:
    for field in dataclasses.fields(Episode):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name in ("actions", "extras"):
            assert set(x) == set(y)
            for key in x:
                np.testing.assert_array_equal(x[key], y[key])
                assert x[key].dtype == y[key].dtype
        elif field.name == "frames_THWC":
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype
        else:
            assert x == y


@pytest.mark.parametrize("steps", [1, 14, 15, 16, 31, 32, 40])
def test_an_episode_comes_back(episode: Callable, steps: int) -> None:
    records = encode_episode(episode(3, steps=steps))
    assert len(records) == record_count(steps + 1)
    assert_same(decode(records), episode(3, steps=steps))


def test_an_episode_of_frames_alone_comes_back(episode: Callable) -> None:
    bare = dataclasses.replace(episode(3), actions={}, texts=(), extras={})
    assert_same(decode(encode_episode(bare)), bare)


@pytest.mark.parametrize("shape", [(5, 8, 16, 3), (3, 16, 8, 1), (2, 8, 8, 4), (2, 13, 8, 3), (2, 1, 8, 3)])
def test_frames_are_lossless(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for frames in (rng.integers(0, 256, shape, np.uint8), np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)):
        data, offsets = codec.encode_frames(frames)
        np.testing.assert_array_equal(codec.decode_frames(data, offsets, shape[1:], 0, len(frames)), frames)


def test_latents_come_back(episode: Callable) -> None:
    latents = np.random.default_rng(0).normal(size=(17, 4, 4, 8)).astype(np.float16)
    records = encode_episode(dataclasses.replace(episode(3), frames_THWC=latents))
    np.testing.assert_array_equal(decode(records).frames_THWC, latents)
    np.testing.assert_array_equal(parse_frames(records[1], parse_head(records[0]), 5, 9), latents[5:9])


def test_a_window_decodes_only_its_own_frames(episode: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    original, records, decoded = episode(3, steps=32), encode_episode(episode(3, steps=32)), []
    unpack = zlib.decompress
    monkeypatch.setattr(codec.zlib, "decompress", lambda data: decoded.append(1) or unpack(data))
    found = parse_frames(records[2], parse_head(records[0]), 20, 25)
    np.testing.assert_array_equal(found, original.frames_THWC[20:25])
    assert len(decoded) == 5


def test_any_flipped_bit_is_noticed(episode: Callable) -> None:
    records = encode_episode(episode(3))
    for number, record in enumerate(records):
        for place in np.linspace(0, len(record) - 1, 30).astype(int):
            broken = bytearray(record)
            broken[place] ^= 4
            with pytest.raises(VgenError):
                decode([*records[:number], bytes(broken), *records[number + 1 :]])


@pytest.mark.parametrize("number", [0, 1])
def test_truncation_and_version_are_named(episode: Callable, number: int) -> None:
    def decode_with(record: bytes) -> None:
        decode([*records[:number], record, *records[number + 1 :]])

    records = encode_episode(episode(3))
    record = records[number]
    with pytest.raises(VgenError, match="checksum"):
        decode_with(record[:-9])
    with pytest.raises(VgenError, match="magic"):
        decode_with(record[:5])
    magic, version, crc = HEADER.unpack_from(record)
    with pytest.raises(VgenError, match=f"version {version + 1}"):
        decode_with(HEADER.pack(magic, version + 1, crc) + record[HEADER.size :])


def test_records_in_a_wrong_place_are_noticed(episode: Callable) -> None:
    head, first, second, third = encode_episode(episode(3, steps=47))
    other = encode_episode(episode(4, steps=47))
    with pytest.raises(VgenError, match="not the frames from 0 on"):
        decode([head, second, first, third])
    with pytest.raises(VgenError, match="not the frames from 16 on"):
        decode([head, first, other[2], third])
    with pytest.raises(VgenError, match="not the frames from 0 on"):
        decode([other[0], first, second, third])
    with pytest.raises(VgenError, match="not the frames from 0 on"):
        decode([head, head, second, third])
    with pytest.raises(VgenError, match="not the head"):
        decode([first, first, second, third])


@pytest.mark.parametrize("kind", ["?", "u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"])
def test_ground_truth_of_any_type_comes_back(kind: str, episode: Callable) -> None:
    values = (np.arange(12).reshape(3, 4) % 2).astype(kind)
    original = episode(3)
    original = dataclasses.replace(original, extras={**original.extras, "grid": values})
    found = decode(encode_episode(original)).extras["grid"]
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)
