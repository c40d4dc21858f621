"""Where an unfinished rollout stands, on disk: the same command started again goes on there, with the same result.

``rollout.safetensors`` holds the number of steps and the World's state, in one file that is replaced as a whole; the
frames that belong to it were flushed before (``files.videos``). It is written every few steps and, on SIGTERM, after
the step at hand. What was generated after the last save is generated again, to the same bits.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vgen_jax.memory.files import load_memory, save_memory

STATE_FILE = "rollout.safetensors"


class Unfinished:
    """The rollout's place on disk.

    Attributes:
        settings: of the world, kept with it.
        every: steps between two saves.
        seconds: that it took before this process.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], every: int):
        self._path, self.settings, self.every, self.seconds = path, settings, every, 0.0

    def load(self, state: Any) -> tuple[int, Any]:
        """Steps done, and the World's state after them; ``state`` is that of the rollout's beginning.

        Raises:
            VgenError: if the file is damaged, or was left by a rollout of another world.
        """
        if not self._path.is_file():
            return 0, state
        saved = load_memory(self._path, _tree(0, state, 0.0), self.settings)
        self.seconds = float(saved["seconds"])
        print(f"goes on after {int(saved['steps'])} chunks", flush=True)
        return int(saved["steps"]), saved["state"]

    def save(self, steps: int, state: Any, seconds: float) -> None:
        """Writes the place after ``steps`` steps, whose frames must be safe by then."""
        save_memory(self._path, _tree(steps, state, seconds), self.settings)

    def forget(self) -> None:
        """The rollout is finished."""
        self._path.unlink(missing_ok=True)


def _tree(steps: int, state: Any, seconds: float) -> dict[str, Any]:
    return {"seconds": np.asarray(seconds), "state": state, "steps": np.asarray(steps)}
