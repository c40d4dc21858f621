"""Read every record of a data set; name each faulty file, record and fault. Any fault makes the run fail.

    python -m vgen_jax.main --config=configs/data/check.py --config.data_dir=data/vizdoom --workdir=/tmp/check

One core checks about 10,000 frames of 64×64 a second.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The run; ``data_dir`` is given on the command line."""
    return ConfigDict({"run": "check_data", "data_dir": "path/of/the/data"})
