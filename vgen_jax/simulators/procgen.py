"""Procgen: sixteen procedurally generated games (Cobbe et al. 2020), played by uniformly random actions.

AVID (arXiv:2410.12822, §4, §9.1) learns from recordings of 15 games (all but CoinRun, levels 0-1999) and of CoinRun
(its first 100, 500 or 2500 levels): 1000 random steps a level, no action repeated. It is measured on CoinRun's levels
10000-10999, which no training sees. A level begins anew whenever it is won, lost or over; the recording is cut there,
so that no episode, and no window of one, crosses a reset. A level and the actions decide every frame. The games run at
64×64; smaller frames are means over rectangles of pixels.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from vgen_jax.data.schema import ActionSpace, Command, DatasetInfo, Episode
from vgen_jax.data.shards import part_seed
from vgen_jax.types import VgenError

GAMES = (
    "bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot", "heist", "jumper",
    "leaper", "maze", "miner", "ninja", "plunder", "starpilot",
)  # fmt: skip
NATIVE = 64
FPS = 15.0  # Procgen's own rate of play
# The keys behind the 15 ids, in Procgen's order. What d, a, w, s, q and e do differs between the games.
ACTIONS = (
    "down left", "left", "up left", "down", "stay", "up", "down right", "right", "up right", "key d", "key a",
    "key w", "key s", "key q", "key e",
)  # fmt: skip
_CLIP_ATTEMPTS = 50


class Play(NamedTuple):
    """What is seen of a level while T actions are taken.

    Attributes:
        frames_THWC: uint8, T+1 of them.
        reset_T: True where frame t+1 is the first of a new episode, to which no action led.
    """

    frames_THWC: np.ndarray
    reset_T: np.ndarray


class ProcgenSimulator:
    """Plays levels, one at a time. Needs the ``[procgen]`` extra and the system's Qt 5.

    Args:
        size: (height, width) of a frame: 64 over a whole number, on both sides.
    """

    name = "procgen"
    fps = FPS

    def __init__(self, size: tuple[int, int]):
        try:
            import envpool
            import envpool.procgen.procgen_envpool  # without Qt, envpool itself can be imported and Procgen cannot
        except ImportError as error:
            if error.name in ("envpool", "envpool.procgen"):
                raise VgenError("the Procgen games need envpool; pip install 'vgen_jax[procgen]'") from error
            raise VgenError(
                "the Procgen games need Qt 5, which pip does not bring; on Debian or Ubuntu: "
                f"apt-get install libqt5gui5 libqt5core5a ({str(error).splitlines()[0]})"
            ) from error
        if any(side < 1 or NATIVE % side for side in size):
            raise VgenError(f"frame size {size[0]}x{size[1]}: both must divide {NATIVE}, the size of Procgen's frames")
        self._make = envpool.make
        self.version = envpool.__version__
        self.size = size

    def play(self, game: str, level: int, action_T: np.ndarray) -> Play:
        """Plays (T,) int32 action ids from the level's start; begins it anew when it ends.

        ``envpool`` shows an episode's last frame in the step that ends it, and ignores the action of the next step,
        which shows the new episode's first frame.
        """
        pool = self._make(
            f"{game.capitalize()}Hard-v0", env_type="gymnasium", num_envs=1, num_threads=1, num_levels=1,
            start_level=level, seed=0,
        )  # fmt: skip
        native = np.empty((len(action_T) + 1, NATIVE, NATIVE, 3), np.uint8)
        reset_T = np.zeros(len(action_T), bool)
        observed, _ = pool.reset()
        native[0] = observed[0].transpose(1, 2, 0)
        ended = False
        for t, action in enumerate(np.asarray(action_T, np.int32)[:, None]):
            observed, _, terminated, truncated, _ = pool.step(action)
            native[t + 1] = observed[0].transpose(1, 2, 0)
            reset_T[t] = ended
            ended = bool(terminated[0] or truncated[0])
        pool.close()
        return Play(reduced(native, self.size), reset_T)


def reduced(frames_THWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 frames of that size: the rounded means over rectangles of pixels, which do not alias."""
    frames, height, width, channels = frames_THWC.shape
    if (height, width) == size:
        return frames_THWC
    rows, columns = height // size[0], width // size[1]
    split = frames_THWC.reshape(frames, size[0], rows, size[1], columns, channels)
    total = sum(split[:, :, r, :, c].astype(np.uint16) for r in range(rows) for c in range(columns))
    return ((total + rows * columns // 2) // (rows * columns)).astype(np.uint8)


def pieces(reset_T: np.ndarray) -> list[tuple[int, int]]:
    """The episodes [start, stop) of a play, in frames; those of one frame, which no action leads to, are left out."""
    edges = [0, *(np.flatnonzero(reset_T) + 1).tolist(), len(reset_T) + 1]
    return [(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True) if b - a > 1]


@dataclasses.dataclass(frozen=True)
class ProcgenConfig:
    """What to record; a ``data.shards.Plan``.

    Attributes:
        split: its name; no level of a game is in two splits of a folder.
        games: names in ``GAMES``.
        first_level, levels: of every game, the levels first_level .. first_level+levels-1.
        steps: random actions per visit of a level.
        clips: 0 visits every level once and keeps all that is seen. Else so many visits, round the games and their
            levels, each of which leaves one clip from a random place in it.
        clip_frames: frames of a clip; 0 without clips.
        size: (height, width) of a frame, see ``ProcgenSimulator``.
        visits_per_shard: how much a kill can lose.
        seed: of the actions.
        workers: parallel processes; has no influence on what is recorded.
    """

    split: str
    games: tuple[str, ...]
    first_level: int
    levels: int
    steps: int
    clips: int
    clip_frames: int
    size: tuple[int, int]
    visits_per_shard: int
    seed: int
    workers: int

    def __post_init__(self) -> None:
        for game in self.games:
            if game not in GAMES:
                raise VgenError(f"games: {game!r} is unknown; expected some of {', '.join(GAMES)}")
        if not self.games or len(set(self.games)) < len(self.games):
            raise VgenError(f"games={self.games} must name at least one game, and none twice")
        for key in ("levels", "steps", "visits_per_shard", "workers"):
            if getattr(self, key) < 1:
                raise VgenError(f"{key}={getattr(self, key)} must be at least 1")
        for key in ("first_level", "clips"):
            if getattr(self, key) < 0:
                raise VgenError(f"{key}={getattr(self, key)} must not be negative")
        if (self.clips > 0) != (self.clip_frames > 0) or self.clip_frames == 1 or self.clip_frames > self.steps + 1:
            raise VgenError(
                f"clips={self.clips} of clip_frames={self.clip_frames}: use 0 and 0, or clips of 2 to {self.steps + 1} "
                "frames (steps + 1)"
            )

    @property
    def visits(self) -> int:
        return self.clips or len(self.games) * self.levels

    @property
    def shards(self) -> int:
        return math.ceil(self.visits / self.visits_per_shard)

    def settings(self) -> dict[str, Any]:
        values = {key: value for key, value in dataclasses.asdict(self).items() if key != "workers"}
        return {"simulator": ProcgenSimulator.name, **values}

    def visits_of(self, shard: int) -> range:
        """The numbers of a shard's visits."""
        return range(shard * self.visits_per_shard, min((shard + 1) * self.visits_per_shard, self.visits))

    def shard_frames(self, shard: int) -> int:
        return len(self.visits_of(shard)) * (self.clip_frames or self.steps + 1)

    def place(self, visit: int) -> tuple[str, int]:
        """The game and the level of a visit: round the games first, then round the levels."""
        turn, game = divmod(visit, len(self.games))
        return self.games[game], self.first_level + turn % self.levels

    def open(self) -> "ProcgenRecorder":
        return ProcgenRecorder(self, ProcgenSimulator(self.size))


@dataclasses.dataclass(frozen=True)
class ProcgenRecorder:
    """See ``data.shards.Recorder``."""

    config: ProcgenConfig
    simulator: ProcgenSimulator

    def record(self, shard: int) -> Iterator[Episode]:
        """The episodes of a shard's visits, in order."""
        for visit in self.config.visits_of(shard):
            yield from self.visit(visit)

    def visit(self, visit: int) -> Iterator[Episode]:
        """The episodes of one visit of a level, or its clip.

        Raises:
            VgenError: for a level in which no clip so long lies between resets.
        """
        config = self.config
        game, level = config.place(visit)
        seed = part_seed(config.seed, config.split, visit)
        rng = np.random.default_rng(seed)
        if not config.clips:
            action_T = random_actions(rng, config.steps)
            played = self.simulator.play(game, level, action_T)
            for start, stop in pieces(played.reset_T):
                yield self._episode(game, level, seed, played.frames_THWC[start:stop], action_T[start : stop - 1])
            return
        for _ in range(_CLIP_ATTEMPTS):
            stop = int(rng.integers(config.clip_frames, config.steps + 2))
            start = stop - config.clip_frames
            action_T = random_actions(rng, stop - 1)
            played = self.simulator.play(game, level, action_T)
            if not played.reset_T[start:].any():
                yield self._episode(game, level, seed, played.frames_THWC[start:], action_T[start:])
                return
        raise VgenError(
            f"{scene(game, level)}: {_CLIP_ATTEMPTS} clips of clip_frames={config.clip_frames} in a row met a reset; "
            "use shorter ones"
        )

    def _episode(self, game: str, level: int, seed: int, frames_THWC: np.ndarray, action_T: np.ndarray) -> Episode:
        return Episode(
            source=ProcgenSimulator.name,
            simulator=ProcgenSimulator.name,
            simulator_version=self.simulator.version,
            seed=seed,
            split=self.config.split,
            scene=scene(game, level),
            fps=FPS,
            frames_THWC=frames_THWC,
            actions={"discrete": action_T},
        )

    def describe(self) -> DatasetInfo:
        """What ``dataset.json`` says of the data."""
        return DatasetInfo(
            source=ProcgenSimulator.name,
            simulator=ProcgenSimulator.name,
            simulator_version=self.simulator.version,
            fps=FPS,
            frame_shape=(*self.config.size, 3),
            content="frames",
            chunk=1,
            action_spaces={"discrete": ActionSpace("discrete", ACTIONS)},
            commands=tuple(Command(number, name, (name,), ()) for number, name in enumerate(ACTIONS)),
            splits={},
        )

    def close(self) -> None:
        """Nothing stays open between plays."""


def random_actions(rng: np.random.Generator, steps: int) -> np.ndarray:
    """(steps,) int32 ids, uniform over all 15."""
    return rng.integers(0, len(ACTIONS), steps, dtype=np.int32)


def scene(game: str, level: int) -> str:
    """The name of a level."""
    return f"{game}/{level}"
