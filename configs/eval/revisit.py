"""The revisit benchmark: does a memory bring a place back as it was? docs/revisit.md says what is measured.

    python -m vgen_jax.main --config=configs/eval/revisit.py --workdir=out

records scripted paths on the validation maps into ``paths`` beside the work directory where there are none yet, lets
every memory follow them with the bundled weights, and writes results.json and report.html. A second start goes on where
the first one stopped. Needs ``pip install -e ".[sim,eval]"``. Another model: ``--config.model_dir=…/slow/export``.
The variants of mazes need a model and a place encoder of mazes, ``--config.model_dir`` and ``--config.place_dir``; they
score whether the walls in view have the right colours as well, which needs no network (``walls_columns/…``).

variant         what                                                            hardware and time
all             10 memories, 64, 200 and 600 frames, 32 paths each              2 cores, about 5 hours, by its parts
main            5 memories, 200 frames, 32 paths each, both protocols           2 cores, about 40 minutes, by its parts
smoke           4 memories, 64 frames, 4 paths                                  2 cores, 3 minutes
maze            7 memories, 64 and 200 frames, 32 paths of held-out mazes       2 cores; not run yet
maze_patterned  the same in mazes with patterns                                 2 cores; not run yet
maze_smoke      4 memories, 64 frames, 4 paths of held-out mazes                2 cores; not run yet
sweep           the learning of temp_lora, a setting at a time, 200 frames of   2 cores, about 2 hours, by its parts
                8 paths on the training maps
"""

import copy
from typing import Any

from ml_collections import ConfigDict

from configs import common
from configs.common import Section
from configs.data import maze as mazes
from configs.data import revisit as data
from configs.slow import maze

PAST, FUTURE, SAMPLER_STEPS = 2, 4, 4
TEMPORAL = "temp_conv|transformer_in|transformers/temporal"
ATTENTION = "transformer"
UP = "^up_"  # the back pass ends in the middle of the network
LAST = common.last_layer()["lora"]["targets"]  # the temporal convolutions of the last layer: the cheapest
EVERYTHING = "^(?!conv_out$)"


def lora(rank: int = 32, targets: str = EVERYTHING) -> Section:
    """An adapter's section."""
    return {"rank": rank, "alpha": 0.0, "targets": targets}


PAPER: Section = {"steps": 1, "learning_rate": 1e-4, "lora": lora()}
SWEEP: dict[str, Section] = {
    **{f"rank_{rank}": {"lora": lora(rank)} for rank in (4, 16, 64)},
    **{f"rate_{rate:.0e}": {"learning_rate": rate} for rate in (3e-5, 3e-4, 1e-3, 3e-3, 1e-2)},
    **{f"steps_{steps}": {"steps": steps} for steps in (4, 16)},
    "targets_temporal": {"lora": lora(targets=TEMPORAL)},
    "targets_attention": {"lora": lora(targets=ATTENTION)},
    "targets_up": {"lora": lora(targets=UP)},
    "targets_last": {"lora": lora(targets=LAST)},
    **{f"up_rate_{rate:.0e}": {"lora": lora(targets=UP), "learning_rate": rate} for rate in (3e-4, 1e-3)},
    **{f"last_rate_{rate:.0e}": {"lora": lora(targets=LAST), "learning_rate": rate} for rate in (1e-3, 3e-3, 1e-2)},
    **{f"last_slow_down_{n}": {"lora": lora(targets=LAST), "learning_rate": 3e-3, "slow_down": n} for n in (4, 16)},
    "slow_down_4_rate_3e-04": {"learning_rate": 3e-4, "slow_down": 4},
    "last_rate_1e-03_rank_4": {"lora": lora(4, LAST), "learning_rate": 1e-3},
    "last_rate_1e-03_steps_4": {"lora": lora(targets=LAST), "learning_rate": 1e-3, "steps": 4},
    "noise_low": {"t_range": (0.0, 0.4)},
    "noise_high": {"t_range": (0.6, 1.0)},
    "fresh_optimizer": {"persist_optimizer": False},
    **{f"guidance_{scale}": {"guidance": float(scale)} for scale in (2, 3)},
}  # fmt: skip


def contender(name: str, past: int = PAST, **changes: Any) -> Section:
    """A memory with the f_p of its rollouts; a copy, so that a flag for one does not change another."""
    return copy.deepcopy({"memory": common.memory(name, **changes), "past": past})


