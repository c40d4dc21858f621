"""The place encoder of the revisit benchmark: record VizDoom, train, and measure on maps that it has never seen.

    python -m vgen_jax.main --config=configs/eval/place_encoder.py --workdir=out

One stage alone, on records that are there: ``--config=configs/eval/place_encoder.py:cpu.encoder --workdir=out/encoder``
with ``--config.data.data_dir=…``. ``encoder/export`` is what other runs load.

variant         frames   size   batch     hardware and time
tiny            1,500    16×16  8 pairs   for tests
cpu             100,000  64×64  64 pairs  2 cores; not run whole yet, 12 minutes at most by estimate
maze            150,000  64×64  64 pairs  2 cores; not run yet: mazes with plain walls
maze_patterned  150,000  64×64  64 pairs  2 cores; not run yet: mazes with patterns

Each world of mazes has an encoder of its own, since metrics are named after the data: ``fd_place_maze_plain``.
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import Section
from configs.data import maze

VARIANTS: dict[str, Section] = {
    "tiny": {
        "frames": {"train": 1200, "validation": 300}, "episode_steps": 32, "size": (16, 16), "chunk": 2, "shard": 8,
        "place": {"level_channels": (8, 8), "blocks_per_level": 1, "width": 8, "norm_groups": 4, "dtype": "float32"},
        "batch": 8, "per_episode": 4, "steps": 20, "rate": 1e-3, "places": 8, "cpu_devices": 0,
    },
    "cpu": {
        "frames": {"train": 100_000, "validation": 24_000}, "episode_steps": 256, "size": (64, 64), "chunk": 4,
        "shard": 50,
        "place": {
            "level_channels": (64, 128), "blocks_per_level": 1, "width": 128, "norm_groups": 8, "dtype": "float32",
        },
        "batch": 64, "per_episode": 4, "steps": 800, "rate": 1e-3, "places": 100, "cpu_devices": 2,
    },
}  # fmt: skip
# Short episodes, so that many mazes are seen.
MAZE = {**VARIANTS["cpu"], "frames": {"train": 150_000, "validation": 24_000}, "episode_steps": 128, "shard": 100}
VARIANTS["maze"] = {**MAZE, "simulator": "maze_plain"}
VARIANTS["maze_patterned"] = {**MAZE, "simulator": "maze_patterned"}
PAIR = {"near": 32.0, "turn": 8.0}
APART = {"near": 96.0, "turn": 30.0}
AUGMENT = {"tone": 0.15, "shift": 2.0, "blur": 1.5}


def recorded(v: Section) -> Section:
    """The stage that records."""
    simulator = v.get("simulator", "vizdoom")
    stage = common.collect_stage(
        v["frames"], v["episode_steps"], v["size"], v["chunk"], v["shard"], workers=2, simulator=simulator
    )
    if simulator != "vizdoom":
        stage["collect"]["maze"] = maze.world(simulator)
    return stage


def stages(v: Section) -> dict[str, Section]:
    """The stages of a variant, in order."""
    return {
        "data": recorded(v),
        "encoder": {
            "run": "train",
            "objective": {"kind": "place", "loss": {"temperature": 0.1, **APART, "augment": AUGMENT}},
            "place": v["place"],
            "data": {
                "data_dir": "@data", "split": "train", "batch_size": v["batch"], "per_episode": v["per_episode"],
                **PAIR, "seed": 1, "workers": 0,
            },
            "optimizer": common.optimizer(v["rate"], v["steps"], max(1, v["steps"] // 10)),
            "train": common.train(v["steps"], max(10, v["steps"] // 8), ema_decay=0.99),
            "mesh": {**common.MESH, "cpu_devices": v["cpu_devices"]},
        },
        "evaluate": {
            "run": "evaluate_place",
            "model_dir": "@encoder/export",
            "places": {
                "data_dir": "@data", "split": "validation", "per_scene": v["places"], **PAIR, "apart": APART["near"],
                "apart_turn": APART["turn"], "seed": 0,
            },
            "augment": AUGMENT,
        },
    }  # fmt: skip


def get_config(arg: str = "cpu") -> ConfigDict:
    """``variant`` for the whole pipeline, ``variant.stage`` for one stage alone."""
    file, (variant, _, stage) = "configs/eval/place_encoder.py", arg.partition(".")
    every = stages(VARIANTS[common.known(file, variant, VARIANTS)])
    return common.staged(file, variant, stage, f"Place encoder, {variant}", every)
