"""Compute dtypes by the names that configs have for them."""

from typing import Any

import jax.numpy as jnp

from vgen_jax.types import VgenError

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}


def dtype_of(name: str) -> Any:
    """A compute dtype by name.

    Raises:
        VgenError: for a name that is not in ``DTYPES``.
    """
    if name not in DTYPES:
        raise VgenError(f"dtype '{name}' is unknown: use one of {', '.join(DTYPES)}")
    return DTYPES[name]
