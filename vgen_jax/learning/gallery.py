"""What a model makes by then, looked at now and then while it trains."""

import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from vgen_jax.devices import sharding as sh
from vgen_jax.files.log import MetricWriter
from vgen_jax.files.media import VideoWriter, write_png
from vgen_jax.learning.state import TrainState, learnt
from vgen_jax.types import Key, Params

SAMPLE_FPS = 4.0
Look = Callable[[Params, Key], np.ndarray]  # a video of what parameters make, uint8 (T, H, W, 3)


class Gallery:
    """Every few minutes a video of what the model makes, by a training of a single process.

    Args:
        sample: see ``Task``.
        minutes: between two of them; 0 for none.
        folder: of ``step_000500.mp4`` and so on; the newest is ``latest.png`` too, its frames side by side.
    """

    def __init__(
        self,
        sample: Look | None,
        minutes: float,
        mesh: Mesh,
        folder: Path,
        writer: MetricWriter,
    ):
        self._sample, self._mesh, self._folder, self._writer = sample, mesh, folder, writer
        self._seconds, self._last = 60 * minutes, time.monotonic()
        self._active = sample is not None and minutes > 0 and jax.process_count() == 1

    def due(self, last: bool) -> bool:
        """Whether it is time for the next one, as it is after the last step."""
        return self._active and (last or time.monotonic() - self._last >= self._seconds)

    def add(self, step: int, state: TrainState) -> None:
        """Makes and writes one."""
        if self._sample is None:
            return
        frames_THWC = self._sample(sh.gathered(learnt(state), self._mesh), jax.random.key(0))
        self._writer.video(step, "sample", frames_THWC, SAMPLE_FPS)
        with VideoWriter(self._folder / f"step_{step:06d}.mp4", SAMPLE_FPS, frames_THWC.shape[1:3]) as writer:
            writer.write(frames_THWC)
        write_png(self._folder / "latest.png", np.concatenate(list(frames_THWC), axis=1))
        self._last = time.monotonic()
