"""What does it cost to learn while generating? ``temp_lora`` with one update per chunk, beside ``none``.

    python -m vgen_jax.main --config=configs/bench/fast_learning.py --workdir=out/bench

Bundled weights, no data, 25 sampling steps; 2 CPU cores, 3 minutes. SlowFast-VGen reports 1.068 × the time and
1.037 × the memory for ModelScopeT2V on a V100 (D.2). What it printed stands in docs/memories.md.

variant               network                                  sampling
plain                 VizDoom's, bundled, 5 M parameters       one network evaluation per step
guided                the same                                 two, with classifier-free guidance
modelscope            ModelScopeT2V's, 1.4 B, random weights   two, guidance 9; 8×8 latents, 2 past and 2 new frames;
                                                               49 minutes on 2 cores, 9 GiB of memory
modelscope_attention  the same                                 the same; not run to its end yet
tiny                  ``slow`` beside the work directory       for tests

``temp_lora`` adapts every layer, ``temp_lora_last`` the temporal convolutions of the last one, which is what the sweep
of ``configs/eval/revisit.py`` found. Both merge the adapter into a second copy of the adapted weights, once per chunk;
``temp_lora_intercepted`` has no such copy and pays in every sampling step. ``modelscope`` has the paper's network at
a small size, and adapters that are intercepted: of the last layer, or of the attention's
projections (``modelscope_attention``).
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import Section
from configs.slow import modelscope

ATTENTION = "attn"
MERGED = {
    "none": common.memory(),
    "temp_lora_last": common.memory("temp_lora", **common.last_layer()),
    "temp_lora": common.memory("temp_lora"),
    "temp_lora_intercepted": {**common.memory("temp_lora"), "sampling": "intercepted"},
}
LAST = {
    "none": common.memory(),
    "temp_lora_last": {**common.memory("temp_lora", **common.last_layer(2)), "sampling": "intercepted"},
}
ATTENTION_ONLY = {
    "none": common.memory(),
    "temp_lora_attention": {
        **common.memory("temp_lora", lora={"rank": 32, "alpha": 0.0, "targets": ATTENTION}), "sampling": "intercepted",
    },
}  # fmt: skip
WINDOW = {"past": 2, "future": 4, "chunks": 15, "warm_up": 2}
BUNDLED: Section = {"model_dir": "asset:vizdoom/slow", "made": {}, **WINDOW, "steps": 25, "memories": MERGED}


def full() -> Section:
    """ModelScopeT2V's networks in float32."""
    slow, autoencoder = modelscope.FULL
    return {
        "slow": {**slow, "unet": {**slow["unet"], "dtype": "float32"}}, "autoencoder": autoencoder,
        "height": 64, "width": 64,
    }  # fmt: skip


MODELSCOPE: Section = {
    **BUNDLED, "model_dir": "", "made": full(), "past": 2, "future": 2, "chunks": 3, "warm_up": 1, "guidance": 9.0,
}  # fmt: skip
VARIANTS: dict[str, Section] = {
    "plain": {**BUNDLED, "guidance": 1.0},
    "guided": {**BUNDLED, "guidance": 2.0},
    "modelscope": {**MODELSCOPE, "memories": LAST},
    "modelscope_attention": {**MODELSCOPE, "memories": ATTENTION_ONLY},
    "tiny": {**BUNDLED, "model_dir": "@slow/export", "future": 2, "chunks": 3, "steps": 2, "guidance": 1.0},
}  # fmt: skip


def get_config(arg: str = "plain") -> ConfigDict:
    """The run."""
    v = VARIANTS[common.known("configs/bench/fast_learning.py", arg, VARIANTS)]
    return ConfigDict(
        {
            "run": "fast_benchmark",
            "model_dir": v["model_dir"], "made": v["made"],
            "benchmark": {"videos": 1, **{key: v[key] for key in ("past", "future", "chunks", "guidance", "warm_up")}},
            "sampler": common.sampler(v["steps"]),
            "memories": v["memories"],
        },
        convert_dict=True,
    )  # fmt: skip
