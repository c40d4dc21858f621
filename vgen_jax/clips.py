"""Folders of videos as clips to be scored: found, read whole, checked, cut to the same frames."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vgen_jax.media import read_video
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
        folder: holds .mp4, .gif, .npz or .npy files (see ``media.read_video``), in any depth; other files are ignored.
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

    def digest(self) -> str:
        """SHA-256 of the videos' names and frames, as they count."""
        found = hashlib.sha256()
        for name, path in zip(self.names, self.paths, strict=True):
            found.update(name.encode())
            found.update(self._fitting(path).tobytes())
        return found.hexdigest()

    def suffixes(self) -> str:
        """The kinds of files, and whether they hold what the generator made or what a codec left of it."""
        kinds = sorted({path.suffix.lower() for path in self.paths})
        return f"{', '.join(kinds)} ({'lossy' if set(kinds) & set(LOSSY) else 'lossless'})"


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
