"""Run ``export``: the newest checkpoint of an unfinished training as an export folder, which other runs load."""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.tasks.exports import export_newest


def run(config: ConfigDict, workdir: Path) -> None:
    """Takes a training's config and work directory, with ``--config.run=export``."""
    step = export_newest(config, workdir, workdir / "export")
    print(f"exported step {step} to {workdir / 'export'}", flush=True)
