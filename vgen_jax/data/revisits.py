"""Where a camera sees a view again: pairs of frames by the ground-truth pose alone.

The first and the later visit of a place are what Scene Revisit Consistency compares (SlowFast-VGen §4.1).
"""

import numpy as np

LEFT_TURN = 37.0  # degrees: half of a 74 degree view is gone
LEFT_DISTANCE = 100.0  # map units: three steps of walking


def turned(heading_a: np.ndarray, heading_b: np.ndarray) -> np.ndarray:
    """The angle between two headings, degrees in [0, 180]; broadcasts."""
    return np.abs((heading_a - heading_b + 180.0) % 360.0 - 180.0)


def apart(pose_a: np.ndarray, pose_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (map units, in space) and angle (degrees) between poses (..., 4); broadcasts."""
    a, b = np.asarray(pose_a, np.float64), np.asarray(pose_b, np.float64)
    return np.linalg.norm(a[..., :3] - b[..., :3], axis=-1), turned(a[..., 3], b[..., 3])


def has_left(distance: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Whether a camera that moved so far (map units) and turned so much (degrees) has left its view."""
    return (distance > LEFT_DISTANCE) | (angle > LEFT_TURN)


def revisits(pose_TP: np.ndarray, *, gap: int = 8, near: float = 8.0, turn: float = 2.0) -> np.ndarray:
    """Pairs (i, j) of frames, i < j: frame j shows again the view of frame i, after the camera left it in between.

    For each later frame j the earliest matching i is taken, a frame of the first visit, so that j is compared with what
    was there first and not with another repetition. Left means that some frame between the two is more than
    ``LEFT_DISTANCE`` away from i or turned by more than ``LEFT_TURN``.

    Args:
        pose_TP: x, y, z (map units) and heading (degrees) of each frame.
        gap: frames from i to j, at least.
        near: map units from i to j, at most.
        turn: degrees between i and j, at most.

    Returns:
        (N, 2) int64, ordered by j; N is 0 where nothing is seen again.
    """
    distance_TT, angle_TT = apart(pose_TP[:, None], pose_TP[None])
    frame = np.arange(len(pose_TP))
    later_TT = frame[None] > frame[:, None]
    left_TT = np.logical_or.accumulate(later_TT & has_left(distance_TT, angle_TT), axis=1)
    again_TT = left_TT & (distance_TT <= near) & (angle_TT <= turn) & (frame[None] - frame[:, None] >= gap)
    later = np.flatnonzero(again_TT.any(axis=0))
    return np.stack([again_TT[:, later].argmax(axis=0), later], axis=1)
