"""Run ``check_data``: reads every record of a data set and names each faulty file, record and fault.

Keys:
    data_dir: the data set.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.config import Sections
from vgen_jax.data.check import check_data
from vgen_jax.types import VgenError

SECTIONS: Sections = {}


def run(config: ConfigDict, workdir: Path) -> None:
    """Checks ``config.data_dir``; a fault makes the run fail."""
    report = check_data(config.data_dir)
    if report.faults:
        raise VgenError(f"{config.data_dir} has {len(report.faults)} faults, listed above: restore or remake the files")
