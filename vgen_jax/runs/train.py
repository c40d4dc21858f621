"""Run ``train``: any objective, through the one loop; ends in an export that other runs load.

``config.objective.kind`` chooses what is trained: ``autoencoder``, ``masked_diffusion``, ``continued``, ``finetune``,
``place``, ``action``, ``adapter``, ``black_box`` or ``noisy_actions``.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.tasks.registry import TASKS
from vgen_jax.tasks.training import train_task
from vgen_jax.types import VgenError


def run(config: ConfigDict, workdir: Path) -> None:
    """Trains, shows a progress bar, and exports the moving average of the parameters."""
    if config.objective.kind not in TASKS:
        raise VgenError(f"config key objective.kind is '{config.objective.kind}': use one of {', '.join(TASKS)}")
    task, finish = TASKS[config.objective.kind](config)
    train_task(config, workdir, task, finish)
