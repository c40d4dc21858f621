"""Imports RoAM (Sarkar et al.; a TurtleBot3 that walks among people) and whatever is laid out like it; writes it, too.

A TFRecord file holds sequences; one ``tf.train.Example`` each with three serialised tensors: ``image_left``, uint8
(T, H, W, 4), ``action``, float32, in all T times (forward velocity / 0.1 m/s, turn rate / 1.8 rad/s), and
``folder_name``. A command holds for three frames. RoAM has an action for every frame; the last one leads nowhere and is
left out.

Frames become smaller as the published code makes them: bilinear between the centres of pixels without antialiasing, cut
off (not rounded) at 255.5 times the value; the fourth channel is dropped. From 256 to 64 pixels that is the mean of two
pixels of four, on each axis.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vgen_jax.data.importers.trajectories import VELOCITIES, Drive
from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.tfrecord import parse_example, read_records, serialise, serialise_example, tensor, write_record
from vgen_jax.types import VgenError

SCALE = (0.1, 1.8)  # m/s and rad/s that are 1 in the files
IMAGE, ACTION, NAME = "image_left", "action", "folder_name"


@dataclasses.dataclass(frozen=True)
class RoamConfig:
    """What to import; a ``data.importers.trajectories.Format``.

    Attributes:
        folder: where the files are.
        pattern: which of them, in any depth: ``train/*.tfrecord``, for example.
        source: a name for the data set.
        split: what these files are called here.
        recorded_fps: frames per second of the files, which do not say it.
        fps: wanted frames per second, a whole part of those; 0 for all.
        size: (height, width) of the stored frames.
        chunk: the grid of windows.
        per_shard: files per shard: how much a kill can lose.
        workers: parallel processes; has no influence on what is written.
    """

    folder: str
    pattern: str
    source: str
    split: str
    recorded_fps: float
    fps: float
    size: tuple[int, int]
    chunk: int
    per_shard: int
    workers: int

    @property
    def names(self) -> tuple[str, ...]:
        return VELOCITIES

    @property
    def scale(self) -> tuple[float, ...]:
        return SCALE

    def rate(self) -> float:
        return self.recorded_fps

    def items(self) -> tuple[str, ...]:
        """The files, by their paths below the folder."""
        folder = Path(self.folder).expanduser()
        if not folder.is_dir():
            raise VgenError(f"{folder} is no folder: give one that holds RoAM's TFRecords")
        found = sorted(path for path in folder.rglob("*") if path.is_file() and path.match(self.pattern))
        if not found:
            raise VgenError(f"{folder} holds no file like {self.pattern}: give another pattern")
        return tuple(path.relative_to(folder).as_posix() for path in found)

    def read(self, item: str) -> Iterator[Drive]:
        """The sequences of a file.

        Raises:
            VgenError: a damaged file, or one that holds something else.
        """
        path = Path(self.folder).expanduser() / item
        for number, record in enumerate(read_records(path)):
            try:
                yield self._trajectory(item, number, parse_example(record))
            except VgenError as error:
                raise VgenError(f"{path}: record {number}: {error}") from error

    def _trajectory(self, item: str, number: int, features: Mapping[str, list[Any]]) -> Drive:
        for name in (IMAGE, ACTION):
            if name not in features or len(features[name]) != 1:
                raise VgenError(f"no feature {name}; it has {', '.join(features) or 'none'}")
        frames, action = (tensor(features[name][0]) for name in (IMAGE, ACTION))
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (3, 4):
            raise VgenError(f"{IMAGE} is {frames.dtype} {frames.shape}: expected uint8 (T, H, W, 4)")
        if action.size != 2 * len(frames):
            raise VgenError(f"{ACTION} has {action.size} numbers for {len(frames)} frames: expected two for each")
        name = tensor(features[NAME][0]).reshape(-1)[0].decode() if NAME in features else f"{item}/{number}"
        small = np.stack([reduced_bilinear(frame[..., :3], self.size) for frame in frames])
        raw = action.reshape(-1, 2) * np.asarray(SCALE, np.float32)
        return Drive(name, small, raw, self.recorded_fps)


def reduced_bilinear(frame_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A uint8 picture of that size; see the module's docstring."""
    values = frame_HWC.astype(np.float32) / np.float32(255.0)
    for axis, target in enumerate(size):
        length = values.shape[axis]
        place = np.clip((np.arange(target) + 0.5) * length / target - 0.5, 0, length - 1).astype(np.float32)
        low = np.floor(place).astype(int)
        weight = (place - low).reshape(-1, *(1,) * (2 - axis))
        below, above = (np.take(values, np.minimum(low + n, length - 1), axis=axis) for n in (0, 1))
        values = below * (1 - weight) + above * weight
    return np.clip(values * np.float32(255.5), 0, 255).astype(np.uint8)


def write_sequence(path: Path, frames_THWC: np.ndarray, raw_TA: np.ndarray, name: str) -> None:
    """One sequence as a TFRecord file of RoAM's layout; it appears under its name only when it is whole.

    Args:
        frames_THWC: uint8 RGB.
        raw_TA: the command at each frame, m/s and rad/s; as many as frames.
    """
    opaque = np.full((*frames_THWC.shape[:3], 1), 255, np.uint8)
    action = (np.asarray(raw_TA, np.float32) / np.asarray(SCALE, np.float32))[:, None]
    features = {
        IMAGE: serialise(np.concatenate([frames_THWC, opaque], axis=-1)),
        ACTION: serialise(action),
        NAME: serialise(name),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        write_record(file, serialise_example(features))
    part.replace(path)


def export_split(source: EpisodeSource, folder: Path) -> Sequence[Path]:
    """The episodes of a split of records as RoAM's TFRecords, one a file; those that are there stay.

    The action at an episode's last frame, which records do not have, is the one before it, held.

    Raises:
        VgenError: data without two velocities.
    """
    info = source.info
    space = info.action_spaces["continuous"] if "continuous" in info.action_spaces else None
    if info.content != "frames" or space is None or space.names != VELOCITIES:
        raise VgenError(f"{source.folder} holds no frames with the velocities {', '.join(VELOCITIES)}: give other data")
    paths = [folder / f"{source.split}-{number:05d}.tfrecord" for number in range(len(source))]
    for number, path in enumerate(paths):
        if not path.is_file():
            episode = source.episode(number)
            raw = episode.actions["continuous"]
            write_sequence(path, episode.frames_THWC, np.concatenate([raw, raw[-1:]]), episode.scene)
    return paths
