"""Import a folder of videos with a table of actions (CSV or JSON lines, see docs/data.md) as a data set.

    python -m vgen_jax.main --config=configs/data/videos.py \
        --config.videos.folder=my/videos --config.videos.table=my/actions.csv --workdir=data/mine

One core. What the actions are called and how large 1 is belongs to the data: say it with
``--config.videos.actions="('turn','forward')" --config.videos.scale="(10.0,1.0)"``, and name discrete actions with
``--config.videos.ids="('left','right')"``.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The run; ``folder`` and ``table`` are given on the command line."""
    return ConfigDict(
        {
            "run": "import_videos",
            "videos": {
                "folder": "path/of/the/videos",
                "table": "path/of/the/table.csv",
                "source": "videos",
                "size": (64, 64),
                "chunk": 4,
                "actions": ("turn", "forward"),
                "scale": (1.0, 1.0),
                "ids": (),
                "validation_fraction": 0.1,
                "videos_per_shard": 64,
                "seed": 0,
            },
        },
        convert_dict=True,
    )
