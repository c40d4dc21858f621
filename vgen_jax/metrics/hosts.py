"""States of a metric from several processes: exact, since float64 arrays travel as bytes and not as JAX's float32."""

import functools
import io
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

State = TypeVar("State")


def gather(tree: Any) -> list[Any]:
    """Every process's tree of NumPy arrays, in their order; a collective. Shapes may differ, the structure may not."""
    if jax.process_count() == 1:
        return [tree]
    leaves, structure = jax.tree.flatten(tree)
    buffer = io.BytesIO()
    np.savez(buffer, *leaves)
    mine = np.frombuffer(buffer.getvalue(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.asarray([mine.size], np.int32))).reshape(-1)
    padded = np.pad(mine, (0, int(sizes.max()) - mine.size))
    everyone = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(sizes), -1)
    return [_unpacked(content[:size].tobytes(), structure) for content, size in zip(everyone, sizes, strict=True)]


def _unpacked(content: bytes, structure: Any) -> Any:
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return jax.tree.unflatten(structure, [stored[f"arr_{n}"] for n in range(structure.num_leaves)])


def merged(merge: Callable[[State, State], State], state: State) -> State:
    """The state of all processes' data together, by a metric's ``merge``, on every process; a collective."""
    return functools.reduce(merge, gather(state))
