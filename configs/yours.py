"""Your own data: a world model of imported videos, from nothing. docs/your_data.md leads through it.

    python -m vgen_jax.main --config=configs/yours.py:cpu --workdir=out

once the data are in ``out/data``; a second start goes on where the first one stopped. One stage alone, and what it
would take: ``--config=configs/yours.py:cpu.slow --config.run=estimate --workdir=out/slow``.

variant  network                                  hardware and time
tiny     0.16 M                                   2 cores, a minute: for tests and for a first try of the commands
cpu      5.2 M, of configs/slow/vizdoom.py:cpu    2 cores, hours: ask the run ``estimate``
gpu      223 M, of configs/slow/vizdoom.py:small  one GPU; not measured yet
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import Section
from configs.slow import vizdoom

SHARED: Section = {"sample_minutes": 10.0}
VARIANTS: dict[str, Section] = {
    "tiny": {**vizdoom.VARIANTS["tiny"], "encode": False, "sample_minutes": 0.1, "generate": 0},
    "cpu": {**vizdoom.VARIANTS["cpu"], **SHARED},
    "gpu": {**vizdoom.VARIANTS["small"], **SHARED, "encode": False},
}  # fmt: skip


def stages(v: Section) -> dict[str, Section]:
    """The stages of a variant, in order."""
    every = common.world_stages(v, vizdoom.RECIPE)
    slow = every["slow"]
    return {
        "check": every["check"],
        "autoencoder": every["autoencoder"],
        "slow": {**slow, "train": {**slow["train"], "sample_minutes": v["sample_minutes"]}},
        "evaluate": every["evaluate"],
    }


def get_config(arg: str = "cpu") -> ConfigDict:
    """``variant`` for the whole pipeline, ``variant.stage`` for one stage alone."""
    file, (variant, _, stage) = "configs/yours.py", arg.partition(".")
    every = stages(VARIANTS[common.known(file, variant, VARIANTS)])
    return common.staged(file, variant, stage, f"A world model of your own, {variant}", every)
