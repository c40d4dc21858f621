"""Run ``export``: the newest checkpoint of an unfinished training as an export folder, which other runs load."""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.devices import sharding
from vgen_jax.learning.checkpoint import Checkpoints
from vgen_jax.learning.slow import TrainConfig, abstract_state
from vgen_jax.learning.state import OptimizerConfig, make_optimizer
from vgen_jax.runs.train import TASKS
from vgen_jax.types import VgenError


def run(config: ConfigDict, workdir: Path) -> None:
    """Takes a training's config and work directory, with ``--config.run=export``."""
    step = export_newest(config, workdir, workdir / "export")
    print(f"exported step {step} to {workdir / 'export'}", flush=True)


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
    finish(sharding.gathered(state.ema, mesh), folder)
    return int(state.step)
