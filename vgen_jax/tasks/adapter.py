"""AVID's trainings as one task: base, adapters and baselines; also what its other tasks share with it.

``config.world`` is what all of them share (``worlds.avid_networks.WorldConfig``, without what the data say),
``config.method`` what is trained. ``base_dir`` names the base that adapters stand on, ``start_dir`` the model that
fine-tuning begins with; empty where there is none. No export holds anything of a base but its digest.

A latent UNet (``worlds.avid_networks.LatentConfig``) is trained on latents that the run ``encode`` wrote, a pixel UNet
on frames.
"""

import dataclasses
from pathlib import Path

from jax.tree_util import Partial
from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.data.records import read_info
from vgen_jax.data.schema import DatasetInfo
from vgen_jax.files.exports import export
from vgen_jax.learning.slow import Task
from vgen_jax.nn.pixels import to_unit
from vgen_jax.objectives.adapter import AdapterLoss, adapter
from vgen_jax.tasks.inputs import Batches, Finish, batches_config
from vgen_jax.types import Array, Params, VgenError
from vgen_jax.worlds.avid import MethodConfig, load_base, method_of
from vgen_jax.worlds.avid_networks import LatentConfig, WorldConfig
from vgen_jax.worlds.slow import action_width


def world_config(config: ConfigDict, info: DatasetInfo, folder: str, latent: bool = False) -> WorldConfig:
    """The world, with the width of its actions, its channels and its autoencoder from the data.

    Args:
        latent: whether the network denoises latents.

    Raises:
        VgenError: data of another kind.
    """
    if latent and info.content != "latents":
        raise VgenError(
            f"{folder} holds frames, a latent UNet is trained on latents: make them with the run encode "
            "(--config=configs/avid/rt1.py:VARIANT.latents) and give its folder as data.data_dir"
        )
    if not latent and info.content != "frames":
        raise VgenError(f"{folder} holds latents: pixel models are trained on frames")
    values = {
        **config.world.to_dict(),
        "action_dim": action_width(info, config.world.actions),
        "channels": info.frame_shape[-1],
        "autoencoder": info.latents["digest"] if info.latents else "",
    }
    return section(WorldConfig, values, "world")


def to_model(world: WorldConfig) -> Partial:
    """What makes a batch's video what the world's models denoise: frames in [-1, 1], or the latents as they are."""
    return Partial(_same) if world.autoencoder else Partial(to_unit)


def _same(latents: Array) -> Array:
    return latents


def check_windows(config: ConfigDict, world: WorldConfig) -> None:
    """Raises VgenError for windows that do not open with ``world.past`` frames."""
    if any(past != world.past for past, _ in config.data.windows):
        raise VgenError(
            f"config key data.windows is {config.data.windows}: every window opens with world.past {world.past} frames"
        )


def adapter_task(config: ConfigDict) -> tuple[Task, Finish]:
    """Trains a base, an adapter or a baseline with the denoising loss."""
    data = batches_config(config)
    settings = section(MethodConfig, config.method.to_dict(), "method")
    latent = isinstance(settings.unet, LatentConfig)
    world = world_config(config, read_info(data.data_dir), data.data_dir, latent)
    check_windows(config, world)
    loss = section(AdapterLoss, config.objective.loss, "objective.loss")
    base = load_base(Path(config.base_dir)) if config.base_dir else None
    start = load_base(Path(config.start_dir)) if config.start_dir else None
    method = method_of(settings, world, base, start)
    objective = adapter(method.predict, to_model(world), world.past, world.schedule, loss)

    def finish(params: Params, folder: Path) -> None:
        described = {"method": dataclasses.asdict(settings), "world": dataclasses.asdict(world)}
        export(folder, params, {**described, "base_sha256": base.sha256 if base else ""})

    return Task(method.init, objective, Batches(data), method.start), finish
