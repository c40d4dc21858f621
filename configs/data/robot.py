"""Record a robot that drives through halls among walking figures, and lead it through RoAM's own files into records.

    python -m vgen_jax.main --config=configs/data/robot.py:cpu --workdir=data/robot

leaves ``drives`` (records), ``tfrecords`` (RoAM's layout) and ``data`` (what the importer of RoAM makes of these, which
is what is trained on). NumPy draws the pictures: no simulator, account or assets are needed. The time is not measured
yet.

variant  frames            size
tiny     1,200 + 370       16×16
cpu      48,000 + 9,600    32×32
small    240,000 + 24,000  64×64
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import Section

VARIANTS: dict[str, Section] = {
    "tiny": {"drives": {"train": 20, "validation": 6}, "steps": 60, "size": (16, 16), "shard": 5},
    "cpu": {"drives": {"train": 200, "validation": 40}, "steps": 240, "size": (32, 32), "shard": 20},
    "small": {"drives": {"train": 1000, "validation": 100}, "steps": 240, "size": (64, 64), "shard": 50},
}
FPS = 20.0  # of the robot, and what RoAM's importer is told


def stages(v: Section) -> dict[str, Section]:
    """The stages of a variant, in order."""
    splits = tuple(v["drives"])
    return {
        "drives": {
            "run": "collect_robot",
            "collect": {
                "steps": v["steps"], "size": v["size"], "figures": 3, "boxes": 4, "side": 1.6,
                "episodes_per_shard": v["shard"], "seed": 0, "workers": 2,
            },
            "splits": {split: {"episodes": count} for split, count in v["drives"].items()},
        },
        "tfrecords": {"run": "export_roam", "data_dir": "@drives"},
        "data": import_stage("@tfrecords", v["size"], {s: f"{s}-*.tfrecord" for s in splits}, "robot", v["shard"]),
        "check": {"run": "check_data", "data_dir": "@data"},
    }  # fmt: skip


def import_stage(folder: str, size: tuple[int, int], patterns: dict[str, str], source: str, shard: int) -> Section:
    """Run ``import_roam``; ``patterns`` of files by split."""
    return {
        "run": "import_roam",
        "roam": {
            "folder": folder, "source": source, "recorded_fps": FPS, "fps": 0.0, "size": size, "chunk": 1,
            "per_shard": shard, "workers": 2,
        },
        "splits": {split: {"pattern": pattern} for split, pattern in patterns.items()},
    }  # fmt: skip


def get_config(arg: str = "cpu") -> ConfigDict:
    """``variant`` for all stages, ``variant.stage`` for one alone."""
    file, (variant, _, stage) = "configs/data/robot.py", arg.partition(".")
    every = stages(VARIANTS[common.known(file, variant, VARIANTS)])
    return common.staged(file, variant, stage, f"A robot's drives, {variant}", every)
