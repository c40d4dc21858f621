"""Batches: deterministic, the same for every number of processes, exactly resumable."""

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vgen_jax.data.batches import Batch, BatchesConfig, evaluation_windows, make_iterator, to_batch
from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.windows import WindowIndex
from vgen_jax.types import VgenError


def config(folder: Path, **changes) -> BatchesConfig:
    base = BatchesConfig(
        data_dir=str(folder), split="train", windows=((4, 4), (1, 4)), window_weights=(3.0, 1.0), batch_size=4,
        token_length=16, seed=0, action="continuous", shuffle=True, repeat=True, workers=0, with_pose=True,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def take(iterator, count: int) -> list[Batch]:
    return list(itertools.islice(iterator, count))


def assert_equal(a: list[Batch], b: list[Batch]) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert set(x) == set(y)
        for key in x:
            np.testing.assert_array_equal(x[key], y[key])


def test_the_seed_decides(dataset: Path) -> None:
    first = take(make_iterator(config(dataset), 0, 1), 20)
    assert_equal(first, take(make_iterator(config(dataset), 0, 1), 20))
    other = take(make_iterator(config(dataset, seed=1), 0, 1), 20)
    assert any((x["video"].shape != y["video"].shape) or (x["video"] != y["video"]).any()
               for x, y in zip(first, other, strict=True))  # fmt: skip


def test_lengths_mix_by_weight_and_never_within_a_batch(dataset: Path) -> None:
    batches = take(make_iterator(config(dataset), 0, 1), 40)
    lengths = Counter(batch["video"].shape[1] for batch in batches)
    assert lengths == {8: 30, 5: 10}
    for k, batch in enumerate(batches):
        np.testing.assert_array_equal(batch["sample_id"], np.arange(4 * k, 4 * k + 4))


@pytest.mark.parametrize("processes", [2, 4])
def test_global_batches_do_not_depend_on_the_processes(dataset: Path, processes: int) -> None:
    whole = take(make_iterator(config(dataset), 0, 1), 6)
    parts = [take(make_iterator(config(dataset), p, processes), 6) for p in range(processes)]
    joined = [{key: np.concatenate([part[k][key] for part in parts]) for key in whole[k]} for k in range(len(whole))]
    assert_equal(joined, whole)


@pytest.mark.parametrize("after", [0, 1, 7, 30])
def test_resume_is_exact_even_with_other_processes(dataset: Path, after: int) -> None:
    iterator = make_iterator(config(dataset), 0, 1)
    take(iterator, after)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = take(iterator, 3)
    again = make_iterator(config(dataset), 0, 1)
    again.set_state(state)
    assert_equal(take(again, 3), expected)
    half = make_iterator(config(dataset), 1, 2)
    half.set_state(state)
    assert_equal(take(half, 3), [{key: rows[2:] for key, rows in batch.items()} for batch in expected])


def test_going_back_within_one_iterator(dataset: Path) -> None:
    iterator = make_iterator(config(dataset), 0, 1)
    first = take(iterator, 3)
    iterator.set_state({"batch": 0})
    assert_equal(take(iterator, 3), first)


def test_an_epoch_has_every_window_once(dataset: Path) -> None:
    source = EpisodeSource(dataset, "train")
    total = len(WindowIndex(source.frames, 4, 4, 4))
    one = config(dataset, windows=((4, 4),), window_weights=(1.0,), batch_size=1)
    batches = take(make_iterator(one, 0, 1), 2 * total)
    places = [(int(b["pose"][0, 3, 0]), int(b["pose"][0, 0, 1])) for b in batches]
    assert len(set(places[:total])) == total and set(places[total:]) == set(places[:total])
    assert places[:total] != places[total:], "the second epoch is shuffled anew"
    in_order = [b for b in make_iterator(dataclasses.replace(one, shuffle=False, repeat=False), 0, 1)]
    assert [int(b["pose"][0, 3, 0]) for b in in_order] == [w.boundary for w in
                                                           (WindowIndex(source.frames, 4, 4, 4)[n]
                                                            for n in range(total))]  # fmt: skip


@pytest.mark.slow
def test_loading_processes_change_nothing(dataset: Path) -> None:
    expected = take(make_iterator(config(dataset), 0, 1), 6)
    iterator = make_iterator(config(dataset, workers=2), 0, 1)
    iterator.set_state({"batch": 2})
    try:
        assert_equal(take(iterator, 4), expected[2:])
    finally:
        iterator.close()


@pytest.mark.parametrize(
    ("kind", "record", "fault"),
    [
        ("truncated", 0, "the file is truncated"),
        ("flipped", 3, "record 3: episode 4, head: cannot be read"),
        ("flipped", 4, "record 4: episode 4, frames 0 to 12: cannot be read"),
        ("corrupt", 4, "record 4: episode 4, frames 0 to 12: checksum mismatch"),
        ("version", 3, "record 3: episode 4, head: schema version"),
        ("version", 4, "record 4: episode 4, frames 0 to 12: schema version"),
    ],
)
def test_damage_is_named_in_one_line(dataset: Path, harm: Callable, kind: str, record: int, fault: str) -> None:
    name = "train-00001-of-00003.array_record"
    harm(dataset / name, kind, record)
    with pytest.raises(VgenError, match=f"{name}: .*{fault}") as caught:
        take(make_iterator(config(dataset), 0, 1), 40)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"windows": ()}, "windows"),
        ({"window_weights": (1.0, 0.0)}, "positive"),
        ({"batch_size": 5}, "multiple of the 2"),
        ({"windows": ((4, 40), (1, 4))}, r"\(4, 40\)"),
        ({"split": "test"}, "'test'"),
    ],
)
def test_wrong_settings_are_refused(dataset: Path, changes: dict, fault: str) -> None:
    with pytest.raises(VgenError, match=fault):
        make_iterator(config(dataset, **changes), 0, 2)


def test_evaluation_windows_are_fixed_and_spread(dataset: Path) -> None:
    one = config(dataset, windows=((4, 4),), window_weights=(1.0,))
    batches = list(evaluation_windows(one, 12, 0, 1))
    assert_equal(batches, list(evaluation_windows(one, 12, 0, 1)))
    seeds = np.concatenate([b["pose"][:, 0, 1] for b in batches]).astype(int)
    assert Counter(seeds % 3) == {0: 4, 1: 4, 2: 4}, "three scenes share the windows"
    places = {(int(p[3, 0]), int(p[0, 1])) for b in batches for p in b["pose"]}
    assert len(places) == 12
    halves = [list(evaluation_windows(one, 12, p, 2)) for p in range(2)]
    assert_equal([{k: np.concatenate([a[k], b[k]]) for k in a} for a, b in zip(*halves, strict=True)], batches)
    with pytest.raises(VgenError, match="13.*batch_size=4"):
        evaluation_windows(one, 13, 0, 1)
    with pytest.raises(VgenError, match="4000 windows"):
        evaluation_windows(one, 4000, 0, 1)


def test_to_batch_names_the_axes(dataset: Path) -> None:
    raw = take(make_iterator(config(dataset, action="none", token_length=0, with_pose=False), 0, 1), 1)[0]
    batch = to_batch(raw)
    np.testing.assert_array_equal(batch.video_BTHWC, raw["video"])
    assert batch.token_BL is None and batch.action_BTA is None and batch.pose_BTP is None
    full = to_batch(take(make_iterator(config(dataset), 0, 1), 1)[0])
    assert full.action_BTA.shape == (*full.past_BT.shape, 2) and full.pose_BTP.shape[-1] == 4
