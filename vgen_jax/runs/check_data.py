"""Run ``check_data``: reads every record of a data set and names each faulty file, record and fault.

Keys:
    data_dir: the data set.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.config import Sections
from vgen_jax.data.action_sheet import action_sheet
from vgen_jax.data.check import check_data
from vgen_jax.data.records import EpisodeSource, read_info
from vgen_jax.files.media import write_png
from vgen_jax.types import VgenError

SECTIONS: Sections = {}


def run(config: ConfigDict, workdir: Path) -> None:
    """Checks ``config.data_dir``; a fault makes the run fail. Leaves ``actions_<split>.png``: frames with actions."""
    report = check_data(config.data_dir)
    if report.faults:
        raise VgenError(f"{config.data_dir} has {len(report.faults)} faults, listed above: restore or remake the files")
    info = read_info(config.data_dir)
    if info.content != "frames":
        return
    for split in info.splits:
        path = workdir / f"actions_{split}.png"
        write_png(path, action_sheet(EpisodeSource(config.data_dir, split), 0))
        print(f"look at {path}: is what the bars say at a frame what has happened by the next one?", flush=True)
