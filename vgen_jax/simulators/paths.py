"""Scripted paths that leave a place and come back to it: what a memory is measured on (SlowFast-VGen §4.1).

Five kinds:

* ``look``: turn away for n chunks, and back;
* ``walk``: forward for n chunks, and step back as far;
* ``loop``: a full circle of turns or a square, back to the start;
* ``spin``: full circles of turns to the right;
* ``excursions``: several of these from one place, one after another.

The round is repeated until the length is full, so that a long path sees the same places many times; the last round may
be cut off. Commands undo each other exactly, momentum included (it decays by a constant factor, so the slides of a walk
and of its way back cancel once the player rests), unless something is in the way. So a path is believed only when its
recorded pose proves that it came back.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from vgen_jax.data.revisits import apart, has_left
from vgen_jax.data.schema import Episode
from vgen_jax.data.units import DOOM, Units
from vgen_jax.simulators.base import Observation, Simulator
from vgen_jax.simulators.commands import WALK
from vgen_jax.simulators.explorer import Sight
from vgen_jax.simulators.record import play
from vgen_jax.types import VgenError

KINDS = ("look", "walk", "loop", "excursions", "spin")
SCRIPT = "script"  # the extra that holds a path's script
MIN_CHUNKS = 16
_FULL_TURN = 12  # chunks of a turn of 30 degrees
_REST = 2  # chunks of standing still after which the slide of a walk is over
_DIRECTIONS = 12
_SETTLE = 8  # steps, after which a slide is below one map unit
_RADIUS = 0.36  # of a body and a slide, in chunks of walking
_OTHER = {"left": "right", "right": "left"}


@dataclasses.dataclass(frozen=True)
class PathsConfig:
    """A split of scripted paths.

    Attributes:
        scenes: the split whose scenes are walked, ``train`` or ``validation``.
        episodes: how many paths; spread evenly over the kinds and the scenes.
        steps: actions of a path, a multiple of the chunk; a path has one frame more.
        kinds: of ``KINDS``, in turn.
    """

    scenes: str
    episodes: int
    steps: int
    kinds: tuple[str, ...]

    def __post_init__(self) -> None:
        wrong = [kind for kind in self.kinds if kind not in KINDS]
        if wrong or not self.kinds:
            raise VgenError(f"kinds={self.kinds}: expected some of {', '.join(KINDS)}")
        if self.episodes < 1:
            raise VgenError(f"episodes={self.episodes} must be at least 1")


class Script(NamedTuple):
    """A planned path.

    Attributes:
        kind: of ``KINDS``.
        name: what it does, ``walk 3`` or ``look left 5, walk 2``.
        commands: one per chunk.
        seen: every place of the path has been seen once at this frame; later frames only come back.
        homes: frames at which the start's view is seen again.
    """

    kind: str
    name: str
    commands: tuple[str, ...]
    seen: int
    homes: tuple[int, ...]


class Leg(NamedTuple):
    """A way out and the way back from it; a loop is all way out."""

    name: str
    out: tuple[str, ...]
    back: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.out) + len(self.back)


def look(side: str, n: int) -> Leg:
    """n turns to a side, and back."""
    return Leg(f"look {side} {n}", (f"turn {side}",) * n, (f"turn {_OTHER[side]}",) * n)


def walk(n: int) -> Leg:
    """n chunks forward, and backwards."""
    return Leg(f"walk {n}", ("go forward",) * n + ("stay",), ("step back",) * n + ("stay",) * _REST)


def spin(side: str) -> Leg:
    """A full circle on the spot."""
    return Leg(f"spin {side}", (f"turn {side}",) * _FULL_TURN, ())


def square(side: str, n: int) -> Leg:
    """Four sides of n chunks and four right angles; the slides end during the turns."""
    return Leg(f"square {side} {n}", (("go forward",) * n + (f"turn {side}",) * (_FULL_TURN // 4)) * 4, ())


def plan(
    kind: str, chunks: int, chunk: int, room: float, rng: np.random.Generator, units: Units = DOOM
) -> Script | None:
    """Draws a path of a kind.

    Args:
        chunks: its length.
        chunk: steps per command.
        room: map units to what stands ahead.
        units: of the world that is walked through.

    Returns:
        ``None`` where there is too little room for it.

    Raises:
        VgenError: the length is too short for all kinds.
    """
    if chunks < MIN_CHUNKS:
        raise VgenError(f"steps={chunks * chunk} must be at least {MIN_CHUNKS * chunk}, {MIN_CHUNKS} commands")
    # Chunks of walking until something is in the way. Beyond the end of sight only the walk itself can tell.
    free = chunks if room > units.sight else int(room / (WALK * units.run * chunk) - _RADIUS)
    legs = {"look": _a_look, "walk": _a_walk, "loop": _a_loop, "excursions": _excursions, "spin": _a_spin}[kind](
        chunks, free, rng
    )
    if not all(legs):
        return None
    around: list[str] = []
    homes, seen = [], 0
    for leg in legs:
        seen = len(around) + len(leg.out)
        around += (*leg.out, *leg.back)
        homes.append(len(around))
    commands = tuple(itertools.islice(itertools.cycle(around), chunks))
    rounds = range(0, chunks, len(around))
    home = tuple((start + end) * chunk for start in rounds for end in homes if start + end <= chunks)
    name = f"{kind}: " + ", ".join(leg.name for leg in legs if leg)
    return Script(kind, name, commands, seen * chunk, home)


_NONE = Leg("", (), ())


def _side(rng: np.random.Generator) -> str:
    return "left" if rng.random() < 0.5 else "right"


def _a_look(chunks: int, free: int, rng: np.random.Generator) -> list[Leg]:
    return [look(_side(rng), int(rng.integers(4, min(_FULL_TURN - 1, chunks // 2 - 1) + 1)))]


def _a_walk(chunks: int, free: int, rng: np.random.Generator) -> list[Leg]:
    n = min(int(rng.integers(2, 6)), (chunks - 1 - _REST) // 2, free)
    return [walk(n) if n > 1 else _NONE]


def _a_loop(chunks: int, free: int, rng: np.random.Generator) -> list[Leg]:
    """A circle of turns or, where one fits twice, a square."""
    side = _side(rng)
    loops = [spin(side), square(side, 1), square(side, 2)]
    n = int(rng.integers(3 if chunks >= 2 * len(loops[-1]) else 1))
    return [loops[n] if n <= free else _NONE]


def _a_spin(chunks: int, free: int, rng: np.random.Generator) -> list[Leg]:
    return [spin("right")]


def _excursions(chunks: int, free: int, rng: np.random.Generator) -> list[Leg]:
    """Two of a look to each side and a walk; all of them if there is time, and then a circle of turns, too."""
    count = 2 if chunks < 2 * MIN_CHUNKS else 3 if chunks < 6 * MIN_CHUNKS else 4
    each = (chunks if count == 2 else chunks // 2) // count
    turns = [int(rng.integers(3, min(6, each // 2) + 1)) for _ in range(2)]
    n = min(int(rng.integers(1, min(3, (each - 1 - _REST) // 2) + 1)), free)
    legs = [look("left", turns[0]), look("right", turns[1]), walk(n) if n else _NONE, spin(_side(rng))]
    return [legs[i] for i in rng.permutation(max(3, count))[:count]]


def comes_back(script: Script, pose_TP: np.ndarray, units: Units = DOOM) -> bool:
    """Whether the pose proves that the start's view was seen again at every home, and left before each.

    Of a path that is still being walked, (T, 4) with fewer frames, the homes up to now.
    """
    distance, angle = apart(pose_TP, pose_TP[0])
    left = has_left(distance, angle, units)
    homes = [home for home in script.homes if home < len(pose_TP)]
    away = all(left[a:b].any() for a, b in itertools.pairwise([0, *homes]))
    return away and bool((distance[homes] <= units.same_place).all() and (angle[homes] <= units.same_turn).all())


def face_room(simulator: Simulator) -> Observation:
    """Looks around, turns to where there is most room, and stands still until nothing slides."""
    turn = np.zeros(len(simulator.action_space.names), np.float32)
    rooms = []
    for _ in range(_DIRECTIONS):
        turn[0] = 360.0 / _DIRECTIONS
        simulator.step(turn)
        rooms.append(simulator.clearance()[1])
    between = np.asarray(rooms) + 0.5 * (np.roll(rooms, 1) + np.roll(rooms, -1))  # a corridor is better than a slit
    turn[0] *= 1 + int(np.argmax(between))
    simulator.step(turn)
    for _ in range(_SETTLE):
        seen = simulator.step(np.zeros_like(turn))
    return seen


class Follower:
    """Plans a script when it sees the place for the first time, then gives its commands.

    It gives up, by ``None``, where there is no room for the script, and as soon as it has missed its way back.

    Attributes:
        script: what was planned.
    """

    def __init__(self, make: Callable[[Sight], Script | None]):
        self._make = make
        self._left: Iterator[str] = iter(())
        self.script: Script | None = None

    def __call__(self, sight: Sight, pose_TP: np.ndarray) -> str | None:
        if self.script is None:
            self.script = self._make(sight)
            self._left = iter(self.script.commands if self.script else ())
        if self.script is None or not comes_back(self.script, pose_TP, sight.units):
            return None
        return next(self._left)


def record_path(
    simulator: Simulator, config: PathsConfig, split: str, chunk: int, number: int, scene: str, seeds: tuple[int, int]
) -> Episode | None:
    """Plays path ``number`` of a split once; ``None`` where the place had no room for it or it did not come back.

    Args:
        seeds: of the script, and of the place and the texts. Another place is tried with the same script, so that the
            narrow maps do not decide which scripts there are.

    Returns:
        The episode; its extra ``script`` is read by ``read_script``.
    """
    kind, chunks = config.kinds[number % len(config.kinds)], config.steps // chunk

    def script(sight: Sight) -> Script | None:
        return plan(kind, chunks, chunk, sight.clearance[1], np.random.default_rng((seeds[0], 2)), sight.units)

    follow = Follower(script)
    episode = play(simulator, scene, seeds[1], split, config.steps, chunk, follow, prepare=(face_room,))
    if (
        episode is None
        or follow.script is None
        or not comes_back(follow.script, episode.extras["pose"], simulator.units)
    ):
        return None
    return dataclasses.replace(episode, extras={**episode.extras, SCRIPT: _pack(follow.script)})


def path_scene(scenes: tuple[str, ...], config: PathsConfig, number: int) -> str:
    """The scene of a path: all kinds in one scene, then the next scene."""
    return scenes[number // len(config.kinds) % len(scenes)]


def _pack(script: Script) -> np.ndarray:
    return np.frombuffer(json.dumps(script._asdict()).encode(), np.uint8)


def read_script(extras: Mapping[str, np.ndarray]) -> Script:
    """The script of a recorded path, from its episode's extras.

    Raises:
        VgenError: the episode is no scripted path.
    """
    if SCRIPT not in extras:
        raise VgenError(f"the episode is no scripted path (its extras: {', '.join(extras)}); collect paths first")
    raw = json.loads(extras[SCRIPT].tobytes())
    return Script(raw["kind"], raw["name"], tuple(raw["commands"]), raw["seen"], tuple(raw["homes"]))
