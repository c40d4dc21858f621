"""Drive a world in the browser: keys move through it, with its memory switched on and off.

    python -m vgen_jax.main --config=play --workdir=out/play

prints an address to open. Bundled weights, two CPU cores; runs start at places of the simulator, which needs
``pip install -e ".[sim]"``. A picture of your own instead: drop it on the page, or ``--config.start.image=photo.png``
with ``--config.simulator.name=``. A model of your own: ``--config.model_dir=out/slow/export``, with
``--config.start.data_dir=out/data`` to start from its recorded episodes.

variant  model                               starts from
vizdoom  the bundled one                     places of the Freedoom maps
tiny     ``slow`` beside the work directory  ``data`` beside the work directory: for tests
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import Section

START: Section = {"image": "", "data_dir": "", "split": "validation", "episodes": (0,), "frame": 8, "still": False}
VARIANTS: dict[str, Section] = {
    "vizdoom": {
        "model_dir": "asset:vizdoom/slow", "start": START, "simulator": "vizdoom", "steps": 4,
        "choices": (1, 2, 4, 8, 25), "memory": common.memory("temp_lora", **common.last_layer()),
    },
    "tiny": {
        "model_dir": "@slow/export", "start": {**START, "data_dir": "@data"}, "simulator": "", "steps": 2,
        "choices": (1,), "memory": common.memory("temp_lora", lora={"rank": 2, "alpha": 0.0, "targets": "temp_conv"}),
    },
}  # fmt: skip


def get_config(arg: str = "vizdoom") -> ConfigDict:
    """The run."""
    v = VARIANTS[common.known("configs/play.py", arg, VARIANTS)]
    return ConfigDict(
        {
            "run": "play", "model_dir": v["model_dir"],
            "play": {
                "host": "127.0.0.1", "port": 8800, "hosts": (), "browser": False, "sessions": 4, "idle_minutes": 15.0,
                "kept": 64, "in_memory": 8, "max_megabytes": 8, "past": 0, "future": 0, "guidance": 1.0, "place": 0,
            },
            "choices": {
                "memories": ("none", "context", "anchor", "retrieval", "temp_lora"), "beside": "none",
                "steps": v["choices"], "guidances": (1.0, 1.5, 2.0, 3.0),
            },
            "start": v["start"],
            "simulator": {"name": v["simulator"], "split": "validation", "maze": None},
            "memory": v["memory"],
            "sampler": common.sampler(v["steps"]),
        },
        convert_dict=True,
    )  # fmt: skip
