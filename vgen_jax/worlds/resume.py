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
from vgen_jax.types import Past
from vgen_jax.worlds.rollout import Standing

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
