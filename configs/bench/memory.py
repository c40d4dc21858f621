"""How much memory ModelScopeT2V takes, by the compiler's analysis; nothing is allocated or run.

    python -m vgen_jax.main --config=configs/bench/memory.py:cpu --workdir=out/memory

variant  compiles for                                   takes
cpu      this machine (a GPU's own numbers on a GPU)    about 7 minutes of one core
tpu      a TPU v5p, without one: pip install libtpu     its first row 6 minutes on 2 shared cores, the rest not run yet
tiny     this machine, a network for tests              seconds

A row is (what, batch, frames, height, width, dtype, remat); give your own with ``--config.footprint.rows="((...),)"``.
"""

from ml_collections import ConfigDict

from configs import common
from configs.slow import modelscope

FORWARD = (("forward", 1, 16, 256, 256, "bfloat16", "none"), ("forward", 2, 16, 256, 256, "bfloat16", "none"))
TRAIN = tuple(("train", 1, 32, 256, 256, "bfloat16", remat) for remat in ("none", "dots", "full"))
CODE = tuple(("decode", 1, frames, 256, 256, "float32", "none") for frames in (1, 4, 16))
VARIANTS = {
    "cpu": {"rows": (FORWARD[0], *CODE, TRAIN[2], FORWARD[1]), "topology": ""},
    "tpu": {"rows": (CODE[1], FORWARD[0], TRAIN[2]), "topology": "v5p:2x2x1"},
    "tiny": {
        "rows": (
            ("forward", 1, 2, 16, 16, "float32", "none"), ("train", 1, 2, 16, 16, "float32", "full"),
            ("encode", 1, 2, 16, 16, "float32", "none"), ("decode", 1, 2, 16, 16, "float32", "none"),
        ),
        "topology": "",
    },
}  # fmt: skip


def get_config(arg: str = "cpu") -> ConfigDict:
    """``arg``: the variant."""
    common.known("configs/bench/memory.py", arg, VARIANTS)
    slow, autoencoder = modelscope.TINY if arg == "tiny" else modelscope.FULL
    return ConfigDict(
        {"run": "footprint", "footprint": VARIANTS[arg], "slow": slow, "autoencoder": autoencoder}, convert_dict=True
    )
