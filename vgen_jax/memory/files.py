"""A memory's state as a file, to go on with it in another rollout.

Safetensors, one array per leaf, named by its place in the state; the kind of memory and its settings are kept beside
them, so that a state is not taken for that of another memory.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from vgen_jax.types import VgenError

SETTINGS = "memory"
VIDEO = ".video."  # in the place of a leaf that holds a whole video


def save_memory(path: Path, m: Any, settings: Mapping[str, Any]) -> None:
    """Writes ``m`` with the settings (plain values) of the memory that it belongs to; an existing file is replaced."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(jax.device_get(leaf), order="C") for name, leaf in _named(m).items()}
    partial = path.with_name(path.name + ".partial")
    safetensors.numpy.save_file(arrays, partial, metadata={SETTINGS: json.dumps(settings, sort_keys=True)})
    partial.replace(path)


def load_memory(path: Path, like: Any, settings: Mapping[str, Any]) -> Any:
    """A state that ``save_memory`` wrote; its arrays are where those of ``like`` are, on the device or on the host.

    Args:
        like: a fresh state of the same memory for as many videos.
        settings: of the memory that is to go on with it.

    Raises:
        VgenError: if the file is missing or damaged, or its state is not one of that memory.
    """
    path = Path(path)
    if not path.is_file():
        raise VgenError(f"{path} is missing: name a memory.safetensors that a rollout has left")
    try:
        with safetensors.safe_open(path, "np") as file:
            kept = json.loads((file.metadata() or {}).get(SETTINGS, "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise VgenError(f"{path} is damaged ({error}): copy it again, or leave it out") from error
    wanted = json.loads(json.dumps(settings))
    if kept != wanted:
        raise VgenError(f"{path} is of memory {json.dumps(kept)}, not {json.dumps(wanted)}: use the same settings")
    found = _checked(path, arrays, _named(like))
    placed = [_as(leaf, x) for leaf, x in zip(jax.tree.leaves(like), found, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(like), placed)


def _as(like: Any, x: np.ndarray) -> Any:
    """A stored array as the kind of leaf that it was: a key, a number, an array of the device or of the host."""
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(like))
    if isinstance(like, int | float):
        return type(like)(x)
    return jnp.asarray(x) if isinstance(like, jax.Array) else x


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _named(m: Any) -> dict[str, Any]:
    """Leaf's place -> leaf as an array (of a key its data), in the order of the leaves."""

    def as_array(x: Any) -> Any:
        if _is_key(x):
            return jax.random.key_data(x)
        return np.asarray(x) if isinstance(x, int | float) else x

    return {jax.tree_util.keystr(at): as_array(x) for at, x in jax.tree_util.tree_leaves_with_path(m)}


def _checked(path: Path, arrays: Mapping[str, np.ndarray], wanted: Mapping[str, Any]) -> list[np.ndarray]:
    """The arrays in order. A video that is part of the state (``video``) may be of any length."""
    faults = [f"missing {name}" for name in wanted if name not in arrays]
    faults += [f"unexpected {name}" for name in arrays if name not in wanted]
    for name in wanted.keys() & arrays.keys():
        have, want = list(arrays[name].shape), list(wanted[name].shape)
        if VIDEO in name and len(have) == len(want) > 1:
            have[1] = want[1]
        if have != want:
            faults.append(f"{name} is {tuple(arrays[name].shape)}, not {tuple(wanted[name].shape)}")
    if faults:
        raise VgenError(
            f"{path} does not fit ({'; '.join(sorted(faults)[:4])}): use the model and videos it was made with"
        )
    return [arrays[name] for name in wanted]
