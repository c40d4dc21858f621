"""ViZDoom with the Freedoom maps: a deterministic first-person world that renders over a thousand frames a second.

A teleporter ends an episode, since no action explains the jump. An episode starts at a random thing of the map (item,
monster or player start; all of them stand where one can walk), so that rooms behind doors are seen too.
"""

import struct
from pathlib import Path

import numpy as np

from vgen_jax.data.units import DOOM
from vgen_jax.simulators.base import Observation
from vgen_jax.simulators.commands import walker_commands, walker_space
from vgen_jax.simulators.doom import FPS, DoomEngine, import_vizdoom
from vgen_jax.types import VgenError

WAD = "freedoom2"
SPLITS = {"train": range(1, 25), "validation": range(25, 31)}

_GAMMA = 1.5  # the brightening of frames: without it, and more light (``doom``), half of the maps are nearly black
_BRIGHTER = np.round(255 * (np.arange(256) / 255) ** (1 / _GAMMA)).astype(np.uint8)
# Thing types where a player fits: starts, deathmatch starts, keys and pick-ups, monsters of about the player's size.
_SPOTS = (1, 2, 3, 4, 11, 5, 6, 8, 13, 17, 38, 39, 40, 82, *range(2001, 2050), 9, 65, 3001, 3002, 3004)
_ROOM = 200.0  # an episode starts only where one can see this far (map units) in some direction
_MAX_STARTS = 60


def spots(wad: Path, level: str) -> np.ndarray:
    """(N, 2) int x, y of the things of a level where a player fits."""
    with wad.open("rb") as file:
        _, count, offset = struct.unpack("<4sii", file.read(12))
        file.seek(offset)
        lumps = [struct.unpack("<ii8s", file.read(16)) for _ in range(count)]
        names = [lump[2].rstrip(b"\0").decode("ascii") for lump in lumps]
        if level.upper() not in names:
            raise VgenError(f"{wad}: no level {level!r}")
        start, size, _ = lumps[names.index("THINGS", names.index(level.upper()))]
        file.seek(start)
        things = np.frombuffer(file.read(size), "<i2").reshape(-1, 5)
    return things[np.isin(things[:, 3], _SPOTS), :2].astype(int)


class VizDoomSimulator:
    """See ``Simulator``. Needs the ``[sim]`` extra.

    Args:
        size: (height, width) of a frame, multiples of 8.
        chunk: steps per command.
    """

    name = "vizdoom"
    fps = FPS
    units = DOOM

    def __init__(self, size: tuple[int, int], chunk: int):
        vizdoom = import_vizdoom()
        self.version = vizdoom.__version__
        self.size = size
        self.commands = walker_commands(chunk)
        self.action_space = walker_space(chunk)
        self._wad = Path(vizdoom.__file__).parent / f"{WAD}.wad"
        self._engine = DoomEngine(size, self._wad, _BRIGHTER)
        self._engine.start("map01")

    def scenes(self, split: str) -> tuple[str, ...]:
        if split not in SPLITS:
            raise VgenError(f"split {split!r} has no maps; expected {' or '.join(SPLITS)}")
        return tuple(f"{WAD}/map{level:02d}" for level in SPLITS[split])

    def reset(self, seed: int, scene: str) -> Observation:
        """Reloads the map and moves the player to a place, facing a way, both drawn from the seed.

        Raises:
            VgenError: no place of the map is open enough.
        """
        rng = np.random.default_rng(seed)
        level = scene.removeprefix(f"{WAD}/")
        places = spots(self._wad, level)
        self._engine.load(level, int(rng.integers(2**31)))
        for place in places[rng.permutation(len(places))[:_MAX_STARTS]]:
            self._engine.place(*place)
            if self._open():
                turn = float(rng.uniform(-180, 180))
                return self.step(np.array([turn, 0, 0], np.float32))
        raise VgenError(f"{scene}: none of {len(places)} starts is open; use another seed")

    def _open(self) -> bool:
        """Looks around once: is there room, and is the player really inside of the map?"""
        best = 0.0
        for _ in range(4):
            seen = self.step(np.array([90, 0, 0], np.float32))
            if seen.ended or seen.pose[2] < -30000:
                return False
            best = max(best, self.clearance()[1])
        before = self.step(np.array([0, 1, 0], np.float32)).pose
        after = self.step(np.array([0, -1, 0], np.float32)).pose
        return best > _ROOM and bool(np.abs(before - after)[:2].max() > 0.1)

    def step(self, action: np.ndarray) -> Observation:
        return self._engine.step(action)

    def clearance(self) -> tuple[float, float, float]:
        return self._engine.clearance()

    def extras(self, pose_TP: np.ndarray) -> dict[str, np.ndarray]:
        return {}

    def close(self) -> None:
        self._engine.close()
