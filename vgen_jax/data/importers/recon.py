"""Imports RECON (a Jackal outdoors): one HDF5 file per trajectory.

``images/rgb_left`` holds a JPEG per frame, ``jackal/position`` (T, 2 or more) and ``jackal/yaw`` (T,) the poses.
Actions are the velocities between the poses, as for ViNT's data. Needs ``pip install 'vgen_jax[robots]'`` (h5py).
"""

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vgen_jax.data.importers.trajectories import VELOCITIES, Drive, check_counts, posed_drive, read_jpeg
from vgen_jax.types import VgenError

FRAMES, POSITION, YAW = "images/rgb_left", "jackal/position", "jackal/yaw"


@dataclasses.dataclass(frozen=True)
class ReconConfig:
    """What to import; a ``data.importers.trajectories.Format``.

    Attributes:
        folder: holds the files.
        first, files: which of them, in the order of their names; 0 files for all from the first on.
        source: a name for the data set.
        split: what these are called here.
        recorded_fps: frames per second of the files, which do not say it.
        fps: wanted frames per second, a whole part of those; 0 for all.
        scale: velocities (forward, turn) that make 1 in model units.
        size: (height, width) of the stored frames; pictures are cropped to that aspect around their centre.
        chunk: the grid of windows.
        per_shard: files per shard: how much a kill can lose.
        workers: parallel processes; has no influence on what is written.
    """

    folder: str
    first: int
    files: int
    source: str
    split: str
    recorded_fps: float
    fps: float
    scale: tuple[float, ...]
    size: tuple[int, int]
    chunk: int
    per_shard: int
    workers: int

    @property
    def names(self) -> tuple[str, ...]:
        return VELOCITIES

    def rate(self) -> float:
        return self.recorded_fps

    def items(self) -> tuple[str, ...]:
        """The files.

        Raises:
            VgenError: if there are fewer than asked for.
        """
        folder = Path(self.folder).expanduser()
        there = sorted(path.name for path in folder.glob("*.hdf5"))
        stop = self.first + (self.files or max(0, len(there) - self.first))
        if not there or stop > len(there):
            raise VgenError(f"{folder} has {len(there)} files .hdf5, not first + files = {stop}: name others")
        return tuple(there[self.first : stop])

    def read(self, item: str) -> Iterator[Drive]:
        """One file's trajectory.

        Raises:
            VgenError: damaged, or without frames and poses, as many of each.
        """
        path = Path(self.folder).expanduser() / item
        pictures, position, yaw = _arrays(path)
        check_counts(path, len(pictures), position, yaw)
        if not len(pictures):
            return
        frames = np.stack(
            [read_jpeg(io.BytesIO(data), self.size, f"{path}: frame {n}") for n, data in enumerate(pictures)]
        )
        yield posed_drive(Path(item).stem, frames, position, yaw, self.recorded_fps)


def _arrays(path: Path) -> tuple[list[bytes], np.ndarray, np.ndarray]:
    """JPEGs, positions and headings of a file."""
    try:
        import h5py
    except ImportError as error:
        raise VgenError("RECON's files need h5py; pip install 'vgen_jax[robots]'") from error
    try:
        with h5py.File(path, "r") as file:
            lacks = [name for name in (FRAMES, POSITION, YAW) if name not in file]
            if lacks:
                raise VgenError(f"{path} has no {lacks[0]}: it is no file of RECON's")
            pictures = [_bytes(file[FRAMES][n]) for n in range(len(file[FRAMES]))]
            position, yaw = (np.asarray(file[name], np.float64) for name in (POSITION, YAW))
    except OSError as error:
        raise VgenError(f"{path} is damaged ({error}): copy it again") from error
    return pictures, position, yaw.reshape(-1)


def _bytes(cell: Any) -> bytes:
    """A stored picture, be it a string, opaque or a row of numbers."""
    return cell if isinstance(cell, bytes) else np.asarray(cell).tobytes()
