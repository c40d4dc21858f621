"""Import RECON's HDF5 files as a data set of records.

    python -m vgen_jax.main --config=configs/data/recon.py --config.recon.folder=.../recon_release --workdir=data/recon

Needs ``pip install -e ".[robots]"``. Actions are the velocities between the poses. Not run on RECON itself yet.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The run; ``recon.folder`` is given on the command line."""
    return ConfigDict(
        {
            "run": "import_recon",
            "recon": {
                "folder": "path/of/recon_release",
                "source": "recon",
                "recorded_fps": 4.0,
                "fps": 0.0,
                "scale": (1.0, 1.0),
                "size": (64, 64),
                "chunk": 1,
                "per_shard": 100,
                "workers": 2,
            },
            "splits": {"train": {"first": 0, "files": 9000}, "validation": {"first": 9000, "files": 0}},
        },
        convert_dict=True,
    )
