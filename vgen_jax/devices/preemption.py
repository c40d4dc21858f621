"""The signal that ends a run: what was done is saved, and the process exits with status 143."""

import signal
from typing import Any

import jax
from jax.experimental import multihost_utils

PREEMPTED_STATUS = 128 + signal.SIGTERM


class Preempted(SystemExit):
    """The process was asked to stop; its state is saved. Exit status 143."""

    def __init__(self, step: int):
        super().__init__(PREEMPTED_STATUS)
        self.step = step


class StopSignal:
    """Turns SIGTERM into a flag that every process of the run sees at the same step.

    Among several processes JAX's coordination service carries it: to gather it from devices makes every step wait.
    """

    def __init__(self) -> None:
        self._received = False
        self._alone = jax.process_count() == 1
        self._previous = signal.signal(signal.SIGTERM, self._receive) if self._alone else None

    def _receive(self, number: int, frame: Any) -> None:
        self._received = True

    def reached(self, step: int) -> bool:
        """Whether any process was asked to stop. Every process asks after every step."""
        return self._received if self._alone else multihost_utils.reached_preemption_sync_point(step)

    def restore(self) -> None:
        """Puts the previous handler back."""
        if self._alone:
            signal.signal(signal.SIGTERM, self._previous)
