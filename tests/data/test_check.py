"""The validator names every fault and goes on."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vgen_jax.data.check import check_data
from vgen_jax.data.records import INFO_FILE
from vgen_jax.data.schema import SCHEMA_VERSION
from vgen_jax.types import VgenError


def test_a_sound_folder_is_summed_up(dataset: Path, capsys: pytest.CaptureFixture) -> None:
    report = check_data(dataset)
    assert not report.faults
    train = report.splits["train"]
    assert train.episodes == 9 and train.frames == sum(13 + 4 * (seed % 4) for seed in range(9))
    assert train.hours == pytest.approx(train.frames / 8.75 / 3600)
    assert set(train.scenes) == {"train/scene0", "train/scene1", "train/scene2"}
    assert set(train.commands) == {"go", "turn"}, "paraphrases count for their command"
    assert "no faults" in capsys.readouterr().out


def test_every_damage_is_named(dataset: Path, harm: Callable, capsys: pytest.CaptureFixture) -> None:
    """In the training data the records of an episode of 13, 17, 21 or 25 frames are a head and 1, 2, 2 or 2 others."""
    first, second, third = (dataset / f"train-0000{number}-of-00003.array_record" for number in range(3))
    harm(first, "truncated")
    for record in (0, 4, 6, 7):
        harm(second, "flipped", record)
    harm(third, "swapped", 1)
    for record in (3, 7):
        harm(third, "version", record)
    report = check_data(dataset)
    expected = [
        f"{first}: 0 records instead of 8, the file is truncated",
        f"{second}: record 0: episode 3, head: cannot be read",
        f"{second}: record 4: episode 4, frames 0 to 12: cannot be read",
        f"{second}: record 6: episode 5, frames 0 to 15: cannot be read",
        f"{second}: record 7: episode 5, frames 16 to 16: cannot be read",
        f"{third}: record 1: episode 6, frames 0 to 15: not the frames from 0 on",
        f"{third}: record 2: episode 6, frames 16 to 20: not the frames from 16 on",
        f"{third}: record 3: episode 7, head: schema version {SCHEMA_VERSION + 1}",
        f"{third}: record 7: episode 8, frames 0 to 12: schema version {SCHEMA_VERSION + 1}",
    ]
    assert len(report.faults) == len(expected)
    for found, fault in zip(report.faults, expected, strict=True):
        assert re.match(fault, found) and "\n" not in found
    assert report.splits["train"].episodes == 0 and report.splits["validation"].episodes == 3
    printed = capsys.readouterr().out
    assert all(f"FAULT {fault}" in printed for fault in report.faults)


def test_sound_episodes_are_read_beside_damaged_ones(dataset: Path, harm: Callable) -> None:
    harm(dataset / "train-00001-of-00003.array_record", "corrupt", 4)
    report = check_data(dataset)
    (fault,) = report.faults
    assert "record 4: episode 4, frames 0 to 12: checksum mismatch" in fault
    assert report.splits["train"].episodes == 8


def test_a_missing_and_a_foreign_shard(dataset: Path) -> None:
    (dataset / "train-00002-of-00003.array_record").rename(dataset / "train-00007-of-00009.array_record")
    faults = check_data(dataset).faults
    assert any("00002-of-00003.array_record is missing" in fault for fault in faults)
    assert any("00007-of-00009.array_record: not listed" in fault for fault in faults)


def test_a_scene_in_two_splits(tmp_path: Path, episode: Callable, write: Callable) -> None:
    write(tmp_path, "train", [episode(0), episode(1)])
    write(tmp_path, "validation", [dataclasses.replace(episode(3, split="validation"), scene="train/scene1")])
    (fault,) = check_data(tmp_path).faults
    assert "scenes in both train and validation: train/scene1" in fault


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"fps": 10.0}, "fps 10.0"),
        ({"split": "validation"}, "split validation"),
        ({"actions": {"discrete": np.zeros(16, np.int32)}}, "action spaces"),
        ({"frames_THWC": np.zeros((17, 16, 8, 3), np.uint8)}, "frame shape (17, 16, 8, 3)"),
    ],
)
def test_an_episode_unlike_its_data_set(
    tmp_path: Path, episode: Callable, write: Callable, change: dict, fault: str
) -> None:
    write(tmp_path, "train", [episode(0), dataclasses.replace(episode(1), **change)])
    (found,) = check_data(tmp_path).faults
    assert "record 3: episode 1, head: " in found and fault in found


def test_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(VgenError, match=INFO_FILE):
        check_data(tmp_path)
