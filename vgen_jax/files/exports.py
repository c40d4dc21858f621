"""Exported networks (safetensors).

An export is a folder with ``model.safetensors`` (flat names, ``/`` between path parts) and ``config.json``. Parameters
are float32; where they are stored as float16, ``config.json`` says so, with the file's SHA-256, and they are restored.
"""

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import safetensors
import safetensors.flax
from flax import traverse_util

from vgen_jax.types import VgenError

EXPORT_WEIGHTS, EXPORT_CONFIG = "model.safetensors", "config.json"
DATASET_FILE = "dataset.json"  # beside them: what a model's training data were like
STORAGE = "storage"  # in config.json, how the parameters are stored: {"dtype": "float16", "sha256": …}


def write_error(folder: Path, error: Exception) -> Exception:
    """What to raise for a failed write: Orbax and safetensors tell of a full disk in words, each in its own class."""
    if os.strerror(errno.ENOSPC) in str(error):
        return VgenError(f"no space left to write under {folder}: free space and start again to resume")
    if not isinstance(error, OSError):
        return error
    return VgenError(f"could not write under {folder} ({error}): mend that and start again to resume")


def export(folder: Path, params: Any, config: Mapping[str, Any], stored_as: Literal["", "float16"] = "") -> None:
    """Writes ``params`` and ``config`` as an export folder; an existing one is replaced whole.

    Args:
        stored_as: ``float16`` stores float32 parameters as such; empty stores all as they are.

    Raises:
        VgenError: if a parameter does not fit float16, or the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    flat = {name: jnp.asarray(value) for name, value in traverse_util.flatten_dict(params, sep="/").items()}
    if stored_as:
        flat = {name: _halved(name, value) for name, value in flat.items()}
    partial = folder / (EXPORT_WEIGHTS + ".partial")
    try:
        safetensors.flax.save_file(jax.device_get(flat), partial)
        if stored_as:
            config = {**config, STORAGE: {"dtype": stored_as, "sha256": _sha256(partial)}}
        partial_config = folder / (EXPORT_CONFIG + ".partial")
        partial_config.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        partial.replace(folder / EXPORT_WEIGHTS)
        partial_config.replace(folder / EXPORT_CONFIG)
    except (OSError, safetensors.SafetensorError) as error:
        raise write_error(folder, error) from error


def load_export(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Parameters and config of an export folder.

    Raises:
        VgenError: if a file is missing or damaged.
    """
    folder = Path(folder)
    for name in (EXPORT_CONFIG, EXPORT_WEIGHTS):
        if not (folder / name).is_file():
            raise VgenError(f"{folder / name} is missing: train the network first, or name the folder of an export")
    try:
        flat = safetensors.flax.load_file(folder / EXPORT_WEIGHTS)
        config = json.loads((folder / EXPORT_CONFIG).read_text())
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise VgenError(f"{folder} is damaged ({error}): copy or export it again") from error
    if STORAGE in config:
        storage = config.pop(STORAGE)
        if _sha256(folder / EXPORT_WEIGHTS) != storage["sha256"]:
            raise VgenError(f"{folder / EXPORT_WEIGHTS} is damaged (its SHA-256 is another): copy or install it again")
        flat = {name: x.astype(jnp.float32) if x.dtype == storage["dtype"] else x for name, x in flat.items()}
    return traverse_util.unflatten_dict(flat, sep="/"), config


def _halved(name: str, value: jax.Array) -> jax.Array:
    if value.dtype != jnp.float32:
        return value
    half = value.astype(jnp.float16)
    if not bool(jnp.isfinite(half).all()):
        raise VgenError(f"parameter {name} does not fit float16: store this network as float32")
    return half


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(folder: Path) -> str:
    """SHA-256 of an export's weights; of a whole text-to-video model's, its UNet's."""
    path = Path(folder) / EXPORT_WEIGHTS
    inner = Path(folder) / "unet" / EXPORT_WEIGHTS
    if not path.is_file() and not inner.is_file():
        raise VgenError(f"{path} is missing: train the network first, or name the folder of an export")
    return _sha256(path if path.is_file() else inner)


def check_matches(params: Any, expected: Any, source: Path) -> None:
    """Compares names and shapes with the network's; every missing, extra or wrongly shaped one is listed.

    Raises:
        VgenError: if any differs.
    """
    have = {k: tuple(v.shape) for k, v in traverse_util.flatten_dict(params, sep="/").items()}
    want = {k: tuple(v.shape) for k, v in traverse_util.flatten_dict(expected, sep="/").items()}
    faults = [f"missing {k}" for k in sorted(want.keys() - have.keys())]
    faults += [f"unexpected {k}" for k in sorted(have.keys() - want.keys())]
    faults += [f"{k} is {have[k]}, not {want[k]}" for k in sorted(have.keys() & want.keys()) if have[k] != want[k]]
    if faults:
        raise VgenError(
            f"the weights in {source} do not fit the network ({'; '.join(faults)}): use the configuration of "
            "their training"
        )
