"""Cuts episodes into windows of f_p clean past frames and f_g frames to generate.

The chunk grid: frame 0 is the first frame, chunk i is frames 1+i*c .. (i+1)*c and is caused by actions i*c ..
(i+1)*c-1. A window's last past frame b = i*c lies on a boundary of the grid, so the frames to generate begin with the
first frame of a command. Past frames are b-f_p+1 .. b, future frames b+1 .. b+f_g.
"""

import dataclasses
from typing import Literal, NamedTuple

import numpy as np

from vgen_jax.data.codec import Head
from vgen_jax.data.motion import actions_of, space_of
from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.schema import TextSpan
from vgen_jax.data.text import encode_text, join_texts
from vgen_jax.types import VgenError

ActionChoice = Literal["continuous", "discrete", "motion", "none"]
Sample = dict[str, np.ndarray]


class Window(NamedTuple):
    """A window's place: frames [boundary-f_p+1, boundary+f_g] of an episode."""

    episode: int
    boundary: int


class WindowIndex:
    """All windows of one length: ``len(index)``, ``index[n] -> Window``. Costs no decoding.

    Raises:
        VgenError: no episode is long enough.
    """

    def __init__(self, frames: tuple[int, ...], chunk: int, f_p: int, f_g: int):
        if f_p < 1 or f_g < 1:
            raise VgenError(f"window ({f_p}, {f_g}): both f_p and f_g must be at least 1")
        self.f_p, self.f_g, self.chunk = f_p, f_g, chunk
        self._first = -(-(f_p - 1) // chunk)  # the first boundary with f_p - 1 frames before it, in chunks
        last = (np.asarray(frames) - 1 - f_g) // chunk
        self._ends = np.cumsum(np.maximum(last - self._first + 1, 0))
        if not len(self):
            longest = max(frames, default=0)
            raise VgenError(
                f"window ({f_p}, {f_g}) fits no episode, the longest has {longest} frames; take a shorter one"
            )

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, n: int) -> Window:
        if not 0 <= n < len(self):
            raise IndexError(n)
        episode = int(np.searchsorted(self._ends, n, side="right"))
        before = int(self._ends[episode - 1]) if episode else 0
        return Window(episode, (self._first + n - before) * self.chunk)

    def episode_range(self, episode: int) -> range:
        """The numbers n of an episode's windows, in time order."""
        return range(int(self._ends[episode - 1]) if episode else 0, int(self._ends[episode]))


def future_texts(texts: tuple[TextSpan, ...], boundary: int, f_g: int) -> list[str]:
    """The texts of the actions boundary .. boundary+f_g-1, which lead to the future frames, in order."""
    return [span.text for span in texts if span.start < boundary + f_g and span.stop > boundary]


@dataclasses.dataclass(frozen=True)
class WindowReader:
    """Reads windows of one length.

    Attributes:
        action: which action space a sample carries; ``motion`` is what the poses say (``data.motion``).
        token_length: L, 0 for no text.
        with_pose: whether a sample carries the pose.
    """

    source: EpisodeSource
    f_p: int
    f_g: int
    action: ActionChoice
    token_length: int
    with_pose: bool

    def __call__(self, window: Window, sample_id: int) -> Sample:
        """One sample, T = f_p + f_g.

        Returns:
            ``video`` (T, H, W, C) uint8 frames or float32 latents; ``past`` (T,) bool; ``sample_id`` int32; and as
            asked for: ``action`` (T, A) float32 in model units, row t the action that led to frame t (row 0 is zero),
            ``action_valid`` (T,) bool, False in row 0; ``token`` (L,) int32; ``pose`` (T, 4) float32.

        Raises:
            VgenError: a damaged record (file and record are named) or one without the action or pose asked for.
        """
        start, stop = window.boundary - self.f_p + 1, window.boundary + self.f_g + 1
        video = self.source.window(window.episode, start, stop)
        sample: Sample = {
            "video": video if video.dtype == np.uint8 else video.astype(np.float32),
            "past": np.arange(stop - start) < self.f_p,
            "sample_id": np.asarray(sample_id % 2**31, np.int32),
        }
        try:
            return sample | self._condition(self.source.head(window.episode), window.boundary, start, stop)
        except VgenError as error:
            raise VgenError(f"{self.source.name(window.episode)}: {error}") from error

    def _condition(self, head: Head, boundary: int, start: int, stop: int) -> Sample:
        """What goes with the frames [start, stop)."""
        sample: Sample = {}
        if self.action != "none":
            values = actions_of(head.tensors, self.action)[start : stop - 1]
            space = space_of(self.source.info, self.action)
            sample["action"] = np.concatenate([np.zeros((1, space.width), np.float32), space.to_model(values)])
            sample["action_valid"] = np.arange(stop - start) > 0
        if self.token_length:
            text = join_texts(future_texts(head.texts, boundary, self.f_g))
            sample["token"] = encode_text(text, self.token_length)
        if self.with_pose:
            sample["pose"] = self._tensor(head, "extras.pose")[start:stop]
        return sample

    def _tensor(self, head: Head, name: str) -> np.ndarray:
        if name not in head.tensors:
            raise VgenError(f"the episode has no {name}; it has {', '.join(sorted(head.tensors))}")
        return head.tensors[name]
