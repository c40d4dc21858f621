"""Import a folder of LeRobot's, v2.1 or v3, as a data set of records.

    python -m vgen_jax.main --config=configs/data/lerobot.py --config.lerobot.folder=my/dataset --workdir=data/mine \
        --config.splits.train.episodes=45 --config.splits.validation.first=45

Needs ``pip install -e ".[robots]"``. The columns, names and scales are those of a wheeled robot (forward velocity, turn
rate: a TurtleBot3's data set, say); for others say which of the action's numbers are wanted and what they are called.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The run; ``lerobot.folder`` is given on the command line."""
    return ConfigDict(
        {
            "run": "import_lerobot",
            "lerobot": {
                "folder": "path/of/the/data/set",
                "source": "lerobot",
                "camera": "",
                "action": "action",
                "columns": (0, 1),
                "names": ("forward_m_per_s", "turn_rad_per_s"),
                "scale": (0.1, 1.8),
                "fps": 0.0,
                "size": (64, 64),
                "chunk": 1,
                "per_shard": 20,
                "workers": 2,
            },
            "splits": {"train": {"first": 0, "episodes": 9}, "validation": {"first": 9, "episodes": 0}},
        },
        convert_dict=True,
    )
