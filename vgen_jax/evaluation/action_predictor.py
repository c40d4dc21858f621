"""A trained action predictor, from its export, and the networks of metrics that it gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vgen_jax.config import section
from vgen_jax.data.schema import ActionSpace
from vgen_jax.evaluation.scoring import FD_ACTION, FD_FRAMES, LPIPS_ACTION, RATIO
from vgen_jax.files.exports import check_matches, digest, load_export
from vgen_jax.metrics.features import FeatureNet
from vgen_jax.metrics.lpips import unweighted_distance
from vgen_jax.models.action_nets import ActionConfig, ActionPredictor, predictor_network, still_maps
from vgen_jax.nn.pixels import to_unit
from vgen_jax.objectives.action import ActionTarget, normalised
from vgen_jax.types import Array, Params, VgenError


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
    space = section(ActionSpace, raw["space"], "space")
    target = section(ActionTarget, raw["target"], "target")
    network = predictor_network(section(ActionConfig, raw["action"], "action"), space.width)
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
