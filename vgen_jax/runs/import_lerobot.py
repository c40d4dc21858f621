"""Run ``import_lerobot``: a folder of LeRobot's, v2.1 or v3, becomes a data set of records."""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.config import Sections, by_split
from vgen_jax.data.importers.lerobot import LerobotConfig
from vgen_jax.data.importers.trajectories import plan_of
from vgen_jax.data.shards import collect_shards
from vgen_jax.files.run_folder import keep_config

SECTIONS: Sections = {"lerobot": LerobotConfig, "splits.*": LerobotConfig}


def run(config: ConfigDict, workdir: Path) -> None:
    """Imports every split of ``config.splits`` into the work directory; continues an interrupted import."""
    for settings in by_split(LerobotConfig, config.to_dict(), "lerobot"):
        collect_shards(workdir, plan_of(settings))
    keep_config(config, workdir)  # last, so that an import which failed can be mended by a change of its config
