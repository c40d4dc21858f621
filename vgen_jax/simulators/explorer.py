"""Chooses commands: explores, turns away from walls, and on purpose comes back to places it has seen.

A pattern is a generator that yields command names and is sent what was seen after each command's chunk. About two
fifths of the chunks belong to patterns that return (there and back, look left then right, full turns, squares), because
a model of the world is judged by what it shows on the second visit.
"""

from collections.abc import Callable, Generator
from typing import NamedTuple

import numpy as np

from vgen_jax.data.units import DOOM, Units


class Sight(NamedTuple):
    """What the explorer knows after a chunk.

    Attributes:
        clearance: distance (map units) to what stands left, ahead and right.
        moved: distance (map units) walked during the chunk.
        units: of the world that is walked through.
    """

    clearance: tuple[float, float, float]
    moved: float
    units: Units = DOOM

    @property
    def near(self) -> bool:
        """Whether something ahead is in the way of a chunk of walking."""
        return self.clearance[1] < self.units.near

    @property
    def stuck(self) -> bool:
        """Whether a chunk of walking was blocked."""
        return self.moved < self.units.stuck


Pattern = Generator[str, Sight, None]

_OTHER = {"left": "right", "right": "left"}


def _side(rng: np.random.Generator) -> str:
    return "left" if rng.random() < 0.5 else "right"


def _open_side(rng: np.random.Generator, sight: Sight) -> str:
    left, _, right = sight.clearance
    if abs(left - right) < 30:
        return _side(rng)
    return "left" if left > right else "right"


def explore(rng: np.random.Generator, sight: Sight) -> Pattern:
    """Walks on for a few chunks, in curves at times; turns to the open side when something is near."""
    side = ""
    for _ in range(int(rng.integers(3, 8))):
        if sight.near or (side == "" and sight.stuck and rng.random() < 0.5):
            side = side or _open_side(rng, sight)
            sight = yield "turn around" if rng.random() < 0.08 else f"turn {side}"
            continue
        side = ""
        if rng.random() < 0.3:
            sight = yield f"go forward and turn {_open_side(rng, sight)}"
        else:
            sight = yield "go forward"


def wander(rng: np.random.Generator, sight: Sight) -> Pattern:
    """One or two of the rarer commands."""
    names = ("strafe {}", "step back and turn {}", "circle {}", "go forward and turn {}", "turn {}")
    name = names[rng.integers(len(names))].format(_side(rng))
    for _ in range(int(rng.integers(1, 3))):
        yield name


def stay(rng: np.random.Generator, sight: Sight) -> Pattern:
    yield "stay"


def _until_blocked(name: str, count: int, sight: Sight) -> Generator[str, Sight, tuple[int, Sight]]:
    """Repeats a command; returns how many chunks really moved."""
    done = 0
    while done < count:
        sight = yield name
        if sight.stuck:
            break
        done += 1
    return done, sight


def there_and_back(rng: np.random.Generator, sight: Sight) -> Pattern:
    """Forward then backwards, or backwards then forward, as far."""
    count = int(rng.integers(1, 5))
    pair = ("go forward", "step back") if not sight.near else ("step back", "go forward")
    done, sight = yield from _until_blocked(pair[0], count, sight)
    for _ in range(max(done, 1)):
        sight = yield pair[1]


def walk_home(rng: np.random.Generator, sight: Sight) -> Pattern:
    """Forward, half turn, forward as far, and half turn: the first view again."""
    if sight.near:
        sight = yield "turn around"
    done, sight = yield from _until_blocked("go forward", int(rng.integers(1, 4)), sight)
    sight = yield "turn around"
    for _ in range(done):
        sight = yield "go forward"
    yield "turn around"


def look(rng: np.random.Generator, sight: Sight) -> Pattern:
    """To one side and back."""
    count, side = int(rng.integers(1, 5)), _side(rng)
    for turned in (side, _OTHER[side]):
        for _ in range(count):
            yield f"turn {turned}"


def sidestep(rng: np.random.Generator, sight: Sight) -> Pattern:
    """To one side and back, or half around a point and back."""
    side = _side(rng)
    verb = "strafe" if rng.random() < 0.7 else "circle"
    done, sight = yield from _until_blocked(f"{verb} {side}", int(rng.integers(1, 4)), sight)
    for _ in range(max(done, 1)):
        sight = yield f"{verb} {_OTHER[side]}"


def spin(rng: np.random.Generator, sight: Sight) -> Pattern:
    """A full turn: twelve turns of 30 degrees, or two half turns."""
    if rng.random() < 0.5:
        yield "turn around"
        yield "turn around"
        return
    name = f"turn {_side(rng)}"
    for _ in range(12):
        yield name


def square(rng: np.random.Generator, sight: Sight) -> Pattern:
    """Four sides and four right angles; given up at a wall."""
    name, count = f"turn {_side(rng)}", int(rng.integers(1, 3))
    for _ in range(4):
        done, sight = yield from _until_blocked("go forward", count, sight)
        if done < count:
            return
        for _ in range(3):
            sight = yield name


# Patterns and how often each is begun; they differ in length, so these are not shares of chunks.
_PATTERNS: tuple[tuple[Callable[[np.random.Generator, Sight], Pattern], float], ...] = (
    (explore, 0.43),
    (wander, 0.12),
    (stay, 0.17),
    (there_and_back, 0.09),
    (walk_home, 0.05),
    (look, 0.07),
    (sidestep, 0.05),
    (spin, 0.015),
    (square, 0.01),
)
RETURNING = frozenset({"there_and_back", "walk_home", "look", "sidestep", "spin", "square"})


class Explorer:
    """Draws pattern after pattern. The same seed and the same sights give the same commands.

    Attributes:
        pattern: the name of the pattern that gave the last command.
    """

    def __init__(self, seed: int):
        self._rng = np.random.default_rng(seed)
        self._weights = np.array([weight for _, weight in _PATTERNS]) / sum(weight for _, weight in _PATTERNS)
        self._running: Pattern | None = None
        self.pattern = ""

    def next(self, sight: Sight) -> str:
        """The name of the next command, given what was seen after the last one."""
        if self._running is not None:
            try:
                return self._running.send(sight)
            except StopIteration:
                self._running = None
        while True:
            make = _PATTERNS[self._rng.choice(len(_PATTERNS), p=self._weights)][0]
            self._running, self.pattern = make(self._rng, sight), make.__name__
            try:
                return next(self._running)
            except StopIteration:
                continue
