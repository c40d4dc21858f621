"""A long video from the weights that come with the project, without and with a memory, on a laptop.

    python -m vgen_jax.main --config=configs/quickstart.py --workdir=out

2 CPU cores, no account, no download, 4 minutes with the install if nothing else runs: records a few episodes of
the game, generates 200 frames along a path that looks away and back, without a memory, with Temp-LoRA as the paper has
it and as our sweep chose it, and with retrieval, measures, and shows slow learning at work, 100 steps on from
the bundled model, whose result nothing else uses.
``out/report.html`` shows it.

variant  what it does                                                           hardware and time
bundled  the above                                                              2 cores, 4 minutes
train    trains everything from nothing, with worse weights; no memory          2 cores, under 15 minutes
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common
from configs.common import Section
from configs.eval import revisit
from configs.slow import vizdoom

TRAIN = {
    **vizdoom.VARIANTS["cpu"],
    "frames": {"train": 24_000, "validation": 6_000}, "shard": 12, "autoencoder_steps": 300,
    "windows": ((2, 4),), "weights": (1.0,), "batch": 8, "steps": 500, "warmup": 50,
    "checkpoint_every": 100, "ema": 0.99, "generate": 128, "episodes": (2,), "evaluate": 64,
    "evaluate_batch": 16,
}  # fmt: skip

# Looks left and back, right and back, all around, walks on, and again: views are left and seen again many times over.
PATH = (
    "turn left", "turn left", "turn right", "turn right", "turn right", "turn right", "turn left", "turn left",
    "turn around", "turn around", "go forward", "turn left", "turn left", "turn right", "turn right", "step back",
)  # fmt: skip

MODEL = "asset:vizdoom/slow"
WINDOW, LENGTH, FRAMES, STEPS = (2, 4), 48, 200, 100  # f_p and f_g, tokens, frames generated, updates

VARIANTS = ("bundled", "train")


def stages() -> dict[str, Section]:
    """The stages of ``bundled``, in order."""
    past, future = WINDOW
    sampler = common.sampler(revisit.SAMPLER_STEPS)

    def generate(name: str, **fast: Any) -> Section:
        return common.generate_stage(past, future, FRAMES, PATH, sampler, 1.0, (2,), MODEL, common.memory(name, **fast))

    return {
        "data": common.collect_stage({"train": 6_000, "validation": 2_000}, 128, (64, 64), 4, 8, workers=2),
        "check": {"run": "check_data", "data_dir": "@data"},
        "without": generate("none"),
        "temp_lora": generate("temp_lora"),
        "temp_lora_last": generate("temp_lora", **common.last_layer()),
        "retrieval": generate("retrieval"),
        "compare": {
            "run": "compare",
            "compare": {
                "folders": {name: f"@{name}" for name in ("without", "temp_lora", "temp_lora_last", "retrieval")},
                "baseline": "without", "video": 0,
                "model_dir": MODEL, "place_dir": "asset:vizdoom/place",
            },
        },
        "evaluate": common.evaluate_stage((WINDOW,), 64, 16, LENGTH, sampler, 1.0, MODEL),
        "slow": {
            "run": "train",
            "objective": {"kind": "continued", "loss": {"kind": "x0", "drop_text": 0.1, "drop_action": 0.1}},
            "model_dir": MODEL,
            "data": common.data("@data", "train", (WINDOW,), (1.0,), 8, LENGTH),
            "optimizer": common.optimizer(1e-4, STEPS, STEPS // 4),
            "train": common.train(STEPS, 50, ema_decay=0.9),
            "mesh": {**common.MESH, "cpu_devices": 2},
        },
    }  # fmt: skip


def get_config(arg: str = "bundled") -> ConfigDict:
    """The pipeline; ``variant.stage`` for one stage alone."""
    variant, _, stage = arg.partition(".")
    common.known("configs/quickstart.py", variant, VARIANTS)
    every = vizdoom.stages(TRAIN) if variant == "train" else stages()
    suffix = "" if variant == "bundled" else f":{variant}"
    command = f"python -m vgen_jax.main --config=configs/quickstart.py{suffix} --workdir=out"
    title = "slow learning on VizDoom" if variant == "train" else "a long video, without and with a memory"
    config = common.pipeline(f"vgen_jax quickstart: {title}", command, every)
    if not stage:
        return config
    return config.stages[common.known(f"configs/quickstart.py:{variant}", stage, every, "stage")]
