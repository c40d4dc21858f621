"""The KL autoencoder as a task."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.data.batches import BatchesConfig, make_iterator
from vgen_jax.data.records import read_info
from vgen_jax.files.exports import export
from vgen_jax.learning.slow import Task
from vgen_jax.models.autoencoder_kl import principal_path
from vgen_jax.nn.pixels import to_unit
from vgen_jax.objectives import autoencoder as autoencoder_objective
from vgen_jax.tasks.inputs import Batches, Finish, batches_config
from vgen_jax.types import Array, Key, Params, VgenError
from vgen_jax.worlds.autoencoder import AutoencoderConfig, autoencoder_network

SAMPLE_BATCHES = 32

SECTIONS: Sections = {"autoencoder": AutoencoderConfig, "data": BatchesConfig}


def autoencoder_task(config: ConfigDict) -> tuple[Task, Finish]:
    """Trains the KL autoencoder; its export carries the scale that gives latents unit variance."""
    shape = section(AutoencoderConfig, config.autoencoder, "autoencoder")
    network = autoencoder_network(shape)
    data = batches_config(config)
    if read_info(data.data_dir).content != "frames":
        raise VgenError(f"{data.data_dir} holds latents: an autoencoder is trained on frames")

    def reconstruct(params: Params, x: Array, rng: Key) -> Any:
        return network.apply({"params": params}, x, rng)

    def init(rng: Key) -> Params:
        return network.init(rng, np.zeros((1, network.factor, network.factor, 3), np.float32))["params"]

    def finish(params: Params, folder: Path) -> None:
        encode = jax.jit(lambda params, x: network.apply({"params": params}, x, method="encode")[0])
        scale = latent_scale(partial(encode, params), data)
        export(folder, params, {"autoencoder": dataclasses.asdict(shape), "scale": scale})

    def start(params: Params) -> Params:
        return {**params, **principal_path(sample_frames(data), network.factor, network.latent_channels)}

    objective = autoencoder_objective.autoencoder(reconstruct, shape.kl_weight)
    return Task(init, objective, Batches(data), start if network.linear_path else None), finish


def sample_frames(data: BatchesConfig) -> np.ndarray:
    """The frames of the first batches of the training data, (F, H, W, 3) in [-1, 1]; the same on every process."""
    batches = make_iterator(data, 0, 1)
    video = np.concatenate([next(batches)["video"] for _ in range(SAMPLE_BATCHES)])
    return np.asarray(to_unit(video.reshape(-1, *video.shape[2:])))


def latent_scale(encode: Callable[[np.ndarray], Array], data: BatchesConfig) -> float:
    """1 / standard deviation of the latents ``encode(frames in [-1, 1])`` of the first batches of the training data."""
    frames = sample_frames(data)
    means = [np.asarray(encode(part)) for part in np.array_split(frames, SAMPLE_BATCHES)]
    return float(1.0 / np.std(np.concatenate([m.reshape(-1) for m in means])))
