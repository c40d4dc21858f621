"""Import RoAM (Sarkar et al. 2024), or any TFRecords of its layout, as a data set of records.

    python -m vgen_jax.main --config=configs/data/roam.py --config.roam.folder=.../RoAM --workdir=data/roam

The patterns say which files belong to which split; change them if yours are called otherwise. Not run on RoAM itself
yet.
"""

from ml_collections import ConfigDict

from configs.data import robot

PATTERNS = {"train": "train/*.tfrecord*", "validation": "test/*.tfrecord*"}


def get_config() -> ConfigDict:
    """The run; ``roam.folder`` is given on the command line."""
    return ConfigDict(robot.import_stage("path/of/RoAM", (64, 64), PATTERNS, "roam", 1), convert_dict=True)
