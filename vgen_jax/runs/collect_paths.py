"""Run ``collect_paths``: records scripted paths that leave a place and come back; all splits in one folder."""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.files.run_folder import keep_config
from vgen_jax.simulators.collect import CollectConfig, collect
from vgen_jax.simulators.paths import PathsConfig

SECTIONS: Sections = {"collect": CollectConfig, "splits.*": PathsConfig}


def run(config: ConfigDict, workdir: Path) -> None:
    """Collects every split of ``config.splits`` into the work directory; continues an interrupted collection."""
    keep_config(config, workdir)
    for split, values in config.splits.items():
        paths = section(PathsConfig, values.to_dict(), f"splits.{split}")
        amount = {"split": split, "episode_steps": paths.steps, "frames": paths.episodes * (paths.steps + 1)}
        collect(workdir, section(CollectConfig, {**config.collect.to_dict(), **amount}, "collect"), paths)
