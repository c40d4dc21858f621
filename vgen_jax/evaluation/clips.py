"""Folders of videos as clips to be scored: found, read whole, checked, cut to the same frames.

An ``.npz`` file may hold, beside ``frames``, what some metrics need of a real video: ``actions``, one fewer than frames
(raw units (T, A), or ids (T,)), ``visits`` (N, 2), numbers (i, j) of frames that show one view, i before j, and, of a
maze, ``walls`` (T, W), the colour of the wall in each column of every frame.
"""

import dataclasses
import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vgen_jax.files.media import read_video
from vgen_jax.types import VgenError

SUFFIXES = (".mp4", ".gif", ".npz", ".npy")
LOSSY = (".mp4", ".gif")


@dataclasses.dataclass(frozen=True)
class Cut:
    """Which frames of each video count.

    Attributes:
        skip: frames at the beginning that are left out: those which the generator was given, or 0 to count them too.
        frames: frames after those; 0 for all, which then has to be the same number in every video.
    """

    skip: int
    frames: int

    def __post_init__(self) -> None:
        if self.skip < 0 or self.frames < 0:
            raise VgenError(f"cut.skip is {self.skip} and cut.frames {self.frames}: use 0 or more")


class Clips:
    """The videos of a folder, in the order of their names, read one by one.

    Args:
        folder: holds .mp4, .gif, .npz or .npy files (see ``files.media.read_video``), in any depth; other files are
            ignored.
        role: ``real`` or ``generated``, for errors.
        cut: the frames that count.

    Raises:
        VgenError: no such folder, fewer than two videos, or two of one name.
    """

    def __init__(self, folder: str | Path, role: str, cut: Cut) -> None:
        self.folder, self.role, self.cut = Path(folder).expanduser(), role, cut
        if not self.folder.is_dir():
            raise VgenError(f"config key {role} is {folder}, which is no folder: give a folder of videos")
        self.paths = sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        if len(self.paths) < 2:
            raise VgenError(
                f"{self.folder} holds {len(self.paths)} videos ({', '.join(SUFFIXES)}); {role} needs 2 or more"
            )
        self.names = [path.relative_to(self.folder).with_suffix("").as_posix() for path in self.paths]
        twice = next((name for name in self.names if self.names.count(name) > 1), None)
        if twice is not None:
            raise VgenError(f"{self.folder} holds {twice} under two suffixes; remove one")
        self.shape: tuple[int, ...] = self._cut(self.paths[0]).shape

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """uint8 (B, T, H, W, 3) of these videos.

        Raises:
            VgenError: a damaged file, too few frames, or a size that is not that of the folder's first video.
        """
        return np.stack([self._fitting(self.paths[number]) for number in numbers])

    def _fitting(self, path: Path) -> np.ndarray:
        clip = self._cut(path)
        if clip.shape != self.shape:
            (t, h, w, _), (t0, h0, w0, _) = clip.shape, self.shape
            raise VgenError(
                f"{path} has {t} frames of {w}x{h}, but {self.paths[0].name} has {t0} of {w0}x{h0}: all videos have to "
                "be of one size, and of one length or cut to one by --config.cut.frames"
            )
        return clip

    def _cut(self, path: Path) -> np.ndarray:
        video = read_video(path)
        wanted = self.cut.skip + max(1, self.cut.frames)
        if len(video) < wanted:
            raise VgenError(
                f"{path} has {len(video)} frames, too few for cut.skip {self.cut.skip} and cut.frames "
                f"{self.cut.frames}: lower them or leave the video out"
            )
        return video[self.cut.skip : self.cut.skip + self.cut.frames if self.cut.frames else None]

    def steps(self, numbers: Sequence[int]) -> np.ndarray:
        """The videos with the last frame that was left out before those that count, uint8 (B, T, H, W, 3).

        Without it nobody could tell which action led to the first frame that counts; where ``cut.skip`` is 0 there is
        no such frame.

        Raises:
            VgenError: see ``read``.
        """
        counted = self.read(numbers)
        if not self.cut.skip:
            return counted
        before = [read_video(self.paths[number])[self.cut.skip - 1] for number in numbers]
        return np.concatenate([np.stack(before)[:, None], counted], axis=1)

    def actions(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """The actions between the frames of ``steps``, as they are stored.

        Raises:
            VgenError: a video without actions, or not one fewer than its frames.
        """
        begin = max(0, self.cut.skip - 1)
        return [self._actions(self.paths[number])[begin : self.cut.skip + self.shape[0] - 1] for number in numbers]

    def _actions(self, path: Path) -> np.ndarray:
        actions, frames = _beside(path, "actions"), len(read_video(path))
        if actions is None or len(actions) != frames - 1:
            found = "no actions" if actions is None else f"{len(actions)} actions"
            raise VgenError(
                f"{path} holds {found} for {frames} frames: store {frames - 1} in it as 'actions' (.npz), or leave the "
                "action error ratio out"
            )
        return actions

    def visits(self, number: int) -> np.ndarray:
        """(N, 2) pairs among the frames that count; N is 0 where the video comes back to no place."""
        pairs = _beside(self.paths[number], "visits")
        if pairs is None:
            return np.zeros((0, 2), np.int64)
        pairs = np.asarray(pairs, np.int64).reshape(-1, 2) - self.cut.skip
        return pairs[((pairs >= 0) & (pairs < self.shape[0])).all(1)]

    def walls(self, number: int) -> np.ndarray | None:
        """(T, W) colours of the walls in the frames that count; ``None`` where the video is of no maze."""
        walls_TW = _beside(self.paths[number], "walls")
        return None if walls_TW is None else walls_TW[self.cut.skip : self.cut.skip + self.shape[0]]

    def digest(self) -> str:
        """SHA-256 of the videos' names and frames, as they count."""
        found = hashlib.sha256()
        for name, path in zip(self.names, self.paths, strict=True):
            found.update(name.encode())
            found.update(self._fitting(path).tobytes())
        return found.hexdigest()

    def digest_beside(self, name: str) -> str:
        """SHA-256 of what the videos hold under ``name`` beside their frames."""
        found = hashlib.sha256()
        for video, path in zip(self.names, self.paths, strict=True):
            stored = _beside(path, name)
            found.update(video.encode())
            found.update(b"" if stored is None else np.ascontiguousarray(stored).tobytes())
        return found.hexdigest()

    def suffixes(self) -> str:
        """The kinds of files, and whether they hold what the generator made or what a codec left of it."""
        kinds = sorted({path.suffix.lower() for path in self.paths})
        return f"{', '.join(kinds)} ({'lossy' if set(kinds) & set(LOSSY) else 'lossless'})"


def write_clip(
    path: Path,
    frames_THWC: np.ndarray,
    actions: np.ndarray | None,
    visits_N2: np.ndarray | None,
    walls_TW: np.ndarray | None = None,
) -> None:
    """A clip as an ``.npz`` file that ``Clips`` reads; it appears under its name only when it is whole."""
    beside = {"actions": actions, "visits": visits_N2, "walls": walls_TW}
    arrays: dict[str, Any] = {name: values for name, values in beside.items() if values is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez(file, frames=frames_THWC, **arrays)
    part.replace(path)


def _beside(path: Path, name: str) -> np.ndarray | None:
    """An array of an ``.npz`` file; ``None`` for another kind of file, or if it has none of that name."""
    if path.suffix.lower() != ".npz":
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return stored[name] if name in stored.files else None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise VgenError(f"{path}: {name} cannot be read ({error}); write it again without pickle") from error


def check_alike(real: Clips, generated: Clips, paired: bool) -> None:
    """Raises VgenError where frames or sizes differ or, of pairs, where a video has no namesake."""
    if real.shape != generated.shape:
        shown = [f"{c.folder} has {c.shape[0]} frames of {c.shape[2]}x{c.shape[1]}" for c in (real, generated)]
        raise VgenError(f"{shown[0]}, {shown[1]}: bring them to one size, and cut them by --config.cut.frames")
    if not paired:
        return
    for have, lack in ((real, generated), (generated, real)):
        alone = sorted(set(have.names) - set(lack.names))
        if alone:
            raise VgenError(
                f"{lack.folder} has no video named {alone[0]}, which {have.folder} has: name pairs alike, or compare "
                "the sets only (--config.score.paired=false)"
            )
