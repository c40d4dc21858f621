"""The place encoder as a task (``objectives.place``); ``evaluation.place_encoder`` reads its export."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.data.pairs import PairsConfig, pair_iterator
from vgen_jax.data.records import read_info
from vgen_jax.files.exports import export
from vgen_jax.learning.slow import Task
from vgen_jax.models.place import PlaceConfig, place_network
from vgen_jax.objectives.place import PairBatch, PlaceLoss, place
from vgen_jax.tasks.inputs import Finish
from vgen_jax.types import Array, Key, Params


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


SECTIONS: Sections = {"place": PlaceConfig, "objective.loss": PlaceLoss, "data": PairsConfig}


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
