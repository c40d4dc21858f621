"""Records: lossless, random access by window, and no damage goes unnoticed."""

import dataclasses
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vgen_jax.data import records
from vgen_jax.data.records import HEADER, EpisodeSource, EpisodeWriter, decode_episode, decode_window, encode_episode
from vgen_jax.data.schema import Episode
from vgen_jax.types import VgenError


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


def test_an_episode_comes_back(episode: Callable) -> None:
    assert_same(decode_episode(encode_episode(episode(3))), episode(3))


@pytest.mark.parametrize("shape", [(5, 8, 16, 3), (3, 16, 8, 1), (2, 8, 8, 4)])
def test_frames_are_lossless(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for frames in (rng.integers(0, 256, shape, np.uint8), np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)):
        data, offsets = records.encode_frames(frames)
        np.testing.assert_array_equal(records.decode_frames(data, offsets, shape[1:], 0, len(frames)), frames)


def test_latents_come_back(episode: Callable) -> None:
    latents = np.random.default_rng(0).normal(size=(17, 4, 4, 8)).astype(np.float16)
    record = encode_episode(dataclasses.replace(episode(3), frames_THWC=latents))
    np.testing.assert_array_equal(decode_window(record, 5, 9), latents[5:9])


def test_a_window_decodes_only_its_own_frames(episode: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    original, record, decoded = episode(3), encode_episode(episode(3)), []
    unpack = zlib.decompress
    monkeypatch.setattr(records.zlib, "decompress", lambda data: decoded.append(1) or unpack(data))
    np.testing.assert_array_equal(decode_window(record, 4, 9), original.frames_THWC[4:9])
    assert len(decoded) == 5
    with pytest.raises(VgenError, match="of 17"):
        decode_window(record, 10, 18)


def test_any_flipped_bit_is_noticed(episode: Callable) -> None:
    record = encode_episode(episode(3))
    for place in np.linspace(0, len(record) - 1, 40).astype(int):
        broken = bytearray(record)
        broken[place] ^= 4
        with pytest.raises(VgenError):
            decode_episode(bytes(broken))


def test_truncation_and_version_are_named(episode: Callable) -> None:
    record = encode_episode(episode(3))
    with pytest.raises(VgenError, match="checksum"):
        decode_episode(record[:-9])
    with pytest.raises(VgenError, match="magic"):
        decode_episode(record[:5])
    magic, version, crc = HEADER.unpack_from(record)
    with pytest.raises(VgenError, match=f"version {version + 1}"):
        decode_episode(HEADER.pack(magic, version + 1, crc) + record[HEADER.size :])


def test_a_killed_writer_leaves_no_shard(tmp_path: Path, episode: Callable) -> None:
    path = tmp_path / "train-00000-of-00001.array_record"
    with pytest.raises(RuntimeError, match="stop"), EpisodeWriter(path) as writer:
        writer.write(episode(0))
        assert not path.exists()
        raise RuntimeError("stop")
    assert not list(tmp_path.iterdir())
    with EpisodeWriter(path) as writer:
        writer.write(episode(0))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_random_access(dataset: Path, episode: Callable) -> None:
    source = EpisodeSource(dataset, "train")
    assert len(source) == 9
    for index in (8, 0, 4):
        assert_same(decode_episode(source[index]), episode(index, steps=12 + 4 * (index % 4)))
        assert source.frames[index] == source.record(index).frames
    assert source.name(4).endswith("train-00001-of-00003.array_record: record 1")
    with pytest.raises(IndexError):
        source[9]


def test_a_source_travels_to_another_process(dataset: Path) -> None:
    source = EpisodeSource(dataset, "train").open()
    assert pickle.loads(pickle.dumps(source))[3] == source[3]


def test_missing_things_are_named(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(VgenError, match="nowhere/dataset.json is missing"):
        EpisodeSource(tmp_path / "nowhere", "train")
    with pytest.raises(VgenError, match="no split 'test', only train, validation"):
        EpisodeSource(dataset, "test")
    (dataset / "train-00001-of-00003.array_record").unlink()
    with pytest.raises(VgenError, match="train-00001-of-00003.array_record is missing"):
        EpisodeSource(dataset, "train").open()


@pytest.mark.parametrize(
    ("kind", "fault"),
    [("truncated", "truncated"), ("flipped", "record 0"), ("version", "record 1: schema version 2")],
)
def test_a_damaged_shard_is_named(dataset: Path, harm: Callable, kind: str, fault: str) -> None:
    name = "train-00001-of-00003.array_record"
    harm(dataset / name, kind)
    source = EpisodeSource(dataset, "train")
    with pytest.raises(VgenError, match=f"{name}.*{fault}"):
        for index in range(3, 6):
            source.record(index)
    source.record(0)
