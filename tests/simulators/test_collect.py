"""Collection: the same whatever the workers, resumable, and never mixed."""

import dataclasses
import json
from pathlib import Path

import pytest

from vgen_jax.data.check import check_data
from vgen_jax.data.records import INFO_FILE, read_info
from vgen_jax.data.schema import SCHEMA_VERSION
from vgen_jax.simulators.collect import CollectConfig, collect
from vgen_jax.types import VgenError

CONFIG = CollectConfig("vizdoom", "train", 68, 16, (32, 32), 4, 2, 0, 1)  # four episodes in two shards


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.array_record"))}


@pytest.mark.simulator
@pytest.mark.slow
def test_collection(tmp_path: Path) -> None:
    first = tmp_path / "first"
    report = collect(first, CONFIG)
    assert report.frames == report.new_frames == 68 and report.frames_per_second > 0
    whole = shards(first)
    assert len(whole) == 2 and not check_data(first).faults

    # Again: nothing to do, whatever the number of workers.
    assert collect(first, dataclasses.replace(CONFIG, workers=2)).new_frames == 0

    # Killed before the second shard was whole: only that one is made, bit by bit as before.
    second = tmp_path / "second"
    second.mkdir()
    (second / "train.collect.json").write_text((first / "train.collect.json").read_text())
    kept, lost = sorted(whole)
    (second / kept).write_bytes(whole[kept])
    info = read_info(first).splits["train"][0]
    (second / f".{kept}.json").write_text(json.dumps(dataclasses.asdict(info)))
    (second / f"{lost}.part").write_bytes(b"half a shard")
    assert collect(second, dataclasses.replace(CONFIG, workers=2)).new_frames == 34
    assert shards(second) == whole
    assert (second / INFO_FILE).read_text() == (first / INFO_FILE).read_text()
    assert not list(second.glob("*.part")) and not list(second.glob(".*"))

    # Validation joins the same folder and shares no scene.
    collect(first, dataclasses.replace(CONFIG, split="validation", frames=34))
    assert set(check_data(first).splits) == {"train", "validation"} and not check_data(first).faults
    with pytest.raises(VgenError, match=r"train.collect.json: seed is 0 there and 1 now"):
        collect(first, dataclasses.replace(CONFIG, seed=1))


@pytest.mark.simulator
@pytest.mark.slow
def test_a_workers_fault_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(VgenError, match="too large") as caught:
        collect(tmp_path, dataclasses.replace(CONFIG, size=(4096, 4096)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [({"simulator": "quake"}, "'quake'"), ({"frames": 0}, "frames=0"), ({"episode_steps": 18}, "multiple of chunk=4")],
)
def test_wrong_settings_are_refused(changes: dict, fault: str) -> None:
    with pytest.raises(VgenError, match=fault):
        dataclasses.replace(CONFIG, **changes)


def test_a_collection_of_another_version_is_not_continued(tmp_path: Path) -> None:
    settings = dataclasses.asdict(CONFIG) | {"size": [32, 32], "schema_version": SCHEMA_VERSION - 1}
    (tmp_path / "train.collect.json").write_text(json.dumps(settings))
    with pytest.raises(VgenError, match=f"schema_version is {SCHEMA_VERSION - 1} there and {SCHEMA_VERSION} now"):
        collect(tmp_path, CONFIG)


def test_the_amount() -> None:
    config = dataclasses.replace(CONFIG, frames=300_000, episode_steps=256, episodes_per_shard=16)
    assert config.episodes * 257 >= 300_000 > (config.episodes - 1) * 257
    assert (config.shards - 1) * 16 < config.episodes <= config.shards * 16
