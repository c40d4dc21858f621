"""A trained place encoder, from its export."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vgen_jax.config import section
from vgen_jax.files.exports import check_matches, load_export
from vgen_jax.models import place as network
from vgen_jax.models.place import PlaceConfig, place_network
from vgen_jax.nn.pixels import to_unit
from vgen_jax.types import Params, VgenError

SLICE = 64  # frames coded at once


class PlaceExport(NamedTuple):
    """What the export of a place encoder holds.

    Attributes:
        name: what it is, ``place_vizdoom``; metrics carry it in theirs.
        network: of frames in [-1, 1].
        params: its parameters.
    """

    name: str
    network: network.PlaceEncoder
    params: Params


class Place(NamedTuple):
    """A trained place encoder; functions of uint8 frames (N, H, W, 3), any N, on the host.

    Attributes:
        name: what it is, ``place_vizdoom``; metrics carry it in theirs.
        embed: unit vectors (N, D), float32.
        layers: activations (N, h, w, c) of each level, float32.
    """

    name: str
    embed: Callable[[np.ndarray], np.ndarray]
    layers: Callable[[np.ndarray], tuple[np.ndarray, ...]]


def load_place_export(folder: Path) -> PlaceExport:
    """A place encoder's network and parameters from an export folder.

    Raises:
        VgenError: if a file is missing or does not fit.
    """
    params, raw = load_export(folder)
    if "place" not in raw or "name" not in raw:
        raise VgenError(
            f"{folder / 'config.json'} is of no place encoder: train one with configs/eval/place_encoder.py"
        )
    encoder = place_network(section(PlaceConfig, raw["place"], "place"))
    frame = jax.ShapeDtypeStruct((1, encoder.factor, encoder.factor, 3), jnp.float32)
    check_matches(params, jax.eval_shape(encoder.init, jax.random.key(0), frame)["params"], folder)
    return PlaceExport(raw["name"], encoder, params)


def load_place(folder: Path) -> Place:
    """A place encoder from an export folder, as functions of frames.

    Raises:
        VgenError: if a file is missing or does not fit.
    """
    name, encoder, params = load_place_export(folder)
    apply = jax.jit(lambda params, frames: encoder.apply({"params": params}, to_unit(frames)))

    def sliced(frames: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Slices of one size, the last one padded, so that the network is compiled once for a size of frames."""
        parts = []
        for at in range(0, max(len(frames), 1), SLICE):
            part = np.zeros((SLICE, *frames.shape[1:]), np.uint8)
            count = len(frames[at : at + SLICE])
            part[:count] = frames[at : at + SLICE]
            parts.append(jax.tree.map(lambda x, n=count: np.asarray(x)[:n], apply(params, part)))
        return jax.tree.map(lambda *each: np.concatenate(each), *parts)

    return Place(name, lambda frames: sliced(frames)[0], lambda frames: sliced(frames)[1])
