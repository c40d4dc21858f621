"""Record random mazes: frames, actions, texts, poses and the ground truth of an explorer that walks through them.

    python -m vgen_jax.main --config=configs/data/maze.py:plain --workdir=data/maze

Needs ``pip install -e ".[sim]"``, no account, display or assets. A second start goes on where the first one stopped.
A world of one's own: ``--config.collect.maze.colors=6`` and so on (``simulators.maze_layout.MazeConfig``).

variant          world                                   what                                   size
plain            walls of one colour                     500,000 + 24,000 frames of walks       64×64
patterned        walls with patterns, floors with lines  500,000 + 24,000 frames of walks       64×64
smoke            walls of one colour                     2,000 + 500 frames of walks            64×64
paths_plain      walls of one colour                     5 × 48 paths that come back            64×64
paths_patterned  walls with patterns, floors with lines  5 × 48 paths that come back            64×64
paths_smoke      walls of one colour                     4 paths that come back, 64 frames      64×64

Two busy cores took 5 minutes for ``plain`` (0.5 GB) and 8 for ``patterned`` (1.2 GB). The paths are for the revisit
benchmark: splits as in ``configs/data/revisit.py``, each on 12 mazes.
"""

import os

from ml_collections import ConfigDict

from configs import common
from configs.common import Section
from configs.data import revisit

FRAMES = {"train": 500_000, "validation": 24_000}
VARIANTS: dict[str, Section] = {
    "plain": {"simulator": "maze_plain", "frames": FRAMES, "shard": 100},
    "patterned": {"simulator": "maze_patterned", "frames": FRAMES, "shard": 100},
    "smoke": {"simulator": "maze_plain", "frames": {"train": 2_000, "validation": 500}, "shard": 8},
}
PATHS: dict[str, Section] = {
    "paths_plain": {"simulator": "maze_plain", "splits": revisit.VARIANTS["all"]},
    "paths_patterned": {"simulator": "maze_patterned", "splits": revisit.VARIANTS["all"]},
    "paths_smoke": {"simulator": "maze_plain", "splits": revisit.VARIANTS["smoke"]},
}
EPISODE_STEPS = 128  # short, so that many mazes are seen


def world(simulator: str) -> Section:
    """The section ``collect.maze`` of a simulator."""
    patterned = simulator == "maze_patterned"
    return {
        "grid": 9, "rooms": 30, "colors": 12, "patterns": patterned, "floor_lines": patterned, "landmarks": 0,
        "train_scenes": 4000, "validation_scenes": 400, "wording": "many",
    }  # fmt: skip


def get_config(arg: str = "plain") -> ConfigDict:
    """The run, on every core of this machine."""
    known = {**VARIANTS, **PATHS}
    common.known("configs/data/maze.py", arg, known)
    simulator, workers = known[arg]["simulator"], os.cpu_count() or 1
    if arg in PATHS:
        stage = common.paths_stage(PATHS[arg]["splits"], (64, 64), 4, workers, simulator=simulator)
    else:
        v = VARIANTS[arg]
        stage = common.collect_stage(
            v["frames"], EPISODE_STEPS, size=(64, 64), chunk=4, episodes_per_shard=v["shard"], workers=workers,
            simulator=simulator,
        )  # fmt: skip
    stage["collect"]["maze"] = world(simulator)
    return ConfigDict(stage, convert_dict=True)
