"""Record Procgen's games played by uniformly random actions (AVID, arXiv:2410.12822, §4 and §9.1).

    python -m vgen_jax.main --config=configs/data/procgen.py:coinrun100k --workdir=data/coinrun100k

Needs ``pip install -e ".[procgen]"`` and, on Debian or Ubuntu, ``apt-get install libqt5gui5 libqt5core5a``. A second
start goes on where the first one stopped. ``:VARIANT.32`` records at 32×32 instead of 64×64 (see
``simulators.procgen``). ``pretrain`` has every game but CoinRun.

variant       content                                        size
pretrain      15 games × levels 0-1999 × 1000 steps, 30 M    64×64
pretrain150k  15 games × levels 0-49 × 200 steps             64×64
coinrun100k   levels 0-99 × 1000 steps                       64×64
coinrun500k   levels 0-499 × 1000 steps                      64×64
coinrun2500k  levels 0-2499 × 1000 steps                     64×64
test          1,024 clips of 10 frames, levels 10000-10999   64×64
smoke         2 games × 2 levels × 200 steps                 64×64
"""

import os

from ml_collections import ConfigDict

from configs import common
from configs.common import Section

COINRUN = ("coinrun",)
OTHERS = (
    "bigfish", "bossfight", "caveflyer", "chaser", "climber", "dodgeball", "fruitbot", "heist", "jumper", "leaper",
    "maze", "miner", "ninja", "plunder", "starpilot",
)  # fmt: skip


def levels(games: tuple[str, ...], count: int, steps: int = 1000, shard: int = 20) -> Section:
    """All that is seen in the first ``count`` levels of each game."""
    return {
        "games": games, "first_level": 0, "levels": count, "steps": steps, "clips": 0, "clip_frames": 0,
        "visits_per_shard": shard,
    }  # fmt: skip


TEST = {
    "games": COINRUN, "first_level": 10_000, "levels": 1000, "steps": 1000, "clips": 1024, "clip_frames": 10,
    "visits_per_shard": 128,
}  # fmt: skip

VARIANTS = {
    "pretrain": {"train": levels(OTHERS, 2000, shard=100)},
    "pretrain150k": {"train": levels(OTHERS, 50, steps=200, shard=75)},
    "coinrun100k": {"train": levels(COINRUN, 100)},
    "coinrun500k": {"train": levels(COINRUN, 500)},
    "coinrun2500k": {"train": levels(COINRUN, 2500, shard=100)},
    "test": {"test": TEST},
    "smoke": {"train": levels(("coinrun", "bossfight"), 2, steps=200, shard=2)},
}

SIDES = ("64", "32", "16")


def get_config(arg: str = "coinrun100k") -> ConfigDict:
    """``variant`` at 64×64, or ``variant.side``; the run, on every core of this machine."""
    variant, _, side = arg.partition(".")
    common.known("configs/data/procgen.py", variant, VARIANTS)
    pixels = int(common.known(f"configs/data/procgen.py:{variant}", side or "64", SIDES, "side"))
    collect = {"size": (pixels, pixels), "seed": 0, "workers": os.cpu_count() or 1}
    stage = {"run": "collect_procgen", "collect": collect, "splits": VARIANTS[variant]}
    return ConfigDict(stage, convert_dict=True)
