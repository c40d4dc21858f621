"""Is data the bottleneck? Times collecting, loading and the training step of ``configs/slow/vizdoom.py``.

    python -m vgen_jax.main --config=configs/bench/data.py:cpu --workdir=out/bench

``:tiny``, ``:cpu`` and ``:small`` name the training. It needs ``pip install -e ".[sim]"`` and makes its own inputs; to
load what a pipeline left in ``out``, add ``--config.benchmark.inputs=given``. Leave the machine alone meanwhile: the
result notes its load. Without an accelerator the step of ``:small`` is estimated from its FLOPs, which the result says.

variant  hardware                           wanted
tiny     2 cores, a minute                  nothing: for tests
cpu      2 cores, 3 minutes                 collecting ≥ 1,000 frames/s a core, loading ≥ 3 × the training step
small    one data-centre GPU (or estimate)  the same
"""

import os

from ml_collections import ConfigDict

from configs import common
from configs.slow import vizdoom

BENCHMARKS = {
    "tiny": {"frames": 500, "batches": 20, "steps": 3, "estimate_on_cpu": False},
    "cpu": {"frames": 20_000, "batches": 400, "steps": 20, "estimate_on_cpu": False},
    "small": {"frames": 20_000, "batches": 200, "steps": 50, "estimate_on_cpu": True},
}


def get_config(arg: str = "cpu") -> ConfigDict:
    """The run, for the training of a variant."""
    common.known("configs/bench/data.py", arg, BENCHMARKS)
    v = vizdoom.VARIANTS[arg]
    stages = vizdoom.stages(v)
    collect = common.collect_stage(
        {}, v["episode_steps"], v["size"], v["chunk"], v["shard"], workers=os.cpu_count() or 1
    )  # fmt: skip
    return ConfigDict(
        {
            "run": "benchmark",
            "benchmark": {**BENCHMARKS[arg], "inputs": "latents" if v["encode"] else "frames"},
            "collect": {k: x for k, x in collect["collect"].items() if k != "episodes_per_shard"},
            "autoencoder": stages["autoencoder"]["autoencoder"],
            "stage": stages["slow"],
        },
        convert_dict=True,
    )
