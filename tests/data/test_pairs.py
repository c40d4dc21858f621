"""Pairs of frames: near in pose, deterministic, the same for every number of processes."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from vgen_jax.data.batches import Batch
from vgen_jax.data.pairs import PairReader, PairsConfig, PlacesConfig, choose_places, draw_pair, pair_iterator, pose_of
from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.revisits import apart
from vgen_jax.types import VgenError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_dataset(tmp_path_factory.mktemp("pairs") / "data")


def config(folder: Path, **changes) -> PairsConfig:
    base = {"split": "train", "batch_size": 8, "per_episode": 4, "near": 25.0, "turn": 5.0, "seed": 0, "workers": 0}
    return PairsConfig(str(folder), **{**base, **changes})


def take(iterator, count: int) -> list[Batch]:
    return list(itertools.islice(iterator, count))


def assert_equal(a: list[Batch], b: list[Batch]) -> None:
    for x, y in zip(a, b, strict=True):
        for key in ("pair", "pose", "scene"):
            np.testing.assert_array_equal(x[key], y[key])


def test_a_pair_is_near_and_is_two_frames_where_there_are_two(folder: Path) -> None:
    rng = np.random.default_rng(0)
    line = np.zeros((5, 4), np.float32)
    line[:, 0] = [0, 10, 500, 520, 1000]
    for _ in range(60):
        first, second = draw_pair(line, 25.0, 5.0, rng)
        assert {first, second} in ({0, 1}, {2, 3}, {4})
    turned = np.zeros((2, 4), np.float32)
    turned[1, 3] = 6.0
    assert all(len(set(draw_pair(turned, 25.0, 5.0, rng))) == 1 for _ in range(10))


def test_a_batch_holds_the_frames_of_its_poses(folder: Path) -> None:
    source, cfg = EpisodeSource(folder, "train"), config(folder)
    reader = PairReader(source, cfg, slice(0, 8))
    for k in range(5):
        batch, pairs = reader(k), reader.pairs(k)
        distance, angle = apart(batch["pose"][:, 0], batch["pose"][:, 1])
        assert (distance <= 25).all() and (angle <= 5).all()
        assert len({pair.episode for pair in pairs}) == 2, "four pairs each of two episodes"
        for row, pair in enumerate(pairs):
            for which, t in enumerate((pair.first, pair.second)):
                np.testing.assert_array_equal(batch["pair"][row, which], source.episode(pair.episode).frames_THWC[t])
                np.testing.assert_array_equal(batch["pose"][row, which], pose_of(source, pair.episode)[t])
        names = np.asarray([source.scenes[pair.episode] for pair in pairs])
        np.testing.assert_array_equal(batch["scene"][:, None] == batch["scene"][None], names[:, None] == names[None])


def test_the_seed_decides_and_processes_share_a_batch(folder: Path) -> None:
    whole = take(pair_iterator(config(folder), 0, 1), 4)
    assert_equal(whole, take(pair_iterator(config(folder), 0, 1), 4))
    parts = [take(pair_iterator(config(folder), p, 2), 4) for p in range(2)]
    assert_equal([{k: np.concatenate([a[k], b[k]]) for k in a} for a, b in zip(*parts, strict=True)], whole)
    other = take(pair_iterator(config(folder, seed=1), 0, 1), 4)
    assert any((x["pose"] != y["pose"]).any() for x, y in zip(whole, other, strict=True))


def test_resume_is_exact(folder: Path) -> None:
    iterator = pair_iterator(config(folder), 0, 1)
    take(iterator, 3)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = take(iterator, 2)
    again = pair_iterator(config(folder), 0, 1)
    again.set_state(state)
    assert_equal(take(again, 2), expected)


def test_places_are_apart_and_their_frames_differ(folder: Path) -> None:
    source = EpisodeSource(folder, "validation")
    cfg = PlacesConfig(str(folder), "validation", 5, 25.0, 5.0, 30.0, 30.0, 0)
    places = choose_places(source, cfg)
    assert places == choose_places(source, cfg) and set(places) == set(source.scenes)
    for scene, pairs in places.items():
        assert 1 < len(pairs) <= 5 and all(source.scenes[pair.episode] == scene for pair in pairs)
        assert all(pair.first != pair.second for pair in pairs)
        first = np.stack([pose_of(source, pair.episode)[pair.first] for pair in pairs])
        distance, _ = apart(first[:, None], first[None])
        assert (distance[~np.eye(len(pairs), dtype=bool)] >= 30).all()


def test_unfit_settings_are_refused(folder: Path) -> None:
    with pytest.raises(VgenError, match="multiple of data.per_episode 3"):
        config(folder, per_episode=3)
    with pytest.raises(VgenError, match="no scene with two places"):
        choose_places(
            EpisodeSource(folder, "validation"), PlacesConfig(str(folder), "validation", 5, 25, 5, 1e6, 360, 0)
        )
