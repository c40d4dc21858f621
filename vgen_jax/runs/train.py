"""Run ``train``: any objective, through the one loop; ends in an export that other runs load.

``config.objective.kind`` chooses what is trained: ``autoencoder``, ``masked_diffusion``, ``continued``, ``finetune``,
``place``, ``action``, ``adapter``, ``black_box``, ``noisy_actions``, ``svg_lp``, ``vg_leap``, ``causal_leap``,
``river``, ``rafi`` or ``vqgan``.

Keys:
    objective.kind: what is trained; the sections that go with it are its task's (``tasks``).
"""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.tasks import training
from vgen_jax.tasks.registry import task_of
from vgen_jax.tasks.training import train_task

SECTIONS = training.SECTIONS


def run(config: ConfigDict, workdir: Path) -> None:
    """Trains, shows a progress bar, and exports the moving average of the parameters."""
    task, finish = task_of(config.objective.kind)(config)
    train_task(config, workdir, task, finish)
