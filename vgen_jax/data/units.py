"""How large a walker's world is: what whoever judges poses, sights and distances has to know of it.

A simulator declares its units. A data set names its simulator; ``units_of`` finds them again.
"""

import dataclasses
import functools

from absl import logging


@dataclasses.dataclass(frozen=True)
class Units:
    """Of a walker's world; lengths in map units, angles in degrees.

    Attributes:
        run: what a full forward or sideways action (1.0 raw) moves in a step, once under way.
        field_of_view: of a frame, from left to right.
        near: something closer ahead than this blocks a chunk of walking.
        stuck: a chunk of walking that moved less than this was blocked.
        sight: clearances beyond this cannot be told apart.
        left: who has moved further than this has left a view; so has who turned by more than half the field of view.
        same_place, same_turn: two poses no further apart than this show the same view.
    """

    run: float
    field_of_view: float
    near: float
    stuck: float
    sight: float
    left: float
    same_place: float
    same_turn: float

    @property
    def left_turn(self) -> float:
        """Degrees after which half of a view is gone."""
        return self.field_of_view / 2


# Doom's: it runs 66 units in a step of 4 tics and walks half of that. A chunk of walking is 130, to which the player's
# radius and the slide are added; three steps of walking are 100.
DOOM = Units(
    run=66.0, field_of_view=74.0, near=170.0, stuck=12.0, sight=400.0, left=100.0, same_place=8.0, same_turn=2.0
)
# A small robot's, in metres: 0.1 m/s at 20 frames a second.
ROBOT = Units(
    run=0.005, field_of_view=70.0, near=0.22, stuck=0.001, sight=1.6, left=0.08, same_place=0.01, same_turn=2.0
)
_OF_SIMULATORS = {"vizdoom": DOOM, "maze": DOOM, "robot": ROBOT}


@functools.cache  # so that it is said once
def units_of(simulator: str) -> Units:
    """The units of a simulator's recordings; Doom's, and a warning, for a simulator that declares none."""
    if simulator not in _OF_SIMULATORS:
        logging.warning("simulator '%s' declares no units: poses are judged by Doom's (data/units.py)", simulator)
    return _OF_SIMULATORS.get(simulator, DOOM)
