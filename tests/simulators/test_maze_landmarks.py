"""Landmarks and starts: nobody begins inside of a thing, and a thing stays where it stands."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from configs.data import maze as config
from vgen_jax.config import section
from vgen_jax.simulators.collect import CollectConfig
from vgen_jax.simulators.maze import PATTERNED, PLAIN, MazeSimulator
from vgen_jax.simulators.maze_layout import make_layout
from vgen_jax.simulators.maze_wad import CELL, LANDMARKS, spots, starts
from vgen_jax.simulators.paths import PathsConfig

MARKED = dataclasses.replace(PLAIN, landmarks=8)


@pytest.fixture(scope="module")
def simulator() -> Iterator[MazeSimulator]:
    simulator = MazeSimulator((32, 32), 4, MARKED)
    yield simulator
    simulator.close()


def test_starts_are_the_spots_without_a_landmark() -> None:
    for seed in range(20):
        layout = make_layout(MARKED, seed)
        things = {tuple(place) for place in (layout.landmark_Y2[:, ::-1] * CELL + CELL // 2).tolist()}
        assert len(things) == len(layout.landmark_Y2) > 0
        assert {tuple(place) for place in spots(layout).tolist()} - things == {
            tuple(place) for place in starts(layout).tolist()
        }
        plain = make_layout(PLAIN, seed)
        np.testing.assert_array_equal(starts(plain), spots(plain))


@pytest.mark.simulator
def test_an_episode_starts_beside_no_landmark(simulator: MazeSimulator) -> None:
    for seed in range(24):
        scene = f"maze/{seed % 3}"
        start = simulator.reset(seed, scene).pose[:2]
        things = simulator.layout(scene).landmark_Y2[:, ::-1] * CELL + CELL // 2
        assert np.abs(things - start).max(axis=1).min() > CELL / 2, (seed, scene)


@pytest.mark.simulator
def test_walking_against_a_landmark_neither_passes_nor_takes_it(simulator: MazeSimulator) -> None:
    """Every kind: one walks up to it from the side, and sees the same again from where one stood before."""
    kinds = set()
    for scene in (f"maze/{number}" for number in range(6)):
        simulator.reset(0, scene)
        layout = simulator.layout(scene)
        for number, (y, x) in enumerate(layout.landmark_Y2.tolist()):
            if layout.room_YX[y, x - 1] < 0 or number % len(LANDMARKS) in kinds:
                continue
            kinds.add(number % len(LANDMARKS))
            simulator._engine.place((x - 1) * CELL + CELL // 2, y * CELL + CELL // 2)
            heading = simulator.step(np.zeros(3, np.float32)).pose[3]
            simulator.step(np.array([-heading, 0, 0], np.float32))  # to the east
            for _ in range(20):
                pose = simulator.step(np.array([0, 1, 0], np.float32)).pose
            assert pose[0] < x * CELL + CELL // 2 - 20, "it is solid"
            assert pose[0] > x * CELL, "and it is what stopped the walk"
    assert kinds == set(range(len(LANDMARKS)))


def test_the_recorded_worlds_are_the_simulators_own() -> None:
    """A variant's section spells out the world that its simulator has by itself; paths name splits and kinds."""
    for variant in (*config.VARIANTS, *config.PATHS):
        values = config.get_config(variant)
        amount = {"split": "train", "frames": 1, "episode_steps": 128}
        collect = section(CollectConfig, {**amount, **values.collect.to_dict()}, "collect")
        assert collect.maze == {"maze_plain": PLAIN, "maze_patterned": PATTERNED}[collect.simulator]
        if variant in config.PATHS:
            assert values.run == "collect_paths" and values.splits
            for name, split in values.splits.items():
                section(PathsConfig, split.to_dict(), name)
        else:
            assert set(values.frames) == {"train", "validation"}
    with pytest.raises(ValueError, match="no variant 'quake'.*paths_plain"):
        config.get_config("quake")
