"""Temp-LoRA: the episode is written into adapters, one per video, which every later chunk is sampled with.

SlowFast-VGen §3.2. ``TempLora`` learns each window as it comes (the paper's local learning rule); ``TempLoraWhole``
keeps the latents of the whole video, in host memory, and learns windows drawn from it (its ablation "without local
learning rule"): its state grows by a chunk's latents a chunk, the other's does not. How a window is learnt is the
update's part (``learning.fast``).
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import numpy as np

from vgen_jax.types import Array, Key, Past, Recalled, VideoBatch

# keys -> the learner's state, whose field ``lora`` holds the adapters
Begin = Callable[[Key], Any]
# (state, windows with leading axes (clips, B), keys) -> state
Learn = Callable[[Any, VideoBatch, Key], Any]


class TempLora:
    """Learns the past and the new frames of each chunk, and nothing from before."""

    def __init__(self, begin: Begin, learn: Learn):
        self._begin, self._learn = begin, learn

    def init(self, past: Past, key_B: Key) -> Any:
        return self._begin(key_B)

    def recall(self, m: Any, past: Past, coming_BTA: Array | None) -> Recalled:
        return Recalled(past, m.lora)

    def remember(self, m: Any, past: Past, new: Past, token_BL: Array | None, key_B: Key) -> Any:
        window = as_batch(past.then(new), past.frames_BTHWC.shape[1], token_BL)
        return self._learn(m, jax.tree.map(lambda x: x[None], window), key_B)


@flax.struct.dataclass
class WholeState:
    """The learner's state, and the video so far in host memory."""

    learner: Any
    video: Past


class TempLoraWhole:
    """Learns ``clips`` windows per chunk, each drawn uniformly from the video so far, for every video its own."""

    def __init__(self, begin: Begin, learn: Learn, clips: int):
        self._begin, self._learn, self._clips = begin, learn, clips

    def init(self, past: Past, key_B: Key) -> Any:
        return WholeState(self._begin(key_B), jax.tree.map(np.asarray, past))

    def recall(self, m: Any, past: Past, coming_BTA: Array | None) -> Recalled:
        return Recalled(past, m.learner.lora)

    def remember(self, m: Any, past: Past, new: Past, token_BL: Array | None, key_B: Key) -> Any:
        f_p, f_g = past.frames_BTHWC.shape[1], new.frames_BTHWC.shape[1]
        video = jax.tree.map(lambda old, x: np.concatenate([old, x], axis=1), m.video, new)
        draw_B, learn_B = jax.vmap(jax.random.split, out_axes=1)(key_B)
        starts_BS = clip_starts(draw_B, self._clips, video.frames_BTHWC.shape[1] - f_p - f_g + 1)
        windows = [as_batch(cut(video, at_B, f_p + f_g), f_p, token_BL) for at_B in starts_BS.T]
        return WholeState(self._learn(m.learner, jax.tree.map(lambda *x: np.stack(x), *windows), learn_B), video)


def clip_starts(key_B: Key, clips: int, choices: int) -> np.ndarray:
    """(B, clips) numbers in [0, choices), from the keys alone."""
    return np.asarray(jax.vmap(lambda key: jax.random.randint(key, (clips,), 0, choices))(key_B))


def cut(video: Past, at_B: np.ndarray, frames: int) -> Past:
    """``frames`` frames of each video, from its own frame on."""

    def rows(x_BT: np.ndarray) -> np.ndarray:
        return np.stack([x[at : at + frames] for x, at in zip(np.asarray(x_BT), at_B, strict=True)])

    return jax.tree.map(rows, video)


def as_batch(frames: Past, past: int, token_BL: Array | None) -> VideoBatch:
    """Frames as a window, ``past`` of them its past; the action that leads to the first is unknown there."""
    b, t = frames.frames_BTHWC.shape[:2]
    past_BT = np.broadcast_to(np.arange(t) < past, (b, t))
    if frames.action_BTA is None or frames.action_valid_BT is None:
        return VideoBatch(frames.frames_BTHWC, past_BT, token_BL)
    valid_BT = np.asarray(frames.action_valid_BT) & (np.arange(t) > 0)
    action_BTA = np.where(valid_BT[..., None], frames.action_BTA, 0.0).astype(np.float32)
    return VideoBatch(frames.frames_BTHWC, past_BT, token_BL, action_BTA, valid_BT)
