"""Run ``collect``: records episodes of a simulator, the ``train`` and ``validation`` splits one after the other."""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.data.sims.collect import CollectConfig, collect
from vgen_jax.runs.folder import keep_config
from vgen_jax.sections import section


def run(config: ConfigDict, workdir: Path) -> None:
    """Collects ``config.frames[split]`` frames of every split into the work directory; continues an interrupted one."""
    shared = config.collect.to_dict()
    keep_config(config, workdir)
    for split, frames in config.frames.items():
        collect(workdir, section(CollectConfig, {**shared, "split": split, "frames": frames}, "collect"))
