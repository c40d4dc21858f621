"""The place encoder as a task of ``train``, and as its export is read again."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.data.pairs import PairsConfig, pair_iterator
from vgen_jax.data.records import read_info
from vgen_jax.learning.checkpoint import check_matches, export, load_export
from vgen_jax.learning.slow import Task
from vgen_jax.models import place as network
from vgen_jax.objectives.autoencoder import to_unit
from vgen_jax.objectives.place import PairBatch, PlaceLoss, place
from vgen_jax.tasks.inputs import Finish
from vgen_jax.types import Array, Key, Params, VgenError
from vgen_jax.worlds.slow_networks import dtype_of

SLICE = 64  # frames coded at once


@dataclasses.dataclass(frozen=True)
class PlaceConfig:
    """The encoder's shape, see ``models.place``."""

    level_channels: tuple[int, ...]
    blocks_per_level: int
    width: int
    norm_groups: int
    dtype: str


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


class PairBatches:
    """The iterator of pairs as PairBatches."""

    def __init__(self, config: PairsConfig):
        self._iterator = pair_iterator(config, jax.process_index(), jax.process_count())

    def __next__(self) -> PairBatch:
        batch = next(self._iterator)
        return PairBatch(batch["pair"], batch["pose"], batch["scene"])

    def get_state(self) -> dict[str, Any]:
        return self._iterator.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._iterator.set_state(state)


def place_network(config: PlaceConfig) -> network.PlaceEncoder:
    """The network."""
    return network.PlaceEncoder(**{**dataclasses.asdict(config), "dtype": dtype_of(config.dtype)})


def place_task(config: ConfigDict) -> tuple[Task, Finish]:
    """Trains a place encoder on pairs of frames; its export says what data it knows."""
    shape = section(PlaceConfig, config.place, "place")
    data = section(PairsConfig, config.data, "data")
    loss = section(PlaceLoss, config.objective.loss, "objective.loss")
    encoder, source = place_network(shape), read_info(data.data_dir).source

    def embed(params: Params, frames: Array) -> Array:
        code: Any = encoder.apply({"params": params}, frames)
        return code[0]

    def init(rng: Key) -> Params:
        return encoder.init(rng, jnp.zeros((1, encoder.factor, encoder.factor, 3)))["params"]

    def finish(params: Params, folder: Path) -> None:
        export(folder, params, {"place": dataclasses.asdict(shape), "name": f"place_{source}"})

    return Task(init, place(Partial(embed), loss), PairBatches(data)), finish


def load_place(folder: Path) -> Place:
    """A place encoder from an export folder.

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

    return Place(raw["name"], lambda frames: sliced(frames)[0], lambda frames: sliced(frames)[1])
