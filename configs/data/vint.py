"""Import trajectories as ViNT and GNM have them (numbered JPEGs and a pickle of poses) as a data set of records.

    python -m vgen_jax.main --config=configs/data/vint.py --config.vint.folder=my/trajectories --workdir=data/mine \
        --config.splits.train.trajectories="('a','b')" --config.splits.validation.trajectories="('c',)"

An empty list of trajectories is all of the folder. Actions are the velocities between the poses.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The run; ``vint.folder`` is given on the command line."""
    return ConfigDict(
        {
            "run": "import_vint",
            "vint": {
                "folder": "path/of/the/trajectories",
                "source": "vint",
                "recorded_fps": 4.0,
                "fps": 0.0,
                "scale": (1.0, 1.0),
                "size": (64, 64),
                "chunk": 1,
                "per_shard": 20,
                "workers": 2,
            },
            "splits": {"train": {"trajectories": ()}},
        },
        convert_dict=True,
    )
