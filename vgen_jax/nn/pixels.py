"""Between uint8 frames and what networks in pixel space see, [-1, 1]."""

import jax.numpy as jnp

from vgen_jax.types import Array


def to_unit(frames: Array) -> Array:
    """uint8 frames in [0, 255] to float32 in [-1, 1]."""
    return frames.astype(jnp.float32) / 127.5 - 1.0


def from_unit(frames: Array) -> Array:
    """float frames in [-1, 1] to uint8, rounded and clipped."""
    return jnp.clip(jnp.round((frames + 1.0) * 127.5), 0, 255).astype(jnp.uint8)
