"""What a walker really did between two frames, from its poses, as one more way to write down an action.

A command is not a movement: a walk slides on, a wall stops it. What can be read off two frames is the movement.
"""

import numpy as np

from vgen_jax.data.schema import ActionSpace, DatasetInfo
from vgen_jax.types import VgenError

MOTION = "motion"  # the name of this choice beside an info's action spaces
# Degrees to the left; map units ahead and to the right. In model units a turn of 15 degrees and a walking step are 1.
MOTION_SPACE = ActionSpace("continuous", ("turn_degrees", "forward_units", "right_units"), (15.0, 33.0, 33.0))


def realised_motion(pose_TP: np.ndarray) -> np.ndarray:
    """The motion of each step, float32 (T - 1, 3), see ``MOTION_SPACE``.

    Ahead is half-way between the headings of the two frames, so that the way back is the negative of the way there.

    Args:
        pose_TP: x, y, z in map units, heading in degrees, counter-clockwise.
    """
    pose = np.asarray(pose_TP, np.float64)
    turn = (np.diff(pose[:, 3]) + 180.0) % 360.0 - 180.0
    ahead = np.radians(pose[:-1, 3] + turn / 2)
    moved = np.diff(pose[:, :2], axis=0)
    forward = moved[:, 0] * np.cos(ahead) + moved[:, 1] * np.sin(ahead)
    right = moved[:, 0] * np.sin(ahead) - moved[:, 1] * np.cos(ahead)
    return np.stack([turn, forward, right], axis=1).astype(np.float32)


def space_of(info: DatasetInfo, action: str) -> ActionSpace:
    """The action space that a choice names: one of the data's, or ``motion``.

    Raises:
        VgenError: the data have no such space.
    """
    if action == MOTION:
        return MOTION_SPACE
    if action not in info.action_spaces:
        known = ", ".join([*info.action_spaces, MOTION])
        raise VgenError(f"the data have no actions '{action}': use one of {known}")
    return info.action_spaces[action]


def actions_of(tensors: dict[str, np.ndarray], action: str) -> np.ndarray:
    """An episode's actions in raw units, from what its head holds (``codec.Head.tensors``).

    Raises:
        VgenError: it lacks them.
    """
    name = "extras.pose" if action == MOTION else f"actions.{action}"
    if name not in tensors:
        raise VgenError(f"the episode has no {name}; it has {', '.join(sorted(tensors))}")
    return realised_motion(tensors[name]) if action == MOTION else tensors[name]
