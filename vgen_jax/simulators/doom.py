"""ViZDoom's engine as a camera that turns by exact angles: what the simulators that are built on it have in common.

Monsters, weapon, HUD, messages and screen flashes are off, and the player cannot die of the floor. Frames are rendered
larger, cropped to the target's aspect and reduced with an antialiasing filter.
"""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vgen_jax.simulators.base import Observation
from vgen_jax.types import VgenError

TICS = 4  # simulator tics per step, of 35 a second
FPS = 35 / TICS

_RUN = 50.0  # what Doom's run key adds forward per tic; sideways it is 40
_SIDE = 40.0
_UNIT = 360 / 65536  # Doom's angles are 16 bits
_VISIBILITY = 30  # how far Doom's light reaches (its default is 8)
_DEPTH = 6.7  # map units per count of the 8-bit depth buffer, measured on flat floors
_RESOLUTIONS = ((160, 120), (256, 192), (320, 240), (512, 384), (640, 480), (1024, 768))
_MARGIN = 1.5  # rendered pixels per target pixel, at least
_TELEPORT = 150.0  # map units: no step walks so far


def _render_size(height: int, width: int) -> tuple[int, int]:
    for w, h in _RESOLUTIONS:
        crop = min(h / height, w / width)
        if crop >= _MARGIN:
            return w, h
    raise VgenError(f"frame size {height}x{width} is too large; at most {768 / _MARGIN:.0f}x{1024 / _MARGIN:.0f}")


def import_vizdoom() -> Any:
    """The package, or the error that says how to get it."""
    try:
        import vizdoom
    except ImportError as error:
        raise VgenError("the simulator needs ViZDoom; pip install 'vgen_jax[sim]'") from error
    return vizdoom


class DoomEngine:
    """A game that one walks through.

    Args:
        size: (height, width) of a frame, multiples of 8.
        game_wad: the game's own data.
        tone: what each value of a rendered pixel becomes, uint8, (256,).
        arguments: of the engine's command line.
    """

    def __init__(self, size: tuple[int, int], game_wad: Path, tone: np.ndarray, arguments: str = ""):
        if size[0] % 8 or size[1] % 8 or min(size) < 8:
            raise VgenError(f"frame size {size[0]}x{size[1]}: both must be multiples of 8")
        self._vizdoom = import_vizdoom()
        self._size, self._tone, self._game_wad, self._arguments = size, tone, game_wad, arguments
        self._width, self._height = _render_size(*size)
        scale = min(self._height / size[0], self._width / size[1])
        crop_h, crop_w = size[0] * scale, size[1] * scale
        left, top = (self._width - crop_w) / 2, (self._height - crop_h) / 2
        self._box = (left, top, left + crop_w, top + crop_h)
        self._scratch = tempfile.TemporaryDirectory(prefix="vgen_vizdoom_")
        self._game: Any = None
        self._residual = 0.0
        self._last: Observation | None = None
        self._depth_HW = np.zeros((self._height, self._width), np.uint8)

    @property
    def folder(self) -> Path:
        """A folder of its own, for files that the engine is to load."""
        return Path(self._scratch.name)

    def start(self, level: str, scenario_wad: Path | None = None) -> None:
        """Starts the engine, anew if it runs, on a level of the scenario's WAD or of the game's.

        Raises:
            VgenError: it does not start.
        """
        if self._game is not None:
            self._game.close()
        vzd = self._vizdoom
        self._game = game = vzd.DoomGame()
        game.set_doom_game_path(str(self._game_wad))
        if scenario_wad is not None:
            game.set_doom_scenario_path(str(scenario_wad))
        game.set_doom_map(level)
        game.set_screen_resolution(getattr(vzd.ScreenResolution, f"RES_{self._width}X{self._height}"))
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
        game.add_game_args(
            f"+sv_nomonsters 1 +cl_showsecretmessage 0 +con_midtime 0 +r_visibility {_VISIBILITY} {self._arguments}"
        )
        game.set_episode_timeout(0)
        # The engine leaves a configuration file and an empty folder in the directory where it starts.
        game.set_doom_config_path(str(self.folder / "vizdoom.ini"))
        try:
            with contextlib.chdir(self.folder):
                game.init()
        except vzd.ViZDoomErrorException as error:
            raise VgenError(f"ViZDoom does not start ({error})") from error

    def load(self, level: str, seed: int) -> None:
        """Loads a level; the seed is that of the game's own random numbers."""
        self._game.set_seed(seed)
        self._game.set_doom_map(level)  # starts an episode by itself; new_episode would load the map once more
        self._game.send_game_command("god")
        self._residual, self._last = 0.0, None

    def place(self, x: int, y: int) -> None:
        """Puts the player at map units x, y. The next step looks."""
        self._game.send_game_command(f"warp {x} {y}")
        self._game.make_action([0, 0, 0], TICS)
        self._last = None

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
                blank = np.zeros((*self._size, 3), np.uint8)
                return Observation(blank, np.zeros(4, np.float32), True)
            return self._last._replace(ended=True)
        image = Image.fromarray(state.screen_buffer)
        small = image.resize((self._size[1], self._size[0]), Image.Resampling.BILINEAR, box=self._box)
        pose = np.asarray(state.game_variables, np.float32)
        jumped = self._last is not None and float(np.hypot(*(pose - self._last.pose)[:2])) > _TELEPORT
        self._depth_HW = state.depth_buffer
        self._last = Observation(self._tone.take(np.asarray(small)), pose, jumped)
        return self._last

    def clearance(self) -> tuple[float, float, float]:
        """Map units to what stands left, ahead and right: medians, at eye level, of three parts of the view."""
        height, width = self._depth_HW.shape
        band = self._depth_HW[height * 48 // 100 : height * 56 // 100 : 2]
        parts = (width // 16, width // 4), (width * 7 // 16, width * 9 // 16), (width * 3 // 4, width * 15 // 16)
        left, ahead, right = (float(np.median(band[:, start:stop])) * _DEPTH for start, stop in parts)
        return left, ahead, right

    def close(self) -> None:
        """Ends the engine and removes its files."""
        if self._game is not None:
            self._game.close()
        self._scratch.cleanup()
