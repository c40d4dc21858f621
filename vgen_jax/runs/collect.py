"""Run ``collect``: records episodes of a simulator, the ``train`` and ``validation`` splits one after the other.

Keys:
    frames.*: frames of that split.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.files.run_folder import keep_config
from vgen_jax.simulators.collect import CollectConfig, collect

SECTIONS: Sections = {"collect": CollectConfig}


def run(config: ConfigDict, workdir: Path) -> None:
    """Collects ``config.frames[split]`` frames of every split into the work directory; continues an interrupted one."""
    shared = config.collect.to_dict()
    keep_config(config, workdir)
    for split, frames in config.frames.items():
        collect(workdir, section(CollectConfig, {**shared, "split": split, "frames": frames}, "collect"))
