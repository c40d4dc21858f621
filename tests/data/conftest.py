"""Small data sets without a simulator, whose every number tells which frame or step it belongs to."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from array_record.python import array_record_module

from vgen_jax.data.codec import MAGIC
from vgen_jax.data.records import INFO_FILE, WRITER_OPTIONS, EpisodeWriter, shard_name, write_text
from vgen_jax.data.schema import ActionSpace, Command, DatasetInfo, Episode, TextSpan

CHUNK = 4
COMMANDS = (
    Command(0, "go", ("go", "walk"), ((0.0, 1.0),) * CHUNK),
    Command(1, "turn", ("turn", "rotate"), ((5.0, 0.0),) * CHUNK),
)
SPACES = {
    "continuous": ActionSpace("continuous", ("turn", "forward"), (10.0, 0.5)),
    "discrete": ActionSpace("discrete", ("go", "turn")),
}


def make_episode(seed: int, steps: int = 16, split: str = "train", size: int = 8) -> Episode:
    """Action t is (t, seed) and pose t is (t, seed, 0, 0); the frames are noise."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(rng.integers(0, 2, -(-steps // CHUNK)), CHUNK)[:steps].astype(np.int32)
    spans = [(n, min(n + CHUNK, steps)) for n in range(0, steps, CHUNK)]
    return Episode(
        source="test",
        simulator="none",
        simulator_version="1",
        seed=seed,
        split=split,
        scene=f"{split}/scene{seed % 3}",
        fps=8.75,
        frames_THWC=rng.integers(0, 256, (steps + 1, size, size, 3), np.uint8),
        actions={
            "continuous": np.stack([np.arange(steps), np.full(steps, seed)], 1).astype(np.float32),
            "discrete": ids,
        },
        texts=tuple(TextSpan(a, b, f"{COMMANDS[ids[a]].texts[seed % 2]}") for a, b in spans),
        extras={"pose": np.stack([np.arange(steps + 1), *np.full((3, steps + 1), seed)], 1).astype(np.float32)},
    )


def write_split(folder: Path, split: str, episodes: list[Episode], per_shard: int = 3) -> None:
    """Writes a split's shards and adds it to dataset.json."""
    groups = [episodes[n : n + per_shard] for n in range(0, len(episodes), per_shard)]
    shards = []
    for number, group in enumerate(groups):
        with EpisodeWriter(folder / shard_name(split, number, len(groups))) as writer:
            for episode in group:
                writer.write(episode)
        shards.append(writer.info)
    path = folder / INFO_FILE
    splits = dict(DatasetInfo.from_json(path.read_text(), str(path)).splits) if path.exists() else {}
    first = episodes[0]
    info = DatasetInfo(
        source=first.source,
        simulator=first.simulator,
        simulator_version=first.simulator_version,
        fps=first.fps,
        frame_shape=first.frames_THWC.shape[1:],
        content="frames" if first.frames_THWC.dtype == np.uint8 else "latents",
        chunk=CHUNK,
        action_spaces=SPACES,
        commands=COMMANDS,
        splits={**splits, split: tuple(shards)},
    )
    write_text(path, info.to_json())


@pytest.fixture
def episode() -> Callable[..., Episode]:
    return make_episode


@pytest.fixture
def write() -> Callable[..., None]:
    return write_split


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Nine training episodes of different lengths in three shards, and three for validation."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_split(folder, "train", [make_episode(seed, steps=12 + 4 * (seed % 4)) for seed in range(9)])
    write_split(folder, "validation", [make_episode(seed, split="validation") for seed in range(100, 103)])
    return folder


def damage(path: Path, kind: str, record: int = 0) -> None:
    """Damages a shard.

    Args:
        kind: ``truncated``, half of the file is missing; ``flipped``, one bit of the record is flipped in the file, and
            ``corrupt`` before it got there; ``version``, the record is of the next schema version; ``swapped``, it has
            changed places with the one after it.
        record: its number in the file.
    """
    data = bytearray(path.read_bytes())
    if kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
        return
    if kind == "flipped":
        data[[found.start() for found in re.finditer(MAGIC, data)][record] + 300] ^= 1
        path.write_bytes(data)
        return
    reader = array_record_module.ArrayRecordReader(str(path))
    records = [bytearray(data) for data in reader.read_all()]
    reader.close()
    if kind == "corrupt":
        records[record][300] ^= 1
    elif kind == "version":
        records[record][len(MAGIC)] += 1
    elif kind == "swapped":
        records[record : record + 2] = records[record + 1], records[record]
    else:
        raise ValueError(kind)
    writer = array_record_module.ArrayRecordWriter(str(path), WRITER_OPTIONS)
    for data in records:
        writer.write(bytes(data))
    writer.close()


@pytest.fixture
def harm() -> Callable[..., None]:
    return damage
