"""Run ``import_videos``: a folder of videos and a CSV or JSONL of actions become a data set of records."""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.data.importers.videos import ImportConfig, import_videos
from vgen_jax.files.run_folder import keep_config

SECTIONS: Sections = {"videos": ImportConfig}


def run(config: ConfigDict, workdir: Path) -> None:
    """Imports into the work directory."""
    import_videos(workdir, section(ImportConfig, config.videos, "videos"))
    # Last, so that an import which failed can be mended by a change of its config.
    keep_config(config, workdir)
