"""The action predictor: which action led from each frame to the next? For AVID's action error ratio and fd_action_….

    python -m vgen_jax.main --config=configs/eval/action_predictor.py:vizdoom --workdir=out/action \
      --config.data.data_dir=out/data

trains it on recorded frames (``configs/data/`` records some); ``out/action/export`` is what ``evaluate_videos`` takes
as ``action_dir``. Data of your own: any variant, with ``data.action`` and ``data.data_dir`` set.

variant  actions                                    frames  hardware and time
tiny     2 dimensions, continuous                   16×16   for tests
vizdoom  turn, forward, strafe; continuous          64×64   2 cores, 8 minutes
maze     the motion that the poses say              64×64   2 cores; not timed idle yet
coinrun  the 15 ids of Procgen                      64×64   2 cores; not run yet

``maze`` reads what the camera did (``data.action="motion"``), not what it was told: a walk slides on and a wall stops
it. It looks at the two frames of a step alone. ``maze.evaluate`` measures it on held-out mazes (``--config.model_dir``,
``--config.data.data_dir``).

Metrics are named after the data's source in ``dataset.json``: ``fd_action_vizdoom``, ``action_error_ratio_procgen``;
each world of mazes has an instrument of its own, ``action_error_ratio_maze_plain``.
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import Section

NET = {"blocks_per_level": 1, "mixers": 2, "norm_groups": 8, "dtype": "float32"}
VARIANTS: dict[str, Section] = {
    "tiny": {
        "net": {**NET, "level_channels": (8, 8), "width": 16, "norm_groups": 4}, "action": "continuous",
        "window": (1, 4), "batch": 8, "steps": 200, "rate": 3e-3, "cpu_devices": 0,
    },
    "vizdoom": {
        "net": {**NET, "level_channels": (32, 64), "width": 128}, "action": "continuous",
        "window": (1, 8), "batch": 16, "steps": 2500, "rate": 2e-3, "cpu_devices": 2,
    },
    "maze": {
        "net": {**NET, "level_channels": (16, 32), "width": 128, "mixers": 0, "grid": 8}, "action": "motion",
        "window": (1, 16), "batch": 8, "steps": 4000, "rate": 2e-3, "cpu_devices": 0,
    },
    "coinrun": {
        "net": {**NET, "level_channels": (64, 128), "width": 256}, "action": "discrete",
        "window": (1, 9), "batch": 32, "steps": 4000, "rate": 1e-3, "cpu_devices": 2,
    },
}  # fmt: skip


def stage(v: Section, data_dir: str = "@data") -> Section:
    """Run ``train`` with the objective ``action``."""
    return {
        "run": "train",
        "objective": {"kind": "action"},
        "action": v["net"],
        "data": common.data(data_dir, "train", (v["window"],), (1.0,), v["batch"], 0, seed=1, action=v["action"]),
        "optimizer": common.optimizer(v["rate"], v["steps"], max(1, v["steps"] // 10)),
        "train": common.train(v["steps"], max(10, v["steps"] // 4), ema_decay=0.99),
        "mesh": {**common.MESH, "cpu_devices": v["cpu_devices"]},
    }


def evaluate_stage(
    v: Section, data_dir: str = "@data", model_dir: str = "@action/export", windows: int = 1024
) -> Section:
    """Run ``evaluate_action`` on validation windows."""
    section = common.data(data_dir, "validation", (v["window"],), (1.0,), v["batch"], 0, action=v["action"])
    return {
        "run": "evaluate_action",
        "model_dir": model_dir,
        "data": {**section, "shuffle": False, "repeat": False},
        "evaluate": {"windows": windows},
    }


def get_config(arg: str = "vizdoom") -> ConfigDict:
    """The training of a variant, or with ``.evaluate`` its measurement."""
    variant, _, stage_of = arg.partition(".")
    v = VARIANTS[common.known("configs/eval/action_predictor.py", variant, VARIANTS)]
    if not stage_of:
        return ConfigDict(stage(v), convert_dict=True)
    common.known(f"configs/eval/action_predictor.py:{variant}", stage_of, ("evaluate",), "stage")
    return ConfigDict(evaluate_stage(v), convert_dict=True)
