"""The action predictor as a task of ``train``, and as its export is read again."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from ml_collections import ConfigDict

from vgen_jax import build
from vgen_jax.checkpoint import check_matches, digest, export, load_export
from vgen_jax.data.motion import actions_of, space_of
from vgen_jax.data.pipeline import PipelineConfig
from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.schema import ActionSpace
from vgen_jax.learning.slow import Task
from vgen_jax.metrics.features import FeatureNet
from vgen_jax.metrics.lpips import unweighted_distance
from vgen_jax.models.action_nets import ActionPredictor, still_maps
from vgen_jax.models.place import GRID
from vgen_jax.objectives.action import ActionTarget, action, normalised
from vgen_jax.objectives.autoencoder import to_unit
from vgen_jax.runs.inputs import Batches, Finish, pipeline_config
from vgen_jax.scoring import FD_ACTION, FD_FRAMES, LPIPS_ACTION, RATIO
from vgen_jax.sections import later
from vgen_jax.types import Array, Key, Params, VgenError


@dataclasses.dataclass(frozen=True)
class ActionConfig:
    """The predictor's shape, see ``models.action_nets``."""

    level_channels: tuple[int, ...]
    blocks_per_level: int
    width: int
    mixers: int
    norm_groups: int
    dtype: str
    grid: int = later(GRID)


class ActionReader(NamedTuple):
    """A trained action predictor.

    Attributes:
        source: the data that it knows, ``vizdoom``; its metrics are named after it.
        space: the actions it predicts.
        target: how they are written.
        network: see ``models.action_nets``.
        params: its parameters.
        contract: what has to be the same for two results to be comparable.
    """

    source: str
    space: ActionSpace
    target: ActionTarget
    network: ActionPredictor
    params: Params
    contract: dict[str, str]

    def wanted(self, raw: np.ndarray) -> np.ndarray:
        """Recorded actions, (T, A) raw units or (T,) ids, as the predictor writes them: float32 (T, A).

        Raises:
            VgenError: actions of another space.
        """
        fits = raw.ndim == (2 if self.space.kind == "continuous" else 1)
        if not fits or (raw.ndim == 2 and raw.shape[1] != self.space.width):
            raise VgenError(
                f"actions of shape {raw.shape} are not the {self.space.kind} ones ({', '.join(self.space.names)}) that "
                "the action predictor knows: give those, or another predictor"
            )
        return np.asarray(normalised(self.space.to_model(raw), self.target), np.float32)


def predictor_network(config: ActionConfig, outputs: int) -> ActionPredictor:
    """The network."""
    return ActionPredictor(outputs, **{**dataclasses.asdict(config), "dtype": build.dtype_of(config.dtype)})


def action_target(data: PipelineConfig) -> tuple[ActionSpace, ActionTarget]:
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


def action_task(config: ConfigDict) -> tuple[Task, Finish]:
    """Trains an action predictor on windows of recorded frames; its export says what data and actions it knows."""
    shape = build.section(ActionConfig, config.action, "action")
    data = pipeline_config(config)
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


def load_action_reader(folder: Path) -> ActionReader:
    """An action predictor from an export folder.

    Raises:
        VgenError: if a file is missing or does not fit.
    """
    params, raw = load_export(folder)
    if not {"action", "space", "target", "name"} <= raw.keys():
        raise VgenError(
            f"{folder / 'config.json'} is of no action predictor: train one with configs/eval/action_predictor.py"
        )
    space = build.section(ActionSpace, raw["space"], "space")
    target = build.section(ActionTarget, raw["target"], "target")
    network = predictor_network(build.section(ActionConfig, raw["action"], "action"), space.width)
    clip = jax.ShapeDtypeStruct((1, 2, network.factor, network.factor, 3), jnp.float32)
    check_matches(params, jax.eval_shape(network.init, jax.random.key(0), clip)["params"], folder)
    described = {
        "weights": "model.safetensors", "sha256": digest(folder), "input": "own resolution, [-1, 1]",
        "actions": f"{space.kind}: {', '.join(space.names)}",
    }  # fmt: skip
    return ActionReader(str(raw["name"]).removeprefix("action_"), space, target, network, params, described)


def _of_clips(reader: ActionReader, which: int) -> Callable[[Params, Array], Array]:
    def apply(params: Params, clips_BTHWC: Array) -> Array:
        found: Any = reader.network.apply({"params": params}, to_unit(clips_BTHWC))
        return found[which]

    return apply


def distance_net(reader: ActionReader) -> FeatureNet:
    """The predictor's features, averaged over a clip's steps, as the network of ``fd_action_<source>``."""
    features = _of_clips(reader, 1)
    name = f"{FD_ACTION}{reader.source}"
    contract = {**reader.contract, "features": "mean over a clip's steps"}
    return FeatureNet(name, "clip", reader.network.width, lambda p, x: features(p, x).mean(1), reader.params, contract)


def frames_net(reader: ActionReader) -> FeatureNet:
    """Averages of what the predictor sees in a frame, over each level's map: the network of ``fd_frames_<source>``."""

    def apply(params: Params, frames_BHWC: Array) -> Array:
        maps = still_maps(reader.network, params, to_unit(frames_BHWC))
        return jnp.concatenate([x.mean((1, 2)) for x in maps], axis=-1)

    contract = {**reader.contract, "features": "means of each level, of single frames"}
    name, width = f"{FD_FRAMES}{reader.source}", sum(reader.network.level_channels)
    return FeatureNet(name, "frame", width, apply, reader.params, contract)


def perceptual_net(reader: ActionReader) -> FeatureNet:
    """The distance of two frames in what the predictor sees, as the network of ``lpips_action_<source>``."""

    def apply(params: Params, pairs_BPHWC: Array) -> Array:
        frames = pairs_BPHWC.reshape(-1, *pairs_BPHWC.shape[2:])
        return unweighted_distance(still_maps(reader.network, params, to_unit(frames)))

    contract = {**reader.contract, "features": "maps of each level, of single frames, without learned weights"}
    return FeatureNet(f"{LPIPS_ACTION}{reader.source}", "pair", 1, apply, reader.params, contract)


def steps_net(reader: ActionReader, frames: int) -> FeatureNet:
    """The predictor's logits or values of all steps of a clip of ``frames`` frames, flat, for ``metrics.features``."""
    predict, width = _of_clips(reader, 0), (frames - 1) * reader.space.width
    name = f"{RATIO}{reader.source}"
    return FeatureNet(
        name, "clip", width, lambda p, x: predict(p, x).reshape(len(x), -1), reader.params, reader.contract
    )
