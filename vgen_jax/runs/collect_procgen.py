"""Run ``collect_procgen``: records Procgen's games played by random actions; all splits in one folder."""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.config import Sections, by_split
from vgen_jax.data.shards import collect_shards
from vgen_jax.files.run_folder import keep_config
from vgen_jax.simulators.procgen import ProcgenConfig

SECTIONS: Sections = {"collect": ProcgenConfig, "splits.*": ProcgenConfig}


def run(config: ConfigDict, workdir: Path) -> None:
    """Collects every split of ``config.splits`` into the work directory; continues an interrupted collection."""
    keep_config(config, workdir)
    for settings in by_split(ProcgenConfig, config.to_dict(), "collect"):
        collect_shards(workdir, settings)
