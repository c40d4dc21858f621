"""What importers of robots' data share: a list of trajectories, and how one becomes an episode.

A format says how many trajectories there are, reads one as frames with a velocity command for every frame, and the rest
is done here: other frame rates, one action fewer than frames, pictures of one size, shards in parallel processes.

Robots are told velocities, which hold until the next one: the command that stands beside frame t is what the robot does
from frame t on, so it is ``actions[t]``, leads to frame t + 1, and that beside the last frame leads nowhere and is left
out. Where only every k-th frame is kept, an action is the mean of the k that it stands for.
"""

import dataclasses
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from absl import logging
from PIL import Image, UnidentifiedImageError

from vgen_jax.data.importers.videos import fitted
from vgen_jax.data.schema import ActionSpace, DatasetInfo, Episode, TextSpan
from vgen_jax.types import VgenError

VELOCITIES = ("forward_m_per_s", "turn_rad_per_s")


class Drive(NamedTuple):
    """One uninterrupted recording.

    Attributes:
        scene: its name.
        frames_THWC: uint8, of the wanted size.
        action_TA: the command at each frame, raw units, float32.
        fps: of its frames.
        text: what the whole of it is; empty for none.
        pose_TP: x, y, z and heading in degrees, counter-clockwise, of each frame; ``None`` where it is not known.
    """

    scene: str
    frames_THWC: np.ndarray
    action_TA: np.ndarray
    fps: float
    text: str = ""
    pose_TP: np.ndarray | None = None


