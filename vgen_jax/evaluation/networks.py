"""The networks that score videos: those of published checkpoints, and those that were trained here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from vgen_jax.convert import feature_nets
from vgen_jax.data.motion import MOTION, MOTION_SPACE
from vgen_jax.evaluation.action_predictor import (
    ActionReader,
    distance_net,
    frames_net,
    load_action_reader,
    perceptual_net,
    steps_net,
)
from vgen_jax.evaluation.place_encoder import load_place_export
from vgen_jax.evaluation.scoring import FD_ACTION, FD_FRAMES, LPIPS_ACTION, OF_ACTIONS, OF_PLACES, RATIO, ActionTest
from vgen_jax.files.exports import digest
from vgen_jax.metrics.features import FeatureNet
from vgen_jax.nn.pixels import to_unit
from vgen_jax.types import Array, Params, VgenError

OF_FEATURES = {FD_ACTION: distance_net, FD_FRAMES: frames_net, LPIPS_ACTION: perceptual_net}


class Nets(NamedTuple):
    """What scores need.

    Attributes:
        features: by metric.
        reader: of actions; ``None`` where no metric needs one.
    """

    features: dict[str, FeatureNet]
    reader: ActionReader | None

    def with_steps(self, frames: int) -> dict[str, FeatureNet]:
        """``features``, and the network of the action error ratio for clips of that many frames."""
        if self.reader is None:
            return self.features
        return {**self.features, f"{RATIO}{self.reader.source}": steps_net(self.reader, frames)}

    @property
    def reads(self) -> str:
        """What the reader reads: ``motion``, or the kind of its actions; ``any`` where there is none."""
        if self.reader is None:
            return "any"
        return MOTION if self.reader.space == MOTION_SPACE else self.reader.space.kind

    @property
    def test(self) -> ActionTest | None:
        """How the reader's actions are compared."""
        return None if self.reader is None else ActionTest(self.reader.space.kind, self.reader.wanted)


def load_nets(metrics: Sequence[str], config: ConfigDict) -> Nets:
    """The networks of the metrics, from ``config.weights_dir``, ``config.place_dir`` and ``config.action_dir``.

    Raises:
        VgenError: one is missing, damaged, or knows other data than a metric is named after.
    """
    found = {
        name: feature_nets.feature_net(name, config.weights_dir) for name in metrics if name in feature_nets.ORIGINALS
    }
    found |= {name: place_net(config.place_dir, name) for name in metrics if name.startswith(OF_PLACES)}
    of_actions = [name for name in metrics if name.startswith(OF_ACTIONS)]
    if not of_actions:
        return Nets(found, None)
    if not config.action_dir:
        raise VgenError(f"{of_actions[0]} needs an action predictor: give --config.action_dir=FOLDER, an export of one")
    reader = load_action_reader(Path(config.action_dir))
    if wrong := [name for name in of_actions if name not in {f"{prefix}{reader.source}" for prefix in OF_ACTIONS}]:
        prefix = next(prefix for prefix in OF_ACTIONS if wrong[0].startswith(prefix))
        raise VgenError(
            f"{config.action_dir} holds an action predictor of {reader.source}, which {wrong[0]} is not named after: "
            f"ask for {prefix}{reader.source}, or give another one"
        )
    for prefix, make in OF_FEATURES.items():
        if f"{prefix}{reader.source}" in of_actions:
            found[f"{prefix}{reader.source}"] = make(reader)
    return Nets(found, reader if any(name.startswith(RATIO) for name in of_actions) else None)


def place_net(folder: str, metric: str) -> FeatureNet:
    """The place encoder of an export folder (see ``models.place``) as the network of a metric of ``scoring.OF_PLACES``.

    Raises:
        VgenError: no folder, one of another network, or an encoder of other places.
    """
    if not folder:
        raise VgenError(f"{metric} needs a place encoder: give --config.place_dir=FOLDER, an export of one")
    name, encoder, params = load_place_export(Path(folder))
    wanted = metric.partition("_")[2]  # fd_place_vizdoom, src_place_vizdoom: of place_vizdoom
    if name != wanted:
        raise VgenError(f"{folder} holds no {wanted}, the encoder that {metric} is named after: give another one")

    def apply(params: Params, frames: Array) -> Array:
        code: Any = encoder.apply({"params": params}, to_unit(frames))
        return code[0]

    described = {"weights": "model.safetensors", "sha256": digest(Path(folder)), "input": "own resolution, [-1, 1]"}
    return FeatureNet(metric, "frame", encoder.width, apply, params, described)
