"""Run ``import_videos``: a folder of videos and a CSV or JSONL of actions become a data set of records."""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.data.videos import ImportConfig, import_videos
from vgen_jax.runs.folder import keep_config
from vgen_jax.sections import section


def run(config: ConfigDict, workdir: Path) -> None:
    """Imports into the work directory."""
    import_videos(workdir, section(ImportConfig, config.videos, "videos"))
    # Last, so that an import which failed can be mended by a change of its config.
    keep_config(config, workdir)
