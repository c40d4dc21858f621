"""Run ``import_roam``: RoAM's TFRecords, or others in their layout, become a data set of records."""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.config import Sections, by_split
from vgen_jax.data.importers.roam import RoamConfig
from vgen_jax.data.importers.trajectories import plan_of
from vgen_jax.data.shards import collect_shards
from vgen_jax.files.run_folder import keep_config

SECTIONS: Sections = {"roam": RoamConfig, "splits.*": RoamConfig}


def run(config: ConfigDict, workdir: Path) -> None:
    """Imports every split of ``config.splits`` into the work directory; continues an interrupted import."""
    for settings in by_split(RoamConfig, config.to_dict(), "roam"):
        collect_shards(workdir, plan_of(settings))
    keep_config(config, workdir)  # last, so that an import which failed can be mended by a change of its config
