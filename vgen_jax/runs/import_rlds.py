"""Run ``import_rlds``: a TensorFlow data set in RLDS form becomes a data set of records; all splits in one folder."""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.config import Sections, by_split
from vgen_jax.data.importers.rlds import RldsConfig
from vgen_jax.data.shards import collect_shards
from vgen_jax.files.run_folder import keep_config

SECTIONS: Sections = {"rlds": RldsConfig, "splits.*": RldsConfig}


def run(config: ConfigDict, workdir: Path) -> None:
    """Imports every split of ``config.splits`` into the work directory; continues an interrupted import."""
    keep_config(config, workdir)
    for settings in by_split(RldsConfig, config.to_dict(), "rlds"):
        collect_shards(workdir, settings)
