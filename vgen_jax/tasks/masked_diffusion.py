"""Slow learning (SlowFast-VGen §3.1.1) as a task: a slow model from nothing, on frames or on stored latents."""

import dataclasses
import functools
import shutil
from pathlib import Path

from jax.tree_util import Partial
from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.data.records import INFO_FILE, read_info
from vgen_jax.data.schema import DatasetInfo
from vgen_jax.files.exports import DATASET_FILE, export
from vgen_jax.learning.slow import Task
from vgen_jax.objectives import masked_diffusion as diffusion_objective
from vgen_jax.tasks.inputs import Batches, Finish, batches_config, latents_folder
from vgen_jax.types import Params, VgenError
from vgen_jax.worlds.autoencoder import load_autoencoder
from vgen_jax.worlds.slow import action_width, start_warp
from vgen_jax.worlds.slow_networks import SlowConfig, denoiser


def diffusion_task(config: ConfigDict) -> tuple[Task, Finish]:
    """Slow learning (SlowFast-VGen §3.1.1) on frames, through a frozen autoencoder, or on stored latents."""
    data = batches_config(config)
    info = read_info(data.data_dir)
    autoencoder_folder = latents_folder(Path(config.autoencoder_dir), info, data.data_dir)
    autoencoder = load_autoencoder(autoencoder_folder)
    slow = slow_config(config, info, autoencoder.channels)
    to_latents = autoencoder.encode if info.content == "frames" else Partial(lambda latents: latents)
    networks = denoiser(slow)
    loss = section(diffusion_objective.DiffusionLoss, config.objective.loss, "objective.loss")
    objective = diffusion_objective.masked_diffusion(
        networks.embed, networks.predict, to_latents, slow.schedule, slow.masking, loss
    )

    def finish(params: Params, folder: Path) -> None:
        raw = {"slow": dataclasses.asdict(slow), "windows": data.windows}
        export(folder, params, raw)
        shutil.copyfile(Path(data.data_dir) / INFO_FILE, folder / DATASET_FILE)
        shutil.copytree(autoencoder_folder, folder / "autoencoder", dirs_exist_ok=True)

    start = functools.partial(start_warp, slow, autoencoder) if slow.warp.width else None
    return Task(networks.init, objective, Batches(data), start), finish


def slow_config(config: ConfigDict, info: DatasetInfo, channels: int) -> SlowConfig:
    """The definition of the slow model; what the data and the autoencoder determine is filled in from them."""
    longest, tokens = config.slow.text.max_length, config.data.token_length
    if config.slow.text.width and not 0 < tokens <= longest:
        raise VgenError(
            f"config key data.token_length is {tokens}: use 1 to {longest} (slow.text.max_length), or slow.text.width 0"
        )
    values = {
        **config.slow.to_dict(),
        "kind": config.objective.loss.kind,
        "actions": config.data.action,
        "action_dim": action_width(info, config.data.action),
        "latent_channels": channels,
    }
    return section(SlowConfig, values, "slow")
