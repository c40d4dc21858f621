"""No memory beyond the previous chunk: the slow model alone."""

from typing import Any

from vgen_jax.types import Array, Key, Past, Recalled


class NoMemory:
    """Recalls the past frames as they are and remembers nothing."""

    def init(self, past: Past, key_B: Key) -> Any:
        return ()

    def recall(self, m: Any, past: Past, coming_BTA: Array | None) -> Recalled:
        return Recalled(past)

    def remember(self, m: Any, past: Past, new: Past, token_BL: Array | None, key_B: Key) -> Any:
        return m
