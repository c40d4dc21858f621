"""Slow learning that goes on from an exported slow model, on data with its actions and frame size: a task of ``train``.

The export defines the network, its noise schedule and its masking; only data, loss and optimiser are the config's.
"""

import dataclasses
import shutil
from pathlib import Path

from jax.tree_util import Partial
from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.data.records import INFO_FILE, read_info
from vgen_jax.files.exports import DATASET_FILE, export
from vgen_jax.learning.slow import Task
from vgen_jax.objectives.masked_diffusion import DiffusionLoss, masked_diffusion
from vgen_jax.tasks.inputs import Batches, Finish, batches_config, latents_folder
from vgen_jax.types import Params, VgenError
from vgen_jax.worlds.slow import action_width, load_slow_model


def warm_start_task(config: ConfigDict) -> tuple[Task, Finish]:
    """The task and what makes an export of its result; ``config.model_dir`` names the model to begin with.

    Raises:
        VgenError: if the data have other actions, texts or latents than the model.
    """
    data, folder = batches_config(config), Path(config.model_dir)
    info, model = read_info(data.data_dir), load_slow_model(folder)
    slow = model.config
    longest = slow.text.max_length if slow.text.width else 0
    told = {
        "data.action": (data.action, slow.actions),
        "data.token_length": (data.token_length, longest),
        "the width of an action": (action_width(info, data.action), slow.action_dim),
    }
    for name, (have, want) in told.items():
        if have != want:
            raise VgenError(f"{name} is {have}, but the model in {folder} was trained with {want}: use that")
    latents_folder(model.autoencoder.folder, info, data.data_dir)
    to_latents = model.autoencoder.encode if info.content == "frames" else Partial(lambda latents: latents)
    loss = section(DiffusionLoss, config.objective.loss, "objective.loss")
    if loss.kind != slow.kind:
        raise VgenError(f"objective.loss.kind is {loss.kind}, but the model in {folder} predicts {slow.kind}: use that")
    objective = masked_diffusion(
        model.denoiser.embed, model.denoiser.predict, to_latents, slow.schedule, slow.masking, loss
    )

    def start(params: Params) -> Params:
        return model.params

    def finish(params: Params, out: Path) -> None:
        export(out, params, {"slow": dataclasses.asdict(slow), "windows": data.windows})
        shutil.copyfile(Path(data.data_dir) / INFO_FILE, out / DATASET_FILE)
        shutil.copytree(model.autoencoder.folder, out / "autoencoder", dirs_exist_ok=True)

    return Task(model.denoiser.init, objective, Batches(data), start), finish
