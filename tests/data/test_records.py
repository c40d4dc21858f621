"""Files of episodes: random access by window, from any thread or process, and every fault has its record's name."""

import itertools
import pickle
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vgen_jax.data import codec, records
from vgen_jax.data.records import EpisodeSource, EpisodeWriter
from vgen_jax.data.schema import SCHEMA_VERSION, Episode
from vgen_jax.types import VgenError


@pytest.fixture
def original(episode: Callable) -> Callable[[int], Episode]:
    """A training episode of ``dataset`` by its index."""
    return lambda index: episode(index, steps=12 + 4 * (index % 4))


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


def test_random_access(dataset: Path, original: Callable) -> None:
    source = EpisodeSource(dataset, "train")
    assert len(source) == 9
    for index in (8, 0, 4, 3):
        found, expected = source.episode(index), original(index)
        np.testing.assert_array_equal(found.frames_THWC, expected.frames_THWC)
        np.testing.assert_array_equal(found.extras["pose"], expected.extras["pose"])
        assert (found.seed, found.texts) == (expected.seed, expected.texts)
        assert source.frames[index] == len(expected.frames_THWC) and source.scenes[index] == expected.scene
        head = source.head(index)
        assert head.shape == expected.frames_THWC.shape and head.texts == expected.texts
        np.testing.assert_array_equal(head.tensors["actions.discrete"], expected.actions["discrete"])
    with pytest.raises(IndexError):
        source.head(9)


def test_every_window(dataset: Path, original: Callable) -> None:
    source = EpisodeSource(dataset, "train")
    frames_THWC = original(3).frames_THWC
    for start, stop in itertools.combinations(range(len(frames_THWC) + 1), 2):
        np.testing.assert_array_equal(source.window(3, start, stop), frames_THWC[start:stop])
    for start, stop in ((-1, 4), (4, 4), (20, 26)):
        with pytest.raises(VgenError, match=rf"episode 3, head: frames \[{start}, {stop}\) asked of an episode of 25"):
            source.window(3, start, stop)


def test_a_window_reads_only_its_own_records(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    for name in ("parse_head", "parse_frames"):
        inner = getattr(records, name)
        monkeypatch.setattr(
            records, name, lambda *args, name=name, inner=inner, **options: read.append(name) or inner(*args, **options)
        )
    source = EpisodeSource(dataset, "train")
    source.window(3, 1, 9)
    assert read == ["parse_head", "parse_frames"]
    source.window(3, 16, 25)
    assert read[2:] == ["parse_frames"], "the head is kept"
    source.window(3, 15, 17)
    assert read[3:] == ["parse_frames", "parse_frames"]


def test_records_are_verified_when_a_process_first_reads_them(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, verified = EpisodeSource(dataset, "train"), []
    checksum = zlib.crc32
    monkeypatch.setattr(codec.zlib, "crc32", lambda data: verified.append(len(data)) or checksum(data))
    for _ in range(2):
        source.window(3, 1, 9)
    assert len(verified) == 2, "the head and one frame record"
    source.window(3, 8, 20)
    assert len(verified) == 3
    pickle.loads(pickle.dumps(source)).window(3, 8, 20)
    assert len(verified) == 6, "another process verifies anew"


def test_names_say_file_record_and_content(dataset: Path) -> None:
    source = EpisodeSource(dataset, "train")
    names = [source.name(4), source.name(4, 1), source.name(5, 2)]
    assert [name.split("array_record: ")[1] for name in names] == [
        "record 3: episode 4, head", "record 4: episode 4, frames 0 to 12", "record 7: episode 5, frames 16 to 16",
    ]  # fmt: skip
    assert all(name.startswith(str(dataset / "train-00001-of-00003")) for name in names)


def test_a_source_travels_to_another_process(dataset: Path) -> None:
    source = EpisodeSource(dataset, "train").open()
    expected = source.window(3, 4, 20)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).window(3, 4, 20), expected)


def test_threads_share_a_source(dataset: Path, original: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for two heads, so that the threads drive out each other's."""
    monkeypatch.setattr(records, "_HEADS", 2)
    source = EpisodeSource(dataset, "train")
    frames = [original(index).frames_THWC for index in range(9)]
    together = threading.Barrier(4)

    def read(seed: int) -> None:
        together.wait()
        for index in np.random.default_rng(seed).integers(0, 9, 60).tolist():
            np.testing.assert_array_equal(source.window(index, 4, 13), frames[index][4:13])
            assert source.head(index).about["seed"] == index

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))


def test_missing_things_are_named(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(VgenError, match="nowhere/dataset.json is missing"):
        EpisodeSource(tmp_path / "nowhere", "train")
    with pytest.raises(VgenError, match="no split 'test', only train, validation"):
        EpisodeSource(dataset, "test")
    (dataset / "train-00001-of-00003.array_record").unlink()
    with pytest.raises(VgenError, match="train-00001-of-00003.array_record is missing"):
        EpisodeSource(dataset, "train").open()


@pytest.mark.parametrize(
    ("kind", "record", "fault"),
    [
        ("truncated", 0, "0 records instead of 8, the file is truncated"),
        ("flipped", 0, "record 0: episode 3, head: cannot be read"),
        ("flipped", 2, "record 2: episode 3, frames 16 to 24: cannot be read"),
        ("corrupt", 3, "record 3: episode 4, head: checksum mismatch"),
        ("corrupt", 6, "record 6: episode 5, frames 0 to 15: checksum mismatch"),
        ("version", 3, f"record 3: episode 4, head: schema version {SCHEMA_VERSION + 1}"),
        ("version", 4, f"record 4: episode 4, frames 0 to 12: schema version {SCHEMA_VERSION + 1}"),
        ("swapped", 1, "record 1: episode 3, frames 0 to 15: not the frames"),
        ("swapped", 2, "record 2: episode 3, frames 16 to 24: not the frames"),
    ],
)
def test_a_damaged_shard_is_named(dataset: Path, harm: Callable, kind: str, record: int, fault: str) -> None:
    name = "train-00001-of-00003.array_record"
    harm(dataset / name, kind, record)
    source = EpisodeSource(dataset, "train")
    with pytest.raises(VgenError, match=f"{name}: {fault}"):
        for index in range(3, 6):
            source.episode(index)
    source.episode(0)


def test_records_of_another_length_are_refused(tmp_path: Path, episode: Callable, write: Callable) -> None:
    """As many records as ``dataset.json`` says, but not as many frames."""
    write(tmp_path, "train", [episode(0, steps=12)])
    text = (tmp_path / "dataset.json").read_text()
    (tmp_path / "dataset.json").write_text(text.replace(" 13\n", " 14\n"))
    with pytest.raises(VgenError, match=r"episode 0, head: frame shape \(13, 8, 8, 3\), but dataset.json says \(14, "):
        EpisodeSource(tmp_path, "train").window(0, 0, 4)
