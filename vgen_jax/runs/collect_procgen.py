"""Run ``collect_procgen``: records Procgen's games played by random actions; all splits in one folder."""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.data.sims.procgen import ProcgenConfig
from vgen_jax.data.sims.shards import collect_shards
from vgen_jax.runs.folder import keep_config
from vgen_jax.sections import section


def run(config: ConfigDict, workdir: Path) -> None:
    """Collects every split of ``config.splits`` into the work directory; continues an interrupted collection."""
    keep_config(config, workdir)
    for split, values in config.splits.items():
        merged = {**config.collect.to_dict(), **values.to_dict(), "split": split}
        collect_shards(workdir, section(ProcgenConfig, merged, f"splits.{split}"))
