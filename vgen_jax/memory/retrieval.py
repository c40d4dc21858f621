"""Frames from where the camera was before, shown to the model again: a memory of places rather than of weights.

A walker's actions tell where it stands (dead reckoning): the heading is the sum of the turns, the place the sum of the
steps along it. Before each chunk every frame that is to come is given the frame of the video so far that was taken
nearest to its own pose, for a model that moves frames by a flow (``models.warp``), instead of the last past frame. On
new ground that is the last frame; where the camera comes back it is what was seen there.

    cost(r, t) = |heading_t - heading_r| / 30° + |place_t - place_r| / 2 runs

the earliest of equals: its pixels were moved the least often. SlowFast-VGen has no such memory; it stands beside
Temp-LoRA as what can be had without learning. The commanded actions are all it knows: after a collision it is wrong.
All latents are kept, in host memory: the state grows by a chunk's latents a chunk (16 kB a frame of 32 x 32 x 4), and
each chunk copies it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import numpy as np

from vgen_jax.types import Array, Key, Past, Recalled, Reference, VgenError, wrapped

TURN, FORWARD, STRAFE = "turn", "forward", "strafe"
TURN_UNIT = 30.0  # degrees, a chunk's turn
STEP_UNIT = 2.0  # runs, a chunk's walk


@dataclasses.dataclass(frozen=True)
class Poses:
    """Headings in degrees and places in runs (what a full forward action would walk in a step), each (..., T)."""

    heading: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def at(self, index: Any) -> "Poses":
        """Some of them."""
        return Poses(self.heading[index], self.x[index], self.y[index])


class DeadReckoning:
    """Dead reckoning with a walker's continuous actions.

    Args:
        names: of the actions: ``turn`` in degrees (+ left), ``forward`` and ``strafe`` (+ right) in runs, in any order;
            the walker has to turn, and need not be able to do more.
        scale: raw units that make 1.0 in model units, one per name.

    Raises:
        VgenError: for other actions.
    """

    def __init__(self, names: Sequence[str], scale: Sequence[float]):
        if TURN not in names or not set(names) <= {TURN, FORWARD, STRAFE} or len(scale) != len(names):
            raise VgenError(
                f"the actions are {', '.join(names) or 'none'}: a pose needs continuous ones, '{TURN}' and at most "
                f"'{FORWARD}' and '{STRAFE}' besides"
            )
        self._names, self._scale = tuple(names), np.asarray(scale, np.float64)

    def poses(self, actions: np.ndarray) -> Poses:
        """Of frames that these actions (model units, (..., T, A)) led to, from the origin before the first."""
        raw = np.moveaxis(np.asarray(actions, np.float64) * self._scale, -1, 0)
        moved = {FORWARD: 0.0, STRAFE: 0.0, **dict(zip(self._names, raw, strict=True))}
        heading = np.cumsum(moved[TURN], axis=-1)
        cos, sin = np.cos(np.deg2rad(heading)), np.sin(np.deg2rad(heading))
        x = np.cumsum(moved[FORWARD] * cos + moved[STRAFE] * sin, axis=-1)
        y = np.cumsum(moved[FORWARD] * sin - moved[STRAFE] * cos, axis=-1)
        return Poses(heading, x, y)

    def motion(self, start: Poses, end: Poses) -> np.ndarray:
        """The action, model units, that leads from one pose to the other at once, (..., A) float32."""
        cos, sin = np.cos(np.deg2rad(start.heading)), np.sin(np.deg2rad(start.heading))
        dx, dy = end.x - start.x, end.y - start.y
        moved = {TURN: wrapped(end.heading - start.heading), FORWARD: dx * cos + dy * sin, STRAFE: dx * sin - dy * cos}
        return (np.stack([moved[name] for name in self._names], axis=-1) / self._scale).astype(np.float32)


def _cost(start: Poses, end: Poses) -> np.ndarray:
    turn: np.ndarray = np.abs(wrapped(end.heading - start.heading))
    return turn / TURN_UNIT + np.hypot(end.x - start.x, end.y - start.y) / STEP_UNIT


@flax.struct.dataclass
class RetrievalState:
    """The video so far, in host memory."""

    video: Past


class Retrieval:
    """See the module's docstring."""

    def __init__(self, walk: DeadReckoning):
        self._walk = walk

    def init(self, past: Past, key_B: Key) -> RetrievalState:
        if past.action_BTA is None:
            raise VgenError("memory.kind 'retrieval' needs a model with actions: use another memory")
        action_BTA = np.where(np.asarray(past.action_valid_BT)[..., None], past.action_BTA, 0.0)
        return RetrievalState(dataclasses.replace(_on_host(past), action_BTA=action_BTA.astype(np.float32)))

    def recall(self, m: RetrievalState, past: Past, coming_BTA: Array | None) -> Recalled:
        video = m.video
        seen = video.frames_BTHWC.shape[1]
        poses = self._walk.poses(np.concatenate([video.action_BTA, coming_BTA], axis=1))
        first = seen - past.frames_BTHWC.shape[1]
        window = poses.at((slice(None), slice(first, None)))
        known = poses.at((slice(None), slice(0, seen)))
        cost_BTN = _cost(known.at(np.s_[:, None, :]), window.at(np.s_[:, :, None]))
        # Sums of floats in another order differ in their last digits; equal poses shall count as equal.
        nearest_BT = np.argmin(np.round(cost_BTN, 4), axis=2)
        rows = np.arange(len(nearest_BT))[:, None]
        motion_BTA = self._walk.motion(known.at((rows, nearest_BT)), window)
        return Recalled(past, reference=Reference(np.asarray(video.frames_BTHWC)[rows, nearest_BT], motion_BTA))

    def remember(self, m: RetrievalState, past: Past, new: Past, token_BL: Array | None, key_B: Key) -> RetrievalState:
        return RetrievalState(jax.tree.map(lambda old, x: np.concatenate([old, x], axis=1), m.video, _on_host(new)))


def _on_host(past: Past) -> Past:
    return jax.tree.map(np.asarray, past)
