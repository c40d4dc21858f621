"""Record random mazes: frames, actions, texts, poses and the ground truth of an explorer that walks through them.

    python -m vgen_jax.main --config=configs/data/maze.py:plain --workdir=data/maze

Needs ``pip install -e ".[sim]"``, no account, display or assets. A second start goes on where the first one stopped.
A world of one's own: ``--config.collect.maze.colors=6`` and so on (``simulators.maze_layout.MazeConfig``).

variant    world                                      frames (train + validation)  size   hardware and time
plain      walls of one colour                        500,000 + 24,000             64×64  2 cores; not timed idle yet
patterned  walls with patterns, floors with lines     500,000 + 24,000             64×64  2 cores; not timed idle yet
smoke      walls of one colour                        2,000 + 500                  64×64  2 cores; not timed idle yet
"""

import os

from ml_collections import ConfigDict

from configs import common

FRAMES = {"train": 500_000, "validation": 24_000}
VARIANTS = {
    "plain": {"simulator": "maze_plain", "frames": FRAMES, "shard": 100},
    "patterned": {"simulator": "maze_patterned", "frames": FRAMES, "shard": 100},
    "smoke": {"simulator": "maze_plain", "frames": {"train": 2_000, "validation": 500}, "shard": 8},
}
EPISODE_STEPS = 128  # short, so that many mazes are seen


def world(simulator):
    """The section ``collect.maze`` of a simulator."""
    patterned = simulator == "maze_patterned"
    return {
        "grid": 9, "rooms": 30, "colors": 12, "patterns": patterned, "floor_lines": patterned, "landmarks": 0,
        "train_scenes": 4000, "validation_scenes": 400,
    }  # fmt: skip


def get_config(arg="plain"):
    """The run, on every core of this machine."""
    if arg not in VARIANTS:
        raise ValueError(f"configs/data/maze.py has no variant '{arg}': use one of {', '.join(VARIANTS)}")
    v = VARIANTS[arg]
    stage = common.collect_stage(
        v["frames"], EPISODE_STEPS, size=(64, 64), chunk=4, episodes_per_shard=v["shard"],
        workers=os.cpu_count() or 1, simulator=v["simulator"],
    )  # fmt: skip
    stage["collect"]["maze"] = world(v["simulator"])
    return ConfigDict(stage, convert_dict=True)
