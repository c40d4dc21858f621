"""RIVER and RAFI as a task (``objectives.flow_matching``), by ``config.objective.kind``; on frames or stored latents.

Keys:
    autoencoder_dir: the export of the autoencoder; for latents the one that made them.
"""

import dataclasses
import shutil
from pathlib import Path

from jax.tree_util import Partial
from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.data.batches import BatchesConfig
from vgen_jax.data.records import INFO_FILE, read_info
from vgen_jax.files.exports import DATASET_FILE
from vgen_jax.learning.slow import Task
from vgen_jax.models.uvit import UViTConfig
from vgen_jax.objectives.flow_matching import FlowLoss, flow_matching
from vgen_jax.tasks.inputs import Batches, Finish, batches_config, latents_folder
from vgen_jax.tasks.leap import context_frames
from vgen_jax.tasks.slow import write_model
from vgen_jax.types import Array, Params, VgenError
from vgen_jax.worlds.autoencoder import load_autoencoder
from vgen_jax.worlds.rafi import RAFI, RafiConfig
from vgen_jax.worlds.slow import action_width

KINDS = {"river": "none", "rafi": "continuous"}  # the actions on the states' further channels


@dataclasses.dataclass(frozen=True)
class FlowModelConfig:
    """What is trained.

    Attributes:
        uvit: the network's shape.
        horizon: states that a rollout carries.
    """

    uvit: UViTConfig
    horizon: int


SECTIONS: Sections = {"rafi": FlowModelConfig, "objective.loss": FlowLoss, "data": BatchesConfig}


def rafi_task(config: ConfigDict) -> tuple[Task, Finish]:
    """Trains the velocity network; the export holds the autoencoder, and says what data the model knows.

    Raises:
        VgenError: if data and autoencoder do not fit each other, or the data have no actions for RAFI.
    """
    data = batches_config(config)
    info = read_info(data.data_dir)
    folder = latents_folder(Path(config.autoencoder_dir), info, data.data_dir)
    autoencoder = load_autoencoder(folder)
    actions, past = KINDS[config.objective.kind], context_frames(data)
    if actions != "none" and data.action != actions:
        raise VgenError(f"config key data.action is '{data.action}': {config.objective.kind} needs '{actions}'")
    height, width = info.frame_shape[:2]
    of_frames = info.content == "frames"
    latent = (height // autoencoder.factor, width // autoencoder.factor) if of_frames else (height, width)
    loss = section(FlowLoss, config.objective.loss, "objective.loss")
    shape = section(FlowModelConfig, config.rafi.to_dict(), "rafi")
    rafi = RafiConfig(
        shape.uvit, shape.horizon, loss.sigma, actions, action_width(info, actions), (*latent, autoencoder.channels)
    )  # fmt: skip
    to_latents = autoencoder.encode if of_frames else Partial(_same)
    objective = flow_matching(rafi.regress, to_latents, rafi.action_dim, loss)

    def finish(params: Params, target: Path) -> None:
        write_model(folder, params, {RAFI: dataclasses.asdict(rafi), "past": past}, target)
        shutil.copyfile(Path(data.data_dir) / INFO_FILE, target / DATASET_FILE)

    return Task(rafi.init, objective, Batches(data)), finish


def _same(latents: Array) -> Array:
    return latents
