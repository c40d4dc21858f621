"""The action predictor as a task (``objectives.action``); ``evaluation.action_predictor`` reads its export."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.data.batches import BatchesConfig
from vgen_jax.data.motion import actions_of, space_of
from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.schema import ActionSpace
from vgen_jax.files.exports import export
from vgen_jax.learning.slow import Task
from vgen_jax.models.action_nets import ActionConfig, predictor_network
from vgen_jax.objectives.action import ActionTarget, action
from vgen_jax.tasks.inputs import Batches, Finish, batches_config
from vgen_jax.types import Array, Key, Params, VgenError


def action_target(data: BatchesConfig) -> tuple[ActionSpace, ActionTarget]:
    """The actions of the training data, and their mean and deviation over all of it.

    A dimension that never changes has a deviation of 1: there is nothing to bring to unit variance.
    """
    source = EpisodeSource(data.data_dir, data.split)
    if data.action == "none":
        raise VgenError(
            "config key data.action is 'none': an action predictor is trained on continuous, discrete or motion"
        )
    space = space_of(source.info, data.action)
    if space.kind == "discrete":
        return space, ActionTarget("discrete", (), ())
    rows = [space.to_model(actions_of(source.head(n).tensors, data.action)) for n in range(len(source))]
    values = np.concatenate(rows).astype(np.float64)
    std = np.where((deviation := values.std(0)) > 0, deviation, 1.0)
    return space, ActionTarget("continuous", tuple(map(float, values.mean(0))), tuple(map(float, std)))


SECTIONS: Sections = {"action": ActionConfig, "data": BatchesConfig}


def action_task(config: ConfigDict) -> tuple[Task, Finish]:
    """Trains an action predictor on windows of recorded frames; its export says what data and actions it knows."""
    shape = section(ActionConfig, config.action, "action")
    data = batches_config(config)
    info = EpisodeSource(data.data_dir, data.split).info
    if info.content != "frames":
        raise VgenError(f"{data.data_dir} holds latents: an action predictor is trained on frames")
    space, target = action_target(data)
    network = predictor_network(shape, space.width)

    def predict(params: Params, frames: Array) -> Array:
        found: Any = network.apply({"params": params}, frames)
        return found[0]

    def init(rng: Key) -> Params:
        return network.init(rng, jnp.zeros((1, 2, network.factor, network.factor, 3)))["params"]

    def finish(params: Params, folder: Path) -> None:
        about = {
            "name": f"action_{info.source}",
            "action": dataclasses.asdict(shape),
            "space": dataclasses.asdict(space),
            "target": dataclasses.asdict(target),
        }
        export(folder, params, about)

    return Task(init, action(Partial(predict), target), Batches(data)), finish
