"""Do the walls in view have the colours that they must have? Ground truth against pixels, without a network.

Of every column of a picture it is known which wall of the world it shows, and which colour that wall has, in a few
shades (plain walls show the first alone). A pixel of the band at eye level is right if one of these shades is as near
to it as any other colour's, within ``TOLERANCE``; a column if most pixels of its band are; a frame if ``ENOUGH`` of its
columns are. Real frames do not reach 1 (columns on an edge blend two walls, and two colours may share a shade): give
their score beside.
"""

from typing import Any

import flax.struct
import numpy as np

from vgen_jax.metrics.base import Mean, MeanState
from vgen_jax.types import VgenError

BAND = (28 / 64, 33 / 64)  # of the height: where even the furthest wall of a maze is, around the horizon
TOLERANCE = 15.0  # of 441, the length of the diagonal of uint8 colours
ENOUGH = 0.8


def columns_right(video_THWC: np.ndarray, color_TW: np.ndarray, shades_KS3: np.ndarray) -> np.ndarray:
    """Whether each column shows the wall that is there, bool (T, W).

    Args:
        video_THWC: uint8 frames.
        color_TW: the colour, in [0, K), of the wall in each column.
        shades_KS3: the colours' shades as they are rendered, in [0, 255].

    Raises:
        VgenError: frames of another type, or a truth of another shape or of colours that are not there.
    """
    frames, height, width = _checked(video_THWC, color_TW, len(shades_KS3))
    top, bottom = int(BAND[0] * height), max(int(BAND[1] * height), int(BAND[0] * height) + 1)
    band_TRWC = video_THWC[:, top:bottom].astype(np.float32)
    away_TRWK = np.stack(
        [
            np.min([np.linalg.norm(band_TRWC - np.float32(shade), axis=-1) for shade in shades], axis=0)
            for shades in np.asarray(shades_KS3)
        ],
        axis=-1,
    )
    own_TRW = np.take_along_axis(
        away_TRWK, np.broadcast_to(color_TW[:, None, :, None], (frames, bottom - top, width, 1)), -1
    )[..., 0]
    return (own_TRW <= away_TRWK.min(-1) + TOLERANCE).mean(1) > 0.5


def _checked(video_THWC: np.ndarray, color_TW: np.ndarray, colors: int) -> tuple[int, int, int]:
    """Frames, height and width."""
    if video_THWC.dtype != np.uint8 or video_THWC.ndim != 4 or video_THWC.shape[-1] != 3:
        got = f"{video_THWC.dtype} of shape {video_THWC.shape}"
        raise VgenError(f"walls: needs uint8 frames (T, H, W, 3), got {got}")
    frames, height, width, _ = video_THWC.shape
    if color_TW.shape != (frames, width):
        raise VgenError(f"walls: a truth of shape {color_TW.shape} for {frames} frames of {width} columns")
    if color_TW.min() < 0 or color_TW.max() >= colors:
        raise VgenError(f"walls: the truth names colours {color_TW.min()} to {color_TW.max()} of {colors}")
    return frames, height, width


@flax.struct.dataclass
class WallsState:
    """Means over clips: of the share of right columns, and of the share of right frames."""

    columns: MeanState
    frames: MeanState


@flax.struct.dataclass
class Walls:
    """The score over a data set; every clip counts once.

    Attributes:
        name: prefix of the results.
    """

    name: str = flax.struct.field(pytree_node=False, default="walls")

    @property
    def _means(self) -> tuple[Mean, Mean]:
        return Mean(f"{self.name}_columns"), Mean(f"{self.name}_frames")

    def init(self) -> WallsState:
        return WallsState(*(mean.init() for mean in self._means))

    def update(self, state: WallsState, *, mask: np.ndarray | None = None, right: Any) -> WallsState:
        """Adds clips: ``columns_right`` of each, (B, T, W), or a list of (T, W)."""
        keep = np.ones(len(right), bool) if mask is None else np.asarray(mask, bool)
        shares = [shares_right(right_TW) for right_TW, kept in zip(right, keep, strict=True) if kept]
        columns, frames = self._means
        return WallsState(
            columns.update(state.columns, values=[share for share, _ in shares]),
            frames.update(state.frames, values=[share for _, share in shares]),
        )

    def merge(self, a: WallsState, b: WallsState) -> WallsState:
        columns, frames = self._means
        return WallsState(columns.merge(a.columns, b.columns), frames.merge(a.frames, b.frames))

    def compute(self, state: WallsState) -> dict[str, float]:
        """``<name>_columns`` and ``<name>_frames`` in [0, 1], each with ``_ci95`` and ``_count``.

        Raises:
            VgenError: no clip was added.
        """
        columns, frames = self._means
        return columns.compute(state.columns) | frames.compute(state.frames)


def shares_right(right_TW: np.ndarray) -> tuple[float, float]:
    """Of one clip: the share of right columns, and that of right frames."""
    shares_T = np.asarray(right_TW, np.float64).mean(-1)
    return float(shares_T.mean()), float((shares_T >= ENOUGH).mean())
