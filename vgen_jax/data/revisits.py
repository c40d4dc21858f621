"""Where a camera sees a view again: pairs of frames by the ground-truth pose alone.

The first and the later visit of a place are what Scene Revisit Consistency compares (SlowFast-VGen §4.1).
"""

import numpy as np

from vgen_jax.data.units import DOOM, Units
from vgen_jax.types import wrapped


def turned(heading_a: np.ndarray, heading_b: np.ndarray) -> np.ndarray:
    """The angle between two headings, degrees in [0, 180]; broadcasts."""
    turns: np.ndarray = np.abs(wrapped(heading_a - heading_b))
    return turns


def apart(pose_a: np.ndarray, pose_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (map units, in space) and angle (degrees) between poses (..., 4); broadcasts."""
    a, b = np.asarray(pose_a, np.float64), np.asarray(pose_b, np.float64)
    return np.linalg.norm(a[..., :3] - b[..., :3], axis=-1), turned(a[..., 3], b[..., 3])


def has_left(distance: np.ndarray, angle: np.ndarray, units: Units = DOOM) -> np.ndarray:
    """Whether a camera that moved so far (map units) and turned so much (degrees) has left its view."""
    return (distance > units.left) | (angle > units.left_turn)


def revisits(pose_TP: np.ndarray, units: Units = DOOM, *, gap: int = 8) -> np.ndarray:
    """Pairs (i, j) of frames, i < j: frame j shows again the view of frame i, after the camera left it in between.

    For each later frame j the earliest matching i is taken, a frame of the first visit, so that j is compared with what
    was there first and not with another repetition. Left means that some frame between the two is further from i than
    ``units.left`` or turned by more than half the field of view.

    Args:
        pose_TP: x, y, z (map units) and heading (degrees) of each frame.
        units: of the poses; they say how far i and j may be apart.
        gap: frames from i to j, at least.

    Returns:
        (N, 2) int64, ordered by j; N is 0 where nothing is seen again.
    """
    distance_TT, angle_TT = apart(pose_TP[:, None], pose_TP[None])
    frame = np.arange(len(pose_TP))
    later_TT = frame[None] > frame[:, None]
    left_TT = np.logical_or.accumulate(later_TT & has_left(distance_TT, angle_TT, units), axis=1)
    same_TT = (distance_TT <= units.same_place) & (angle_TT <= units.same_turn)
    again_TT = left_TT & same_TT & (frame[None] - frame[:, None] >= gap)
    later = np.flatnonzero(again_TT.any(axis=0))
    return np.stack([again_TT[:, later].argmax(axis=0), later], axis=1)
