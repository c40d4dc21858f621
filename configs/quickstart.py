"""Everything at once on a laptop: record a game, learn its world, generate a long video, measure it.

    python -m vgen_jax.main --config=configs/quickstart.py --workdir=out

2 CPU cores, no account, no download, under 15 minutes. ``out/report.html`` shows the result; docs/results.md says what
to expect of it. ``configs/slow/vizdoom.py:cpu`` trains the same model for longer, on more frames.
"""

from configs import common
from configs.slow import vizdoom

VARIANT = {
    **vizdoom.VARIANTS["cpu"],
    "frames": {"train": 24_000, "validation": 6_000}, "shard": 12, "autoencoder_steps": 300,
    "windows": ((2, 4),), "weights": (1.0,), "batch": 8, "steps": 1000, "warmup": 100,
    "checkpoint_every": 100, "ema": 0.99, "generate": 128, "episodes": (2,), "evaluate": 64,
    "evaluate_batch": 16,
}  # fmt: skip


def get_config():
    """The pipeline."""
    command = "python -m vgen_jax.main --config=configs/quickstart.py --workdir=out"
    return common.pipeline("vgen_jax quickstart: slow learning on VizDoom", command, vizdoom.stages(VARIANT))
