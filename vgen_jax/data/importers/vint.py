"""Imports trajectories as ViNT and GNM have them: a folder of numbered JPEGs and a pickle of positions and headings.

``name/0.jpg``, ``name/1.jpg``, … and ``name/traj_data.pkl``, a dictionary of ``position`` (T, 2 or more) and ``yaw``
(T,), radians. There are no commands: actions are the velocities between the poses. The pickle is read by an unpickler
that knows NumPy's arrays and plain containers and nothing else, so that no code in it is run.
"""

import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vgen_jax.data.importers.trajectories import VELOCITIES, Drive, check_counts, posed_drive, read_jpeg
from vgen_jax.types import VgenError

POSES = "traj_data.pkl"
_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")
_NAMES = ("ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer")


@dataclasses.dataclass(frozen=True)
class VintConfig:
    """What to import; a ``data.importers.trajectories.Format``.

    Attributes:
        folder: holds a folder per trajectory.
        trajectories: their names; empty for all that there are.
        source: a name for the data set.
        split: what these are called here.
        recorded_fps: frames per second of the recording, which it does not say (GNM's data: 4).
        fps: wanted frames per second, a whole part of those; 0 for all.
        scale: velocities (forward, turn) that make 1 in model units.
        size: (height, width) of the stored frames; pictures are cropped to that aspect around their centre.
        chunk: the grid of windows.
        per_shard: trajectories per shard: how much a kill can lose.
        workers: parallel processes; has no influence on what is written.
    """

    folder: str
    trajectories: tuple[str, ...]
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
        """The trajectories' folders.

        Raises:
            VgenError: if one is not there.
        """
        folder = Path(self.folder).expanduser()
        if not folder.is_dir():
            raise VgenError(f"{folder} is no folder: give one that holds a folder per trajectory")
        there = tuple(sorted(path.parent.name for path in folder.glob(f"*/{POSES}")))
        missing = sorted(set(self.trajectories) - set(there))
        if missing:
            raise VgenError(f"{folder / missing[0] / POSES} is missing: name other trajectories")
        return self.trajectories or there

    def read(self, item: str) -> Iterator[Drive]:
        """One trajectory.

        Raises:
            VgenError: a picture is missing or damaged, or there are not as many poses.
        """
        folder = Path(self.folder).expanduser() / item
        poses = read_poses(folder / POSES)
        numbers = sorted(int(path.stem) for path in folder.glob("*.jpg") if path.stem.isdigit())
        if numbers != list(range(len(numbers))):
            lost = next(n for n, number in enumerate(numbers) if n != number)
            raise VgenError(f"{folder / f'{lost}.jpg'} is missing: frames have to be there from 0 on without a gap")
        position, yaw = poses["position"], poses["yaw"].reshape(-1)
        check_counts(folder, len(numbers), position, yaw)
        if not numbers:
            return
        paths = [folder / f"{number}.jpg" for number in numbers]
        frames = np.stack([read_jpeg(path, self.size, str(path)) for path in paths])
        yield posed_drive(item, frames, position, yaw, self.recorded_fps)


class _ArraysOnly(pickle.Unpickler):
    """Knows what NumPy's arrays are pickled as, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in _MODULES and name in _NAMES:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if (module, name) == ("_codecs", "encode"):  # bytes, as protocol 2 has them
            return _latin
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _latin(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding}")
    return text.encode("latin1")


def read_poses(path: Path) -> dict[str, np.ndarray]:
    """``position`` (T, 2 or more) and ``yaw`` of a trajectory.

    Raises:
        VgenError: missing, damaged, or a pickle that holds more than arrays; nothing in it is run.
    """
    if not path.is_file():
        raise VgenError(f"{path} is missing: name a folder of trajectories")
    try:
        with path.open("rb") as file:
            found = _ArraysOnly(file).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, ImportError) as error:
        raise VgenError(f"{path} is damaged, or holds more than arrays, which is not loaded ({error})") from error
    if not isinstance(found, dict) or not {"position", "yaw"} <= found.keys():
        raise VgenError(f"{path} has no position and yaw: it is no trajectory's")
    position, yaw = (np.asarray(found[name], np.float64) for name in ("position", "yaw"))
    if position.ndim != 2 or position.shape[1] < 2:
        raise VgenError(f"{path}: position is {position.shape}, expected (T, 2)")
    return {"position": position, "yaw": yaw}
