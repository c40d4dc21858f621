"""The last chunks as a longer clean past: the plain baseline that any learning memory has to beat.

Every window has as many past frames, so that one compilation serves all of them: before there are enough, the oldest
frame stands still in the place of those that lack, its actions unknown.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from vgen_jax.types import Array, Key, Past, Recalled, VgenError


@dataclasses.dataclass(frozen=True)
class ContextConfig:
    """How far back the past reaches.

    Attributes:
        chunks: K, chunks of clean past.
        window: the longest window, past and new frames together; 0 for the longest that the model was trained on.
    """

    chunks: int
    window: int

    def __post_init__(self) -> None:
        if self.chunks < 1:
            raise VgenError(f"memory.context.chunks is {self.chunks}: use 1 or more")
        if self.window < 0:
            raise VgenError(f"memory.context.window is {self.window}: use a number of frames, or 0 for the model's own")

    def past_frames(self, past: int, future: int, trained: int) -> int:
        """Frames of the clean past: K chunks as far as the window allows, at least the rollout's own f_p.

        Args:
            past, future: f_p and f_g of the rollout.
            trained: frames of the longest window that the model was trained on.
        """
        return max(past, min(self.chunks * future, (self.window or trained) - future))


class Context:
    """Recalls the last ``frames`` frames.

    Args:
        frames: at least the rollout's f_p.
    """

    def __init__(self, frames: int):
        self._frames = frames

    def init(self, past: Past, key_B: Key) -> Any:
        lacking = self._frames - past.frames_BTHWC.shape[1]
        still = jax.tree.map(lambda x: x[:, :1].repeat(lacking, axis=1), past)
        if still.action_valid_BT is not None:
            still = dataclasses.replace(still, action_valid_BT=np.zeros_like(still.action_valid_BT))
        return still.then(past)

    def recall(self, m: Any, past: Past, coming_BTA: Array | None) -> Recalled:
        return Recalled(m)

    def remember(self, m: Any, past: Past, new: Past, token_BL: Array | None, key_B: Key) -> Any:
        return m.then(new).last(self._frames)
