"""No memory beyond the previous chunk: the slow model alone."""

from typing import Any

from vgen_jax.types import Array, Key, Recalled


class NoMemory:
    """Recalls the past frames as they are and remembers nothing."""

    def init(self, rng: Key) -> Any:
        return ()

    def recall(self, m: Any, past_BTHWC: Array) -> Recalled:
        return Recalled(past_BTHWC)

    def remember(self, m: Any, past_BTHWC: Array, new_BTHWC: Array, rng: Key) -> Any:
        return m
