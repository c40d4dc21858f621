"""Run ``estimate``: time, memory and disk of a training on this machine, from three of its steps.

Any config of the run ``train``, with ``--config.run=estimate`` and the work directory that the training will have.

Keys:
    objective.kind: what is trained; the sections that go with it are its task's (``tasks``).
"""

import json
from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.bench.estimate import as_results, estimate, lines
from vgen_jax.config import section
from vgen_jax.devices.sharding import MeshConfig
from vgen_jax.learning.slow import TrainConfig
from vgen_jax.learning.state import OptimizerConfig
from vgen_jax.tasks import training
from vgen_jax.tasks.registry import task_of

ESTIMATE_FILE = "estimate.json"

SECTIONS = training.SECTIONS


def run(config: ConfigDict, workdir: Path) -> None:
    """Prints the estimate and writes ``estimate.json``; leaves the work directory free for the training."""
    task, _ = task_of(config.objective.kind)(config)
    found = estimate(
        task, section(TrainConfig, config.train, "train"), section(OptimizerConfig, config.optimizer, "optimizer"),
        section(MeshConfig, config.mesh, "mesh"), workdir,
    )  # fmt: skip
    (workdir / ESTIMATE_FILE).write_text(json.dumps(as_results(found), indent=2) + "\n")
    print("\n".join(lines(found)), flush=True)
