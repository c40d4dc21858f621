"""A trace of some steps of a training, for TensorBoard."""

from pathlib import Path

import jax


class Profiler:
    """Traces ``steps`` steps from ``start`` on into ``folder``; the trace ends with the training at the latest."""

    def __init__(self, start: int, steps: int, folder: Path):
        self._steps = range(start, start + steps)
        self._folder, self._running = folder, False

    def before(self, step: int) -> None:
        """Starts or ends the trace if ``step`` is the first in or the first after it."""
        if step in self._steps and not self._running:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        elif step not in self._steps:
            self.close()

    def close(self) -> None:
        """Ends the trace if it runs."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
