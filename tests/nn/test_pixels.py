"""Bytes and the unit range."""

import jax.numpy as jnp
import numpy as np

from vgen_jax.nn.pixels import from_unit, to_unit


def test_every_byte_survives_the_unit_range() -> None:
    frames = jnp.arange(256, dtype=jnp.uint8)
    np.testing.assert_array_equal(from_unit(to_unit(frames)), frames)
    np.testing.assert_array_equal(from_unit(jnp.asarray([-1.5, 1.5])), [0, 255])
