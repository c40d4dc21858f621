"""Record the paths of the revisit benchmark: VizDoom walked by scripts that leave a place and come back to it.

    python -m vgen_jax.main --config=configs/data/revisit.py --workdir=data/revisit

Needs ``pip install -e ".[sim]"``. Three lengths on the validation maps, and two, ``revisit_tune_…``, on the training
maps: settings are chosen on the latter alone. A split holds as many paths of each kind (look, walk, loop, excursions)
on each of its maps (all 6 validation maps, 12 of the training maps). A second start goes on where the first one
stopped.

variant  paths                       size   hardware and time
all      5 × 48 (64 to 600 frames)   64×64  2 busy cores, 2 minutes by its parts; 550 MB
smoke    4 (64 frames)               64×64  2 busy cores, 1 1/2 minutes

``maze`` and ``maze_smoke`` are paths of held-out mazes with plain walls, ``maze_patterned`` of those with patterns, one
maze for each four: 48 of 64 and of 200 frames (4 of 64), and ``maze_patterned`` alike.
"""

import os

from ml_collections import ConfigDict

from configs import common
from configs.data import maze

VARIANTS = {
    "all": {
        "revisit_64": ("validation", 64, 48),
        "revisit_200": ("validation", 200, 48),
        "revisit_600": ("validation", 600, 48),
        "revisit_tune_200": ("train", 200, 48),
        "revisit_tune_600": ("train", 600, 48),
    },
    "smoke": {"revisit_64": ("validation", 64, 4)},
}
MAZES = {
    "maze": "maze_plain", "maze_patterned": "maze_patterned", "maze_smoke": "maze_plain",
}  # fmt: skip
LENGTHS_OF_MAZES = {"revisit_64": ("validation", 64, 48), "revisit_200": ("validation", 200, 48)}


def get_config(arg="all"):
    """The run, on every core of this machine."""
    if arg in MAZES:
        splits = VARIANTS["smoke"] if arg == "maze_smoke" else LENGTHS_OF_MAZES
        stage = common.paths_stage(splits, size=(64, 64), chunk=4, workers=os.cpu_count() or 1, simulator=MAZES[arg])
        stage["collect"]["maze"] = maze.world(MAZES[arg])
        return ConfigDict(stage, convert_dict=True)
    if arg not in VARIANTS:
        known = ", ".join([*VARIANTS, *MAZES])
        raise ValueError(f"configs/data/revisit.py has no variant '{arg}': use one of {known}")
    stage = common.paths_stage(VARIANTS[arg], size=(64, 64), chunk=4, workers=os.cpu_count() or 1)
    return ConfigDict(stage, convert_dict=True)
