"""What a simulator offers to the collector."""

from typing import NamedTuple, Protocol

import numpy as np

from vgen_jax.data.schema import ActionSpace, Command
from vgen_jax.data.units import Units


class Observation(NamedTuple):
    """What is seen after a step.

    Attributes:
        frame_HWC: uint8, of the simulator's target size.
        pose: (4,) float32: x, y, z in map units, heading in degrees, counter-clockwise.
        ended: the recording cannot go on (death, exit of the map, a teleporter).
    """

    frame_HWC: np.ndarray
    pose: np.ndarray
    ended: bool


class Simulator(Protocol):
    """A first-person world that is driven by rows of continuous actions.

    The same seed, scene and actions give the same frames, whatever was simulated before. ``units`` say how large its
    world is.
    """

    name: str
    version: str
    fps: float
    units: Units
    action_space: ActionSpace
    commands: tuple[Command, ...]

    def scenes(self, split: str) -> tuple[str, ...]:
        """The scenes of a split, disjoint between splits."""
        ...

    def reset(self, seed: int, scene: str) -> Observation:
        """Starts at a place of the scene drawn from the seed."""
        ...

    def step(self, action: np.ndarray) -> Observation:
        """Applies one (A,) action in raw units."""
        ...

    def clearance(self) -> tuple[float, float, float]:
        """Distances in map units to what stands to the left, ahead and to the right in the last observation."""
        ...

    def extras(self, pose_TP: np.ndarray) -> dict[str, np.ndarray]:
        """Ground truth of the last scene beside the pose, for an episode's ``extras``; empty where there is none."""
        ...

    def close(self) -> None: ...