# The paper's table of variants, and the baselines that every memory has to beat.
MEMORIES = {
    "none": contender("none"),
    "context": contender("context"),
    "anchor": contender("anchor"),
    "retrieval": contender("retrieval"),
    "temp_lora": contender("temp_lora", **PAPER),
    "temp_lora_original": contender("temp_lora_original", **PAPER),
    "temp_lora_full": contender("temp_lora_full", **PAPER),
    "temp_lora_frame": contender("temp_lora", past=1, **PAPER),
    "none_frame": contender("none", past=1),
    "temp_lora_last": contender("temp_lora", **common.last_layer()),  # what the sweep found
}
TUNED = {
    "none": contender("none"),
    "centre": contender("temp_lora", **PAPER),
    **{name: contender("temp_lora", **{**PAPER, **changes}) for name, changes in SWEEP.items()},
}
# The paper's setting with the actions kept, since a maze's model is told of its actions; the paper's nulls them.
OF_MAZES = {
    "none": contender("none"),
    "context": contender("context"),
    "anchor": contender("anchor"),
    "retrieval": contender("retrieval"),
    "temp_lora": contender("temp_lora", **PAPER),
    "temp_lora_actions": contender("temp_lora", **PAPER, actions="keep"),
    "temp_lora_last": contender("temp_lora", **common.last_layer()),
}
SMOKE = ("none", "retrieval", "temp_lora", "temp_lora_last")

VARIANTS: dict[str, Section] = {
    "all": {
        "paths": "all", "split": "revisit", "lengths": (64, 200, 600), "count": 32, "batch": 16, "shown": 4,
        "memories": MEMORIES, "shown_memories": ("none", "context", "retrieval", "temp_lora", "temp_lora_last"),
    },
    "main": {
        "paths": "all", "split": "revisit", "lengths": (200,), "count": 32, "batch": 16, "shown": 4,
        "memories": {name: MEMORIES[name] for name in ("none", "context", "retrieval", "temp_lora", "temp_lora_last")},
        "shown_memories": ("none", "context", "retrieval", "temp_lora", "temp_lora_last"),
    },
    "smoke": {
        "paths": "smoke", "split": "revisit", "lengths": (64,), "count": 4, "batch": 4, "shown": 2,
        "memories": {name: MEMORIES[name] for name in ("none", "retrieval", "temp_lora", "temp_lora_last")},
        "shown_memories": ("none", "retrieval", "temp_lora", "temp_lora_last"),
    },
    **{
        world: {
            "paths": paths, "split": "revisit", "lengths": (64, 200), "count": 32, "batch": 16, "shown": 4,
            "memories": OF_MAZES, "shown_memories": SMOKE,
        }
        for world, paths in (("maze", "paths_plain"), ("maze_patterned", "paths_patterned"))
    },
    "maze_smoke": {
        "paths": "paths_smoke", "split": "revisit", "lengths": (64,), "count": 4, "batch": 4, "shown": 2,
        "memories": {name: OF_MAZES[name] for name in SMOKE}, "shown_memories": SMOKE,
    },
    "sweep": {
        "paths": "all", "split": "revisit_tune", "lengths": (200,), "count": 8, "batch": 8, "shown": 2,
        "memories": TUNED, "shown_memories": ("none", "centre"),
    },
}  # fmt: skip


def get_config(arg: str = "all") -> ConfigDict:
    """The run of a variant."""
    v = VARIANTS[common.known("configs/eval/revisit.py", arg, VARIANTS)]
    of_maze = arg.startswith("maze")
    return ConfigDict(
        {
            "run": "revisit",
            "data_dir": "@paths",
            "collect": (mazes if of_maze else data).get_config(v["paths"]).to_dict(),
            "model_dir": "" if of_maze else "asset:vizdoom/slow",
            "place_dir": "" if of_maze else "asset:vizdoom/place",
            "weights_dir": "",
            "revisit": {
                "split": v["split"], "lengths": v["lengths"], "paths": v["count"], "batch": v["batch"],
                "protocols": ("generated", "primed"), "future": FUTURE, "guidance": 1.0, "seed": 0,
                "decode_frames": FUTURE, "shown_paths": v["shown"], "shown_memories": v["shown_memories"],
                "memories": (), "networks": (),
            },
            "memories": v["memories"],
            "sampler": common.sampler(maze.SAMPLER_STEPS if of_maze else SAMPLER_STEPS),
        },
        convert_dict=True,
    )  # fmt: skip
