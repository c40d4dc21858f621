"""SVG-LP, VG-LeAP and Causal-LeAP as a task (``objectives.variational``), by ``config.objective.kind``."""

import dataclasses
import shutil
from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.data.batches import BatchesConfig
from vgen_jax.data.records import INFO_FILE, read_info
from vgen_jax.data.schema import DatasetInfo
from vgen_jax.files.exports import DATASET_FILE, export
from vgen_jax.learning.slow import Task
from vgen_jax.models.svg_lp import SvgConfig
from vgen_jax.objectives.variational import MODELS, VariationalLoss, variational
from vgen_jax.tasks.inputs import Batches, Finish, batches_config
from vgen_jax.types import Params, VgenError
from vgen_jax.worlds.leap import LEAP
from vgen_jax.worlds.leap_networks import LeapConfig, LeapNetworks
from vgen_jax.worlds.slow import action_width

SECTIONS: Sections = {"leap": SvgConfig, "objective.loss": VariationalLoss, "data": BatchesConfig}


def leap_task(config: ConfigDict) -> tuple[Task, Finish]:
    """Trains on windows of recorded frames; the export says what data the model knows.

    Raises:
        VgenError: for latents, frames of another size, or windows with contexts of different lengths.
    """
    data = batches_config(config)
    info = read_info(data.data_dir)
    past = context_frames(data)
    leap = leap_config(config, info, data)
    networks = LeapNetworks(leap)
    loss = section(VariationalLoss, config.objective.loss, "objective.loss")
    objective = variational(networks.functions, leap.sees, past, loss)

    def finish(params: Params, folder: Path) -> None:
        export(folder, params, {LEAP: dataclasses.asdict(leap), "past": past})
        shutil.copyfile(Path(data.data_dir) / INFO_FILE, folder / DATASET_FILE)

    return Task(networks.init, objective, Batches(data)), finish


def leap_config(config: ConfigDict, info: DatasetInfo, data: BatchesConfig) -> LeapConfig:
    """The definition of the model; what the data determine is filled in from them."""
    shape = section(SvgConfig, config.leap.to_dict(), "leap")
    if info.content != "frames" or info.frame_shape != (shape.size, shape.size, 3):
        held = "x".join(str(n) for n in info.frame_shape[:2])
        raise VgenError(
            f"{data.data_dir} holds {info.content} of {held}, but leap.size is {shape.size}: use frames of that size"
        )
    actions = "continuous" if MODELS[config.objective.kind].action else "none"
    if actions != "none" and data.action != actions:
        raise VgenError(f"config key data.action is '{data.action}': {config.objective.kind} needs '{actions}'")
    return LeapConfig(config.objective.kind, shape, actions, action_width(info, actions))


def context_frames(data: BatchesConfig) -> int:
    """f_p of the windows.

    Raises:
        VgenError: if they differ.
    """
    past = {f_p for f_p, _ in data.windows}
    if len(past) > 1:
        raise VgenError(f"config key data.windows is {data.windows}: all of them have to open with as many frames")
    return past.pop()
