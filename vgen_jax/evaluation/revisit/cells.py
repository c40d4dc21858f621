"""A finished part of the revisit benchmark on disk: the numbers of every path, and the videos that are shown, lossless.

``<length>-<protocol>-<memory>.json`` and ``.npz``. The JSON file is written last: where it is, the part is whole. It
keeps what the part was made with, so that a changed setting is not taken for a finished one.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vgen_jax.evaluation.revisit.paths import Protocol
from vgen_jax.types import VgenError


class Cell(NamedTuple):
    """One length, protocol and memory.

    Attributes:
        scores: per path, see ``evaluation.revisit.scores.score``.
        videos: uint8 (T, H, W, 3), of the first paths.
        names: of those paths.
        seconds_per_chunk: median over the generated chunks of a batch, without compilation; NaN for the recording.
        held_mib: of all arrays that are held on the device after a batch's last chunk; 0 for the recording.
        peak_mib: of memory during the generated chunks that are timed: of the device where it tells (since the process
            began), else of the process; NaN for the recording.
    """

    length: int
    protocol: Protocol
    memory: str
    scores: list[dict[str, Any]]
    videos: list[np.ndarray]
    names: list[str]
    seconds_per_chunk: float
    held_mib: float
    peak_mib: float = math.nan


def save_cell(place: Path, cell: Cell, made_with: Mapping[str, Any]) -> None:
    """Writes a part; ``place`` is its path without a suffix."""
    place.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(_with(place, ".npz"), *cell.videos)
    numbers = {key: value for key, value in cell._asdict().items() if key != "videos"}
    partial = _with(place, ".partial")
    partial.write_text(json.dumps({"made_with": made_with, **numbers}) + "\n")
    partial.replace(_with(place, ".json"))


def load_cell(place: Path, made_with: Mapping[str, Any]) -> Cell | None:
    """A part that was finished before; ``None`` where there is none.

    Raises:
        VgenError: it was made with other settings, or is damaged.
    """
    path = _with(place, ".json")
    if not path.is_file():
        return None
    remedy = f"delete {path} to measure it again, or use another --workdir"
    try:
        raw = json.loads(path.read_text())
        kept = raw.pop("made_with")
        with np.load(_with(place, ".npz"), allow_pickle=False) as arrays:
            videos = [arrays[name] for name in arrays.files]
        cell = Cell(**raw, videos=videos)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VgenError(f"{path} cannot be read ({error}): {remedy}") from error
    wanted = json.loads(json.dumps(made_with))
    for key in sorted(kept.keys() | wanted.keys()):
        if kept.get(key) != wanted.get(key):
            raise VgenError(f"{path} was made with {key} = {kept.get(key)}, now it is {wanted.get(key)}: {remedy}")
    return cell


def _with(place: Path, suffix: str) -> Path:
    return place.with_name(place.name + suffix)
