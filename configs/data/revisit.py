"""Record the paths of the revisit benchmark: VizDoom walked by scripts that leave a place and come back to it.

    python -m vgen_jax.main --config=configs/data/revisit.py --workdir=data/revisit

Needs ``pip install -e ".[sim]"``. Three lengths on the validation maps, and two, ``revisit_tune_…``, on the training
maps: settings are chosen on the latter alone. A split holds as many paths of each kind (look, walk, loop, excursions)
on each of its maps (all 6 validation maps, 12 of the training maps). A second start goes on where the first one
stopped.

variant  paths                       size   hardware and time
all      5 × 48 (64 to 600 frames)   64×64  2 busy cores, 2 minutes by its parts; 550 MB
smoke    4 (64 frames)               64×64  2 busy cores, 1 1/2 minutes

Paths of mazes: ``configs/data/maze.py:paths_plain`` and so on.
"""

import os

from ml_collections import ConfigDict

from configs import common

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


def get_config(arg: str = "all") -> ConfigDict:
    """The run, on every core of this machine."""
    common.known("configs/data/revisit.py", arg, VARIANTS)
    stage = common.paths_stage(VARIANTS[arg], size=(64, 64), chunk=4, workers=os.cpu_count() or 1)
    return ConfigDict(stage, convert_dict=True)
