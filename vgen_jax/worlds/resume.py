"""Where an unfinished rollout stands, on disk: the same command started again goes on there, with the same result.

``rollout.safetensors`` holds the number of chunks, the past frames and the memory's state, in one file that is replaced
as a whole; the frames that belong to it were flushed before (``files.videos``). It is written every few chunks and, on
SIGTERM, after the chunk at hand. What was generated after the last save is generated again, to the same bits.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vgen_jax.memory.files import load_memory, save_memory
from vgen_jax.types import Key, Memory, Past
from vgen_jax.worlds.rollout import Generated, Standing, Start, fresh_memory, opening

STATE_FILE = "rollout.safetensors"


class Saved(NamedTuple):
    """An unfinished rollout, and the seconds that it has taken so far."""

    standing: Standing
    seconds: float


def save_standing(path: Path, saved: Saved, settings: Mapping[str, Any]) -> None:
    """Writes the file; an existing one is replaced. ``settings`` are those of the memory and its model."""
    save_memory(path, _as_tree(saved), settings)


def load_standing(path: Path, past: Past, m: Any, settings: Mapping[str, Any]) -> Saved:
    """Where the rollout stands.

    Args:
        past, m: those of its beginning.

    Raises:
        VgenError: if the file is missing or damaged, or was left by a rollout with another model or memory.
    """
    tree = load_memory(path, _as_tree(Saved(Standing(0, past, m), 0.0)), settings)
    latents = jnp.asarray(tree["past"].frames_BTHWC)  # on the device, as those of a rollout that was not interrupted
    standing = Standing(int(tree["chunks"]), tree["past"].replace(frames_BTHWC=latents), tree["memory"])
    return Saved(standing, float(tree["seconds"]))


def _as_tree(saved: Saved) -> dict[str, Any]:
    chunks, past, m = jax.device_get(saved.standing)
    return {"chunks": np.asarray(chunks), "past": past, "memory": m, "seconds": np.asarray(saved.seconds)}


class Unfinished:
    """The rollout's place on disk.

    Attributes:
        settings: of its memory and model, kept with it.
        every: chunks between two saves.
        seconds: that it took before this process.
    """

    def __init__(self, path: Path, settings: dict[str, Any], every: int):
        self._path, self.settings, self.every, self.seconds = path, settings, every, 0.0

    def load(self, memory: Memory, start: Start, rng: Key) -> Standing | None:
        """Where the rollout with this memory, start and key stands; ``None`` at its beginning."""
        if not self._path.is_file():
            return None
        saved = load_standing(self._path, opening(start), fresh_memory(memory, start, rng), self.settings)
        self.seconds = saved.seconds
        print(f"goes on after {saved.standing.chunks} chunks", flush=True)
        return saved.standing

    def save(self, chunk: Generated, seconds: float) -> None:
        """Writes the place after ``chunk``, whose frames must be safe by then."""
        standing = Standing(chunk.number + 1, chunk.past, chunk.memory)
        save_standing(self._path, Saved(standing, seconds), self.settings)

    def forget(self) -> None:
        """The rollout is finished."""
        self._path.unlink(missing_ok=True)
