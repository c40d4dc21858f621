"""The video's first frame stays in view: one more clean frame at the head of every past.

No action leads from it to the frame that follows it there, so that action counts as unknown.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from vgen_jax.types import Array, Key, Past, Recalled


class Anchor:
    """Recalls the first frame, then the past as it is."""

    def init(self, past: Past, key_B: Key) -> Any:
        return jax.tree.map(lambda x: x[:, :1], past)

    def recall(self, m: Any, past: Past, coming_BTA: Array | None) -> Recalled:
        if past.action_valid_BT is not None:
            follows_BT = np.arange(past.action_valid_BT.shape[1]) > 0
            past = dataclasses.replace(past, action_valid_BT=np.asarray(past.action_valid_BT) & follows_BT)
        return Recalled(m.then(past))

    def remember(self, m: Any, past: Past, new: Past, token_BL: Array | None, key_B: Key) -> Any:
        return m