class Format(Protocol):
    """The config of an importer: where its data are, what they are called here, and how they are read."""

    @property
    def source(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def chunk(self) -> int: ...

    @property
    def fps(self) -> float:
        """Wanted frames per second; 0 for those of the data."""
        ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def scale(self) -> tuple[float, ...]: ...

    @property
    def per_shard(self) -> int: ...

    @property
    def workers(self) -> int: ...

    def items(self) -> tuple[str, ...]:
        """Names of the trajectories or of files that hold some, in order."""
        ...

    def read(self, item: str) -> Iterator[Drive]:
        """The trajectories of an item."""
        ...

    def rate(self) -> float:
        """Frames per second of the data."""
        ...


def check_format(format: Format) -> None:
    """Raises VgenError for settings that no importer can have."""
    if format.chunk < 1 or format.per_shard < 1 or format.workers < 1:
        raise VgenError(f"chunk={format.chunk}, per_shard={format.per_shard}, workers={format.workers}: use 1 or more")
    if min(format.size) < 8 or format.size[0] % 8 or format.size[1] % 8:
        raise VgenError(f"size={format.size}: height and width must be multiples of 8")
    if format.fps < 0:
        raise VgenError(f"fps={format.fps}: use frames per second, or 0 for those of the data")
    ActionSpace("continuous", format.names, format.scale)


def kept_every(fps: float, wanted: float, where: str) -> int:
    """Of how many frames one is kept.

    Raises:
        VgenError: if that is no whole number.
    """
    every = fps / wanted if wanted else 1.0
    if round(every) < 1 or abs(every - round(every)) > 0.01 * every:
        raise VgenError(
            f"{where} has {fps:g} frames/s, of which {wanted:g} are no whole part: use {fps:g}, {fps / 2:g}, …, or 0"
        )
    return round(every)


def episode_of(found: Drive, format: Format, number: int) -> Episode | None:
    """An episode of what was read; ``None`` where fewer than two frames are left, to which no action leads.

    Raises:
        VgenError: other actions than the format names, or numbers that are not finite.
    """
    frames, actions = found.frames_THWC, np.asarray(found.action_TA, np.float32)
    if actions.shape != (len(frames), len(format.names)):
        raise VgenError(
            f"{found.scene}: actions {actions.shape} for {len(frames)} frames and {len(format.names)} names: the data "
            "are not as they should be"
        )
    every = kept_every(found.fps, format.fps, found.scene)
    steps = (len(frames) - 1) // every
    if steps < 1:
        logging.warning("%s: %d frames are too few for an episode, left out", found.scene, len(frames))
        return None
    if not np.isfinite(actions).all():
        raise VgenError(
            f"{found.scene}: the action of frame {int(np.argmin(np.isfinite(actions).all(1)))} is not finite"
        )
    means = actions[: steps * every].reshape(steps, every, -1).mean(1)
    extras = {} if found.pose_TP is None else {"pose": np.asarray(found.pose_TP, np.float32)[::every][: steps + 1]}
    return Episode(
        source=format.source,
        simulator="none",
        simulator_version="none",
        seed=number,
        split=format.split,
        scene=f"{format.source}/{found.scene}",
        fps=found.fps / every,
        frames_THWC=frames[::every][: steps + 1],
        actions={"continuous": means.astype(np.float32)},
        texts=(TextSpan(0, steps, found.text),) if found.text else (),
        extras=extras,
    )


@dataclasses.dataclass(frozen=True)
class TrajectoryPlan:
    """See ``data.shards.Plan``: the trajectories of a format."""

    format: Any  # a Format; a Protocol is no type that a process may be sent
    listed: tuple[str, ...]

    @property
    def split(self) -> str:
        return self.format.split

    @property
    def workers(self) -> int:
        return self.format.workers

    @property
    def shards(self) -> int:
        return math.ceil(len(self.listed) / self.format.per_shard)

    def settings(self) -> dict[str, Any]:
        values = dataclasses.asdict(self.format)
        return {key: value for key, value in values.items() if key != "workers"} | {"items": list(self.listed)}

    def of_shard(self, shard: int) -> tuple[str, ...]:
        """The items of a shard."""
        return self.listed[shard * self.format.per_shard : (shard + 1) * self.format.per_shard]

    def shard_frames(self, shard: int) -> int:
        return 100 * len(self.of_shard(shard))  # for the progress bar; known only when they are read

    def open(self) -> "TrajectoryRecorder":
        return TrajectoryRecorder(self)


@dataclasses.dataclass(frozen=True)
class TrajectoryRecorder:
    """See ``data.shards.Recorder``."""

    plan: TrajectoryPlan

    def record(self, shard: int) -> Iterator[Episode]:
        """The shard's episodes, in the format's order."""
        first = shard * self.plan.format.per_shard
        for number, item in enumerate(self.plan.of_shard(shard), first):
            for found in self.plan.format.read(item):
                episode = episode_of(found, self.plan.format, number)
                if episode is not None:
                    yield episode

    def describe(self) -> DatasetInfo:
        """What ``dataset.json`` says of the data."""
        format = self.plan.format
        rate = format.rate()
        return DatasetInfo(
            source=format.source,
            simulator="none",
            simulator_version="none",
            fps=rate / kept_every(rate, format.fps, format.source),
            frame_shape=(*format.size, 3),
            content="frames",
            chunk=format.chunk,
            action_spaces={"continuous": ActionSpace("continuous", format.names, format.scale)},
            commands=(),
            splits={},
        )

    def close(self) -> None:
        """Nothing stays open between shards."""


def plan_of(format: Format) -> TrajectoryPlan:
    """The plan of a format.

    Raises:
        VgenError: if it has no trajectory, or settings that no importer can have.
    """
    check_format(format)
    listed = format.items()
    if not listed:
        raise VgenError(f"split {format.split}: nothing to import; name other files")
    return TrajectoryPlan(format, listed)


def body_velocities(position_T2: np.ndarray, yaw_T: np.ndarray, fps: float) -> np.ndarray:
    """Velocities forward (units of position per second) and of turning (rad/s, counter-clockwise), float32 (T, 2).

    Row t is what led from frame t to t + 1, along the heading half-way; the last row repeats the one before.

    Args:
        yaw_T: radians, counter-clockwise; need not be unwrapped.
    """
    position, yaw = np.asarray(position_T2, np.float64)[:, :2], np.asarray(yaw_T, np.float64).reshape(-1)
    if len(position) < 2:
        return np.zeros((len(position), 2), np.float32)
    turn = (np.diff(yaw) + np.pi) % (2 * np.pi) - np.pi
    ahead, moved = yaw[:-1] + turn / 2, np.diff(position, axis=0)
    forward = moved[:, 0] * np.cos(ahead) + moved[:, 1] * np.sin(ahead)
    velocity = np.stack([forward, turn], axis=1) * fps
    return np.concatenate([velocity, velocity[-1:]]).astype(np.float32)


def posed_drive(scene: str, frames_THWC: np.ndarray, position_T2: np.ndarray, yaw_T: np.ndarray, fps: float) -> Drive:
    """A drive of which the poses are known and the commands are not: the velocities between the poses."""
    velocity = body_velocities(position_T2, yaw_T, fps)
    return Drive(scene, frames_THWC, velocity, fps, "", planar_pose(position_T2, yaw_T))


def check_counts(where: Path, frames: int, position_T2: np.ndarray, yaw_T: np.ndarray) -> None:
    """Raises VgenError unless every frame has a position and a heading."""
    if not frames == len(position_T2) == len(yaw_T):
        raise VgenError(
            f"{where} has {frames} frames, {len(position_T2)} positions and {len(yaw_T)} headings: as many of each "
            "are needed"
        )


def read_jpeg(source: Path | io.BytesIO, size: tuple[int, int], where: str) -> np.ndarray:
    """A picture at a size, uint8 (H, W, 3).

    Args:
        where: for the error.

    Raises:
        VgenError: no picture, or a damaged one.
    """
    try:
        with Image.open(source) as image:
            return fitted(image, size)
    except (UnidentifiedImageError, OSError) as error:
        raise VgenError(f"{where} is no picture, or a damaged one ({error}): copy it again") from error


def planar_pose(position_T2: np.ndarray, yaw_T: np.ndarray) -> np.ndarray:
    """x, y, z = 0 and the heading in degrees of each frame, float32 (T, 4)."""
    position, yaw = np.asarray(position_T2, np.float64)[:, :2], np.asarray(yaw_T, np.float64).reshape(-1)
    return np.concatenate([position, np.zeros((len(yaw), 1)), np.degrees(yaw)[:, None]], axis=1).astype(np.float32)
