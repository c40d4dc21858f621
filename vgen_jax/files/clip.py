"""A few frames to look at: in a notebook, where they move by themselves, or as a file."""

import base64
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vgen_jax.files import media
from vgen_jax.types import Array, Step, VgenError

FPS = 8.0


@dataclasses.dataclass(frozen=True)
class Clip:
    """uint8 frames (T, H, W, 3) at ``fps``."""

    frames_THWC: np.ndarray
    fps: float

    def _repr_html_(self) -> str:
        """What a notebook shows: a GIF, enlarged without smoothing."""
        gif = base64.b64encode(media.encode_gif(self.frames_THWC, self.fps)).decode()
        return f'<img src="data:image/gif;base64,{gif}" style="min-height:256px; image-rendering:pixelated">'

    def save(self, path: str | Path) -> None:
        """Writes an ``.mp4`` or a ``.gif``."""
        with media.VideoWriter(path, self.fps, self.frames_THWC.shape[1:3]) as writer:
            writer.write(self.frames_THWC)


def show(what: Array | Step | Sequence[Step], fps: float = FPS, video: int = 0) -> Clip:
    """Steps of a World one after another, or frames, as a clip to look at.

    Args:
        what: a ``Step``, several, or uint8 frames (T, H, W, 3) or (B, T, H, W, 3).
        video: which of the batch.

    Raises:
        VgenError: for what is not frames.
    """
    if isinstance(what, Step):
        what = [what]
    if isinstance(what, (list, tuple)) and what and all(isinstance(one, Step) for one in what):
        frames = np.concatenate([np.asarray(step.frames_BTHWC[video]) for step in what])
    else:
        frames = np.asarray(what)
        frames = frames[video] if frames.ndim == 5 else frames
    if frames.ndim != 4 or frames.dtype != np.uint8:
        raise VgenError(f"cannot show {frames.dtype} {frames.shape}: give steps, or uint8 frames (T, H, W, 3)")
    return Clip(frames, fps)
