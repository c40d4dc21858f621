"""The export of a training, finished or not."""

import json
from pathlib import Path

import jax
from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.devices import sharding
from vgen_jax.files.exports import EXPORT_CONFIG, EXPORT_WEIGHTS
from vgen_jax.files.run_folder import CHECKPOINTS, CONFIG_FILE
from vgen_jax.learning.checkpoint import Checkpoints
from vgen_jax.learning.slow import TrainConfig, abstract_state
from vgen_jax.learning.state import OptimizerConfig, learnt, make_optimizer
from vgen_jax.tasks.registry import TASKS
from vgen_jax.types import VgenError
from vgen_jax.worlds import pretrained


def model_folder(folder: str, workdir: Path) -> Path:
    """The export of a model: itself, that of a training, or the newest checkpoint's, written to ``workdir/model``.

    Raises:
        VgenError: a training that has left no checkpoint, or a folder that is no model's.
    """
    path = Path(folder)
    if (path / EXPORT_WEIGHTS).is_file() or pretrained.is_pretrained(path):
        return path
    if (path / "export" / EXPORT_WEIGHTS).is_file():
        return path / "export"
    if not (path / CHECKPOINTS).is_dir() or not (path / CONFIG_FILE).is_file():
        lacks = next(name for name in (EXPORT_CONFIG, EXPORT_WEIGHTS) if not (path / name).is_file())
        raise VgenError(
            f"{path / lacks} is missing, so {folder} is no model: give an export, or the work directory of a training"
        )
    target = workdir / "model"
    if jax.process_count() > 1:
        raise VgenError(
            f"{folder} has no export yet, which several processes cannot write: run it with run=export first"
        )
    if not (target / EXPORT_CONFIG).is_file():
        export_newest(ConfigDict(json.loads((path / CONFIG_FILE).read_text())), path, target)
    return target


def export_newest(config: ConfigDict, workdir: Path, folder: Path) -> int:
    """Writes the newest checkpoint of a training to ``folder`` and returns its step.

    Args:
        config: of the training.
        workdir: of the training.

    Raises:
        VgenError: it has none.
    """
    task, finish = TASKS[config.objective.kind](config)
    checkpoints = Checkpoints(workdir / "checkpoints")
    if checkpoints.latest_step() is None:
        raise VgenError(f"{workdir / 'checkpoints'} has no checkpoint: train for longer first")
    mesh_config = section(sharding.MeshConfig, config.mesh, "mesh")
    optimizer = make_optimizer(section(OptimizerConfig, config.optimizer, "optimizer"))
    train_config = section(TrainConfig, config.train, "train")
    mesh = sharding.make_mesh(mesh_config)
    _, abstract, _ = abstract_state(task, optimizer, mesh, mesh_config, train_config.seed)
    state, _ = checkpoints.restore(abstract)
    checkpoints.close()
    finish(sharding.gathered(learnt(state), mesh), folder)
    return int(state.step)
