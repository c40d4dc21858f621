"""The validator names every fault and goes on."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vgen_jax.data.check import check_data
from vgen_jax.data.records import INFO_FILE
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
    for number, kind in enumerate(("truncated", "flipped", "version")):
        harm(dataset / f"train-0000{number}-of-00003.array_record", kind)
    report = check_data(dataset)
    assert len(report.faults) == 3
    assert "00000-of-00003" in report.faults[0] and "truncated" in report.faults[0]
    assert "00001-of-00003.array_record: record 0: " in report.faults[1]
    assert "00002-of-00003.array_record: record 1: schema version 2" in report.faults[2]
    assert report.splits["train"].episodes == 4, "the sound records are read all the same"
    printed = capsys.readouterr().out
    assert all(f"FAULT {fault}" in printed for fault in report.faults)


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
        ({"frames_THWC": np.zeros((17, 16, 8, 3), np.uint8)}, "frame shape"),
    ],
)
def test_an_episode_unlike_its_data_set(
    tmp_path: Path, episode: Callable, write: Callable, change: dict, fault: str
) -> None:
    write(tmp_path, "train", [episode(0), dataclasses.replace(episode(1), **change)])
    (found,) = check_data(tmp_path).faults
    assert "record 1: " in found and fault in found


def test_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(VgenError, match=INFO_FILE):
        check_data(tmp_path)
