"""ViZDoom with the Freedoom maps: a deterministic first-person world that renders over a thousand frames a second.

Monsters, weapon, HUD, messages and screen flashes are off, and the player cannot die of the floor. A teleporter ends an
episode, since no action explains the jump. An episode starts
at a random thing of the map (item, monster or player start; all of them stand where one can walk), so that rooms
behind doors are seen too. Frames are rendered larger, cropped to the target's aspect and reduced with an antialiasing
filter.
"""

import contextlib
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vgen_jax.simulators.base import Observation
from vgen_jax.simulators.commands import walker_commands, walker_space
from vgen_jax.types import VgenError

TICS = 4  # simulator tics per step, of 35 a second
WAD = "freedoom2"
SPLITS = {"train": range(1, 25), "validation": range(25, 31)}

_RUN = 50.0  # what Doom's run key adds forward per tic; sideways it is 40
_SIDE = 40.0
_UNIT = 360 / 65536  # Doom's angles are 16 bits
_VISIBILITY = 30  # how far Doom's light reaches (its default is 8) ...
_GAMMA = 1.5  # ... and the brightening of frames: without both, half of the maps are nearly black
_DEPTH = 6.7  # map units per count of the 8-bit depth buffer, measured on flat floors
_RESOLUTIONS = ((160, 120), (256, 192), (320, 240), (512, 384), (640, 480), (1024, 768))
_MARGIN = 1.5  # rendered pixels per target pixel, at least
_BRIGHTER = np.round(255 * (np.arange(256) / 255) ** (1 / _GAMMA)).astype(np.uint8)
_TELEPORT = 150.0  # map units: no step walks so far
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


def _render_size(height: int, width: int) -> tuple[int, int]:
    for w, h in _RESOLUTIONS:
        crop = min(h / height, w / width)
        if crop >= _MARGIN:
            return w, h
    raise VgenError(f"frame size {height}x{width} is too large; at most {768 / _MARGIN:.0f}x{1024 / _MARGIN:.0f}")


class VizDoomSimulator:
    """See ``Simulator``. Needs the ``[sim]`` extra.

    Args:
        size: (height, width) of a frame, multiples of 8.
        chunk: steps per command.
    """

    name = "vizdoom"
    fps = 35 / TICS

    def __init__(self, size: tuple[int, int], chunk: int):
        try:
            import vizdoom
        except ImportError as error:
            raise VgenError("the simulator needs ViZDoom; pip install 'vgen_jax[sim]'") from error
        if size[0] % 8 or size[1] % 8 or min(size) < 8:
            raise VgenError(f"frame size {size[0]}x{size[1]}: both must be multiples of 8")
        self._vizdoom = vizdoom
        self.version = vizdoom.__version__
        self.size = size
        self.commands = walker_commands(chunk)
        self.action_space = walker_space(chunk)
        self._wad = Path(vizdoom.__file__).parent / f"{WAD}.wad"
        width, height = _render_size(*size)
        scale = min(height / size[0], width / size[1])
        crop_h, crop_w = size[0] * scale, size[1] * scale
        left, top = (width - crop_w) / 2, (height - crop_h) / 2
        self._box = (left, top, left + crop_w, top + crop_h)
        self._scratch = tempfile.TemporaryDirectory(prefix="vgen_vizdoom_")
        self._game = self._start(width, height)
        self._scene = ""
        self._residual = 0.0
        self._last: Observation | None = None
        self._depth_HW = np.zeros((height, width), np.uint8)

    def _start(self, width: int, height: int) -> Any:
        vzd = self._vizdoom
        game = vzd.DoomGame()
        game.set_doom_game_path(str(self._wad))
        game.set_doom_map("map01")
        game.set_screen_resolution(getattr(vzd.ScreenResolution, f"RES_{width}X{height}"))
        game.set_screen_format(vzd.ScreenFormat.RGB24)
        game.set_depth_buffer_enabled(True)
        game.set_mode(vzd.Mode.PLAYER)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        for switch in ("hud", "weapon", "crosshair", "messages", "screen_flashes", "decals", "particles"):
            getattr(game, f"set_render_{switch}")(False)
        button, variable = vzd.Button, vzd.GameVariable
        game.set_available_buttons(
            [button.TURN_LEFT_RIGHT_DELTA, button.MOVE_FORWARD_BACKWARD_DELTA, button.MOVE_LEFT_RIGHT_DELTA]
        )
        game.set_available_game_variables(
            [variable.POSITION_X, variable.POSITION_Y, variable.POSITION_Z, variable.ANGLE]
        )
        # The centred "a secret is revealed" is no message to set_render_messages.
        game.add_game_args(f"+sv_nomonsters 1 +cl_showsecretmessage 0 +con_midtime 0 +r_visibility {_VISIBILITY}")
        game.set_episode_timeout(0)
        # The engine leaves a configuration file and an empty folder in the directory where it starts.
        game.set_doom_config_path(str(Path(self._scratch.name) / "vizdoom.ini"))
        try:
            with contextlib.chdir(self._scratch.name):
                game.init()
        except vzd.ViZDoomErrorException as error:
            raise VgenError(f"ViZDoom does not start ({error})") from error
        return game

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
        self._game.set_seed(int(rng.integers(2**31)))
        self._game.set_doom_map(level)  # starts an episode by itself; new_episode would load the map once more
        self._game.send_game_command("god")
        self._residual = 0.0
        for place in places[rng.permutation(len(places))[:_MAX_STARTS]]:
            self._game.send_game_command(f"warp {place[0]} {place[1]}")
            self._game.make_action([0, 0, 0], TICS)
            self._last = None
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
        """Applies a (3,) action: turn in degrees (+ left), forward and strafe (+ right) in fractions of a run.

        Each tic turns by a whole number of Doom's angle units; what is lost to rounding is added to the next step, so
        the heading stays within 0.02 degrees of the sum of the turns.
        """
        wanted = float(action[0]) / _UNIT + self._residual
        per_tic = round(wanted / TICS)
        self._residual = wanted - per_tic * TICS
        # A positive delta turns right; the engine takes the floor, hence the quarter.
        turn = (-per_tic + 0.25) * _UNIT if per_tic else 0.0
        self._game.make_action([turn, float(action[1]) * _RUN, float(action[2]) * _SIDE], TICS)
        state = None if self._game.is_episode_finished() else self._game.get_state()
        if state is None:
            if self._last is None:
                blank = np.zeros((*self.size, 3), np.uint8)
                return Observation(blank, np.zeros(4, np.float32), True)
            return self._last._replace(ended=True)
        image = Image.fromarray(state.screen_buffer)
        small = image.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR, box=self._box)
        pose = np.asarray(state.game_variables, np.float32)
        jumped = self._last is not None and float(np.hypot(*(pose - self._last.pose)[:2])) > _TELEPORT
        self._depth_HW = state.depth_buffer
        self._last = Observation(_BRIGHTER.take(np.asarray(small)), pose, jumped)
        return self._last

    def clearance(self) -> tuple[float, float, float]:
        """Medians, at eye level, of a left, a middle and a right part of the view."""
        height, width = self._depth_HW.shape
        band = self._depth_HW[height * 48 // 100 : height * 56 // 100 : 2]
        parts = (width // 16, width // 4), (width * 7 // 16, width * 9 // 16), (width * 3 // 4, width * 15 // 16)
        left, ahead, right = (float(np.median(band[:, start:stop])) * _DEPTH for start, stop in parts)
        return left, ahead, right

    def close(self) -> None:
        self._game.close()
        self._scratch.cleanup()
