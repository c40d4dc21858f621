"""How long does a player wait for a chunk? The bundled world, with 4, 10 and 25 sampling steps.

    python -m vgen_jax.main --config=configs/bench/latency.py --workdir=out/latency

Bundled weights, no data. Leave the machine alone meanwhile: the result notes its load.

variant  model                               hardware and time
cpu      the bundled one                     2 CPU cores, about two minutes
tiny     ``slow`` beside the work directory  seconds: for tests
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import Section

VARIANTS: dict[str, Section] = {
    "cpu": {"model_dir": "asset:vizdoom/slow", "past": 2, "future": 4, "chunks": 15, "steps": (4, 10, 25)},
    "tiny": {"model_dir": "@slow/export", "past": 2, "future": 2, "chunks": 2, "steps": (1, 2)},
}


def get_config(arg: str = "cpu") -> ConfigDict:
    """The run."""
    v = VARIANTS[common.known("configs/bench/latency.py", arg, VARIANTS)]
    return ConfigDict(
        {
            "run": "latency", "model_dir": v["model_dir"], "steps": v["steps"],
            "benchmark": {
                "videos": 1, "guidance": 1.0, "warm_up": 2, **{key: v[key] for key in ("past", "future", "chunks")},
            },
            "sampler": common.sampler(v["steps"][0]), "memory": common.memory(),
        },
        convert_dict=True,
    )  # fmt: skip
