"""What does it cost to learn while generating? ``temp_lora`` with one update per chunk, beside ``none``.

    python -m vgen_jax.main --config=configs/bench/fast_learning.py --workdir=out/bench

Bundled weights, no data, 25 sampling steps; 2 CPU cores, about 8 minutes. SlowFast-VGen reports 1.068 × the time and
1.037 × the memory for ModelScopeT2V on a V100 (D.2). ``:tiny`` is for tests, with a model beside its work
directory. What it printed stands in docs/memories.md.

variant    sampling
plain      one network evaluation per step
guided     two, with classifier-free guidance, as ModelScopeT2V samples

``temp_lora`` merges the adapter into a second copy of the adapted weights, once per chunk;
``temp_lora_intercepted`` has no such copy and pays in every sampling step.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = {
    "plain": {"model_dir": "asset:vizdoom/slow", "past": 2, "future": 4, "chunks": 15, "steps": 25, "guidance": 1.0},
    "guided": {"model_dir": "asset:vizdoom/slow", "past": 2, "future": 4, "chunks": 15, "steps": 25, "guidance": 2.0},
    "tiny": {"model_dir": "@slow/export", "past": 2, "future": 2, "chunks": 3, "steps": 2, "guidance": 1.0},
}


def get_config(arg="plain"):
    """The run."""
    if arg not in VARIANTS:
        raise ValueError(f"configs/bench/fast_learning.py has no variant '{arg}': use one of {', '.join(VARIANTS)}")
    v = VARIANTS[arg]
    return ConfigDict(
        {
            "run": "fast_benchmark",
            "model_dir": v["model_dir"],
            "benchmark": {"videos": 1, **{key: v[key] for key in ("past", "future", "chunks", "guidance")}},
            "sampler": common.sampler(v["steps"]),
            "memories": {
                "none": common.memory(),
                "temp_lora": common.memory("temp_lora"),
                "temp_lora_intercepted": {**common.memory("temp_lora"), "sampling": "intercepted"},
            },
        },
        convert_dict=True,
    )
