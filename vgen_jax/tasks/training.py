"""A task through the one loop, by the sections of a config; ends in an export."""

from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.black_box.ask import Ask
from vgen_jax.config import Sections, section
from vgen_jax.devices.sharding import MeshConfig, gathered, make_mesh
from vgen_jax.files.log import is_main_process
from vgen_jax.files.progress import progress
from vgen_jax.files.run_folder import keep_config, resolved
from vgen_jax.learning.slow import Task, TrainConfig, train
from vgen_jax.learning.state import OptimizerConfig, learnt
from vgen_jax.tasks.black_box import black_box_task
from vgen_jax.tasks.inputs import Finish

SECTIONS: Sections = {"train": TrainConfig, "optimizer": OptimizerConfig, "mesh": MeshConfig}


def train_over(ask: Ask, config: ConfigDict, workdir: Path) -> None:
    """Trains AVID's adapter over a black box of one's own; ``config`` as in ``configs/avid/black_box.py``."""
    config = resolved(config, workdir.absolute())
    train_task(config, workdir, *black_box_task(config, ask))


def train_task(config: ConfigDict, workdir: Path, task: Task, finish: Finish) -> None:
    """Trains a task by the sections ``train``, ``optimizer`` and ``mesh`` of the config."""
    train_config = section(TrainConfig, config.train, "train")
    optimizer = section(OptimizerConfig, config.optimizer, "optimizer")
    mesh = section(MeshConfig, config.mesh, "mesh")
    if is_main_process():
        keep_config(config, workdir)
        print(config, flush=True)
    with progress(total=train_config.steps, desc=f"train {workdir.name}", unit="step") as bar:

        def report(step: int, metrics: Mapping[str, float]) -> None:
            bar.update(step - bar.n)
            bar.set_postfix({k: f"{v:.4g}" for k, v in metrics.items()}, refresh=False)

        state = train(task, train_config, optimizer, mesh, workdir, report)
    params = gathered(learnt(state), make_mesh(mesh))
    if is_main_process():
        finish(params, workdir / "export")
