"""Run ``export_roam``: a data set of records as TFRecords in RoAM's layout, one file an episode.

Keys:
    data_dir: the data set, with velocities as actions.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.config import Sections
from vgen_jax.data.importers.roam import export_split
from vgen_jax.data.records import EpisodeSource, read_info
from vgen_jax.files.progress import progress
from vgen_jax.files.run_folder import keep_config

SECTIONS: Sections = {}


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes every split of ``config.data_dir``; files that are there stay."""
    keep_config(config, workdir)
    for split in progress(read_info(config.data_dir).splits, desc="export", unit="split"):
        export_split(EpisodeSource(config.data_dir, split), workdir)
