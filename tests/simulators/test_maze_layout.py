"""The maze of a seed: closed, connected, and with walls that name their room."""

import dataclasses

import numpy as np
import pytest

from vgen_jax.simulators.maze import PATTERNED, PLAIN
from vgen_jax.simulators.maze_layout import FLOORS, MIN_OPEN, PATTERNS, WALL, MazeConfig, make_layout
from vgen_jax.types import VgenError

LANDMARKS = dataclasses.replace(PATTERNED, landmarks=5)
WORLDS = {
    "plain": PLAIN,
    "patterned": PATTERNED,
    "landmarks": LANDMARKS,
    "small": dataclasses.replace(PLAIN, grid=6, rooms=4),
    "large": dataclasses.replace(PLAIN, grid=14, rooms=12),
}
SEEDS = (*range(20), 100_000_000, 100_000_399)


def reached(open_YX: np.ndarray, start: tuple[int, int]) -> np.ndarray:
    """The cells that one can walk to."""
    found = np.zeros_like(open_YX)
    found[start] = True
    while True:
        near = found.copy()
        near[1:] |= found[:-1]
        near[:-1] |= found[1:]
        near[:, 1:] |= found[:, :-1]
        near[:, :-1] |= found[:, 1:]
        if ((near := near & open_YX) == found).all():
            return found
        found = near


@pytest.mark.parametrize("world", WORLDS)
def test_every_open_cell_is_reached_and_the_outer_ring_is_closed(world: str) -> None:
    config = WORLDS[world]
    for seed in SEEDS:
        layout = make_layout(config, seed)
        open_YX = layout.room_YX != WALL
        assert layout.room_YX.shape == (config.grid, config.grid) and open_YX.sum() >= MIN_OPEN
        ring = np.ones_like(open_YX)
        ring[1:-1, 1:-1] = False
        assert not open_YX[ring].any()
        assert open_YX[layout.start]
        assert (reached(open_YX, layout.start) == open_YX).all()
        assert (layout.open_N2 == np.argwhere(open_YX)).all()


@pytest.mark.parametrize("world", WORLDS)
def test_a_pair_of_colours_names_its_room(world: str) -> None:
    for seed in SEEDS:
        layout = make_layout(WORLDS[world], seed)
        count = len(layout.color_R2)
        assert set(np.unique(layout.room_YX)) - {WALL} == set(range(count)), "rooms are numbered without gaps"
        pairs = {frozenset(pair) for pair in layout.color_R2.tolist()}
        assert len(pairs) == count and all(len(pair) == 2 for pair in pairs)
        assert layout.color_R2.min() >= 0 and layout.color_R2.max() < WORLDS[world].colors
        assert layout.floor_R.shape == (count,) and layout.floor_R.max() < FLOORS


def test_patterns_and_landmarks_are_there_when_they_are_asked_for() -> None:
    for seed in SEEDS:
        plain, marked = make_layout(PLAIN, seed), make_layout(LANDMARKS, seed)
        assert (plain.pattern_R2 == WALL).all() and not len(plain.landmark_Y2)
        assert marked.pattern_R2.min() >= 0 and marked.pattern_R2.max() < PATTERNS
        rooms = marked.room_YX[tuple(marked.landmark_Y2.T)]
        assert len(rooms) == min(5, len(marked.color_R2)) == len(set(rooms)) and (rooms != WALL).all()


def test_a_seed_is_a_maze() -> None:
    known = set()
    for seed in range(40):
        first, again = make_layout(PATTERNED, seed), make_layout(PATTERNED, seed)
        for field in dataclasses.fields(first):
            np.testing.assert_array_equal(getattr(first, field.name), getattr(again, field.name))
        known.add(first.room_YX.tobytes() + first.color_R2.tobytes())
    assert len(known) == 40


def test_a_palette_without_enough_pairs_is_refused() -> None:
    (seed, _), *_ = ((n, r) for n in range(20) if (r := len(make_layout(PLAIN, n).color_R2)) > 3)
    with pytest.raises(VgenError, match=r"3 colours only 3 pairs: raise collect\.maze\.colors") as caught:
        make_layout(dataclasses.replace(PLAIN, colors=3), seed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"grid": 4}, r"collect\.maze\.grid is 4"),
        ({"colors": 2}, r"collect\.maze\.colors is 2: use 3 to 12"),
        ({"colors": 13}, r"collect\.maze\.colors is 13: use 3 to 12"),
        ({"rooms": 1}, r"collect\.maze\.rooms"),
        ({"landmarks": -1}, "landmarks"),
        ({"train_scenes": 0}, r"collect\.maze\.train_scenes is 0"),
        ({"validation_scenes": 2_000_000}, r"collect\.maze\.validation_scenes is 2000000"),
    ],
)
def test_wrong_worlds_are_refused(changes: dict, fault: str) -> None:
    with pytest.raises(VgenError, match=fault) as caught:
        MazeConfig(**{**dataclasses.asdict(PLAIN), **changes})
    assert "\n" not in str(caught.value)
