"""The explorer in a toy room: a square with walls, no simulator."""

from collections import Counter

import numpy as np
import pytest

from vgen_jax.data.units import DOOM
from vgen_jax.simulators.commands import walker_commands
from vgen_jax.simulators.explorer import RETURNING, Explorer, Sight

ACTIONS = {command.name: np.asarray(command.actions) for command in walker_commands(4)}
WALL = 600.0


class Room:
    """A point that walks 66 units per full speed and step within +-WALL."""

    def __init__(self) -> None:
        self.place, self.heading = np.zeros(2), 0.0

    def clearance(self, offset: float) -> float:
        angle = np.radians(self.heading + offset)
        way = np.array([np.cos(angle), np.sin(angle)])
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.min(np.where(way == 0, np.inf, (np.sign(way) * WALL - self.place) / way)))

    def obey(self, name: str) -> Sight:
        before = self.place.copy()
        for turn, forward, strafe in ACTIONS[name]:
            self.heading += turn
            angle = np.radians(self.heading)
            ahead, right = np.array([np.cos(angle), np.sin(angle)]), np.array([np.sin(angle), -np.cos(angle)])
            self.place = np.clip(self.place + 66 * (forward * ahead + strafe * right), -WALL, WALL)
        moved = float(np.hypot(*(self.place - before)))
        return Sight((self.clearance(30), self.clearance(0), self.clearance(-30)), moved)


def walk(seed: int, chunks: int) -> tuple[list[str], list[str], list[Sight]]:
    room, explorer = Room(), Explorer(seed)
    sight = Sight((WALL, WALL, WALL), np.inf)
    names, patterns, sights = [], [], []
    for _ in range(chunks):
        sights.append(sight)
        names.append(explorer.next(sight))
        patterns.append(explorer.pattern)
        sight = room.obey(names[-1])
    return names, patterns, sights


def test_the_seed_decides() -> None:
    assert walk(3, 300)[0] == walk(3, 300)[0]
    assert walk(3, 300)[0] != walk(4, 300)[0]


def test_it_returns_often_and_does_everything() -> None:
    names, patterns, _ = walk(0, 6000)
    assert 0.28 < sum(p in RETURNING for p in patterns) / len(patterns) < 0.55
    counts = Counter(names)
    assert set(counts) == set(ACTIONS)
    assert 0.02 < counts["stay"] / len(names) < 0.09
    assert counts["go forward"] == max(counts.values())


def test_it_seldom_walks_into_walls() -> None:
    _, patterns, sights = walk(1, 4000)
    stuck = [after.moved < DOOM.stuck for after in sights[1:]]
    names = walk(1, 4000)[0]
    forward = [s for s, name in zip(stuck, names, strict=False) if name.startswith("go forward")]
    assert np.mean(forward) < 0.1
    # Exploring, it never walks straight at something near.
    for name, pattern, sight in zip(names, patterns, sights, strict=True):
        if pattern == "explore" and sight.clearance[1] < DOOM.near:
            assert name.startswith("turn")


@pytest.mark.parametrize("seed", range(4))
def test_it_gets_around(seed: int) -> None:
    room, explorer, cells = Room(), Explorer(seed), set()
    sight = Sight((WALL, WALL, WALL), np.inf)
    for _ in range(400):
        sight = room.obey(explorer.next(sight))
        cells.add(tuple((room.place // 200).astype(int)))
    assert len(cells) >= 20
