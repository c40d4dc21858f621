"""Folders of converted networks, as the run ``convert`` writes them.

A network's folder holds ``model.safetensors`` with the names and layouts of the networks here and ``config.json`` with
its fields (see ``files.exports.load_export``). A text-to-video model's folder holds one for each of its networks under
the names that diffusers gives them, beside its tokenizer and its scheduler.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import linen as nn
from flax import traverse_util

from vgen_jax.convert import files
from vgen_jax.files.exports import check_matches
from vgen_jax.types import Params, VgenError

STEM = "model"
UNET, AUTOENCODER, TEXT = "unet", "autoencoder", "text"  # a network's fields in its folder's config.json
SCALE, SAMPLE_SIZE = "scale", "sample_size"
OF_THE_RUN = ("dtype", "kl_weight")  # in an autoencoder's config.json, but no fields of the converted network


def write(folder: Path, config: Mapping[str, Any], params: Params) -> int:
    """Writes a network's folder, tensor by tensor; returns the number of parameters."""
    flat = traverse_util.flatten_dict(params, sep="/")
    tensors = {path: files.Stored(x.shape, x.dtype, functools.partial(np.asarray, x)) for path, x in flat.items()}
    files.write_folder(folder, config, tensors, STEM)
    return count(params)


def is_export(folder: Path, key: str) -> bool:
    """Whether a folder is one that ``write`` wrote, of the network that ``key`` names; not one of diffusers."""
    path = folder / files.CONFIG
    return path.is_file() and isinstance(files.read_json(path).get(key), dict)


def read_config(folder: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """A network's ``config.json``.

    Raises:
        VgenError: if it is missing or damaged, or lacks a key.
    """
    raw = files.read_json(folder / files.CONFIG)
    for key in keys:
        if key not in raw:
            path = folder / files.CONFIG
            raise VgenError(f"{path} has no '{key}': it is no export of this kind; name another folder")
    return raw


def read(folder: Path, keys: tuple[str, ...], dtype: Any = None) -> tuple[dict[str, Any], Params]:
    """A network's ``config.json`` and its parameters as NumPy arrays.

    Args:
        dtype: of the arrays; ``None`` for what is stored.

    Raises:
        VgenError: if a file is missing or damaged, or the config lacks a key.
    """
    raw = read_config(folder, keys)
    flat = {path: np.asarray(stored.read(), dtype) for path, stored in files.read_weights(folder).items()}
    return raw, traverse_util.unflatten_dict(flat, sep="/")


def load(
    folder: Path, key: str, module: type[nn.Module], expected: Callable[[Any], Any], dtype: Any
) -> tuple[dict[str, Any], Params]:
    """A network as the loaders of the originals give it: its fields, and NumPy arrays of ``dtype``.

    Args:
        expected: a module -> the shapes of its parameters.

    Raises:
        VgenError: if a file is missing or damaged, or does not fit the network.
    """
    raw, params = read(folder, (key,), dtype)
    config = fields({k: v for k, v in raw[key].items() if k not in OF_THE_RUN}, module, folder)
    check_matches(params, expected(module(**config)), folder)
    return config, params


def fields(values: Any, module: type[nn.Module], folder: Path) -> dict[str, Any]:
    """The fields of a network from its folder's JSON, which has lists for tuples.

    Raises:
        VgenError: for a field that no such network has.
    """
    known = {field.name for field in dataclasses.fields(module)} - {"parent", "name", "dtype"}
    unknown = sorted(set(values) - known) if isinstance(values, Mapping) else ["no fields"]
    if unknown:
        raise VgenError(f"{folder / files.CONFIG} has {unknown[0]}, which no {module.__name__} has: convert it again")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def count(params: Params) -> int:
    """How many numbers there are in all arrays."""
    return sum(int(np.prod(x.shape)) for x in traverse_util.flatten_dict(params).values())
