"""Record VizDoom: frames, actions, texts and poses of an explorer that walks the Freedoom 2 maps.

    python -m vgen_jax.main --config=configs/data/vizdoom.py --workdir=data/vizdoom

Needs ``pip install -e ".[sim]"``, no account and no display. A second start goes on where the first one stopped.

variant    frames (train + validation)  size   disk    hardware and time
train300k  300,000 + 24,000             64×64  2.1 GB  2 cores, 3 minutes
smoke      2,000 + 500                  64×64  18 MB   2 cores, 15 seconds
"""

import os

from ml_collections import ConfigDict

from configs import common
from configs.common import Section

VARIANTS: dict[str, Section] = {
    "train300k": {"frames": {"train": 300_000, "validation": 24_000}, "episode_steps": 256, "shard": 100},
    "smoke": {"frames": {"train": 2_000, "validation": 500}, "episode_steps": 64, "shard": 8},
}


def get_config(arg: str = "train300k") -> ConfigDict:
    """The run, on every core of this machine."""
    v = VARIANTS[common.known("configs/data/vizdoom.py", arg, VARIANTS)]
    stage = common.collect_stage(
        v["frames"], v["episode_steps"], size=(64, 64), chunk=4, episodes_per_shard=v["shard"],
        workers=os.cpu_count() or 1,
    )  # fmt: skip
    return ConfigDict(stage, convert_dict=True)
