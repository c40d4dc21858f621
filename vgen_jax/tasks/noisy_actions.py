"""The action classifier of noisy frames (AVID §4.1) as a task."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
from jax.tree_util import Partial
from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.data.records import read_info
from vgen_jax.files.exports import export
from vgen_jax.learning.slow import Task
from vgen_jax.nn.pixels import to_unit
from vgen_jax.objectives.noisy_actions import noisy_actions
from vgen_jax.tasks.adapter import check_windows, world_config
from vgen_jax.tasks.inputs import Batches, Finish, batches_config
from vgen_jax.types import Array, Key, Params
from vgen_jax.worlds.avid import ClassifierConfig, classifier_network


def classifier_task(config: ConfigDict) -> tuple[Task, Finish]:
    """Trains the action classifier of noisy frames."""
    data = batches_config(config)
    info = read_info(data.data_dir)
    world = world_config(config, info, data.data_dir)
    check_windows(config, world)
    settings = section(ClassifierConfig, config.classifier.to_dict(), "classifier")
    network = classifier_network(settings, world)

    def classify(params: Params, x_t_BTHWC: Array, t_B: Array, past_BTHWC: Array) -> Array:
        return network.apply({"params": params}, x_t_BTHWC, t_B, past_BTHWC)  # type: ignore[return-value]

    def init(rng: Key) -> Params:
        frame = jnp.zeros((1, 1, *info.frame_shape))
        return network.init(rng, frame, jnp.zeros((1,), jnp.int32), frame)["params"]

    def finish(params: Params, folder: Path) -> None:
        export(folder, params, {"classifier": dataclasses.asdict(settings), "world": dataclasses.asdict(world)})

    objective = noisy_actions(classify, Partial(to_unit), world.past, world.schedule)
    return Task(init, objective, Batches(data)), finish
