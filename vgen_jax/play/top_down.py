"""The map beside the picture: where the walker stands, and what is around it where a simulator knows.

Places are x (to the right), y (up) and a heading in degrees, counter-clockwise from the right. With a simulator they
are its own, in cells of a maze or in runs; without one they are dead reckoning by the actions, which walls do not stop.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vgen_jax.data.schema import DatasetInfo
from vgen_jax.memory.retrieval import FORWARD, STRAFE, TURN, DeadReckoning
from vgen_jax.simulators.base import Observation, Simulator
from vgen_jax.simulators.maze import MazeSimulator
from vgen_jax.simulators.maze_layout import WALL
from vgen_jax.simulators.maze_wad import CELL, FLOOR_RGB, WALL_RGB
from vgen_jax.types import wrapped
from vgen_jax.worlds.actions import ActionCodec

Place = tuple[float, float, float]
ORIGIN: Place = (0.0, 0.0, 90.0)  # looking up


def walker_names(info: DatasetInfo, space: str) -> tuple[str, ...] | None:
    """The names of a walker's actions; ``None`` where actions do not tell where one stands."""
    if space != "continuous" or space not in info.action_spaces:
        return None
    names = info.action_spaces[space].names
    return names if TURN in names and set(names) <= {TURN, FORWARD, STRAFE} else None


def reckoned(codec: ActionCodec, place: Place | None, action_TA: np.ndarray | None) -> Place | None:
    """The place after some actions (model units) from a place; ``None`` where nobody knows."""
    names = walker_names(codec.info, codec.space)
    if place is None or names is None or action_TA is None:
        return None
    poses = DeadReckoning(names, codec.info.action_spaces[codec.space].scale).poses(action_TA)
    x, y, turned = float(poses.x[-1]), float(poses.y[-1]), float(poses.heading[-1])
    cos, sin = np.cos(np.radians(place[2])), np.sin(np.radians(place[2]))
    return (
        place[0] + float(cos * x - sin * y), place[1] + float(sin * x + cos * y), float(wrapped(place[2] + turned))
    )  # fmt: skip


def observed(simulator: Simulator, seen: Observation) -> Place:
    """The place of a simulator's camera."""
    unit = CELL if isinstance(simulator, MazeSimulator) else simulator.units.run
    x, y, _, heading = (float(value) for value in seen.pose)
    return x / unit, y / unit, float(wrapped(heading))


def plan(simulator: Simulator, scene: str) -> dict[str, Any] | None:
    """The plan of a scene as JSON: ``rows`` of cells from below, each with the colours of its floor and its walls.

    ``None`` where the simulator has none.
    """
    if not isinstance(simulator, MazeSimulator):
        return None
    layout = simulator.layout(scene)

    def cell(room: int) -> Any:
        if room == WALL:
            return None
        sides = (WALL_RGB[int(color)] for color in layout.color_R2[room])
        return {"floor": _hex(FLOOR_RGB[int(layout.floor_R[room])]), "walls": [_hex(rgb) for rgb in sides]}

    return {"rows": [[cell(int(room)) for room in row] for row in layout.room_YX]}


def _hex(rgb: Sequence[int]) -> str:
    return "#" + "".join(f"{value:02x}" for value in rgb)
