"""A VizDoom model end to end on maps that it has never seen, by everything that runs without foreign weights.

    python -m vgen_jax.main --config=configs/eval/vizdoom.py --workdir=out

records what it needs, trains an action predictor on the training maps, scores the bundled model, and leaves
``out/report.html`` and ``out/results.json``. Needs ``pip install -e ".[sim,eval]"``. Another model, an export or a
training's work directory, goes into ``stages.next_chunk.model_dir``, ``stages.revisit.generated`` and
``stages.videos.generated``.

stage       what                                                           numbers
next_chunk  256 windows, 4 frames after 2 real ones, true actions and      PSNR, SSIM, gain over "repeat last frame",
            those of other windows                                         action shuffle ratio
revisit     48 paths that leave a place and come back, 64 frames after     SRC (of the recording too), PSNR, SCuts,
            one real one                                                   sharpness
videos      256 clips, 16 frames after 2 real ones, chunk after chunk      PSNR, SSIM, SCuts, sharpness, action error
                                                                           ratio, fd_place_vizdoom, fd_action_vizdoom

variant  what                                                       hardware and time
bundled  the above                                                  2 cores, 15 minutes
smoke    32 windows, 32 clips, 4 paths, 20 steps of the predictor   2 cores; not timed yet
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import Section
from configs.data import revisit
from configs.eval import action_predictor, videos
from configs.slow import vizdoom

MODEL = "asset:vizdoom/slow"
PAST, FUTURE, LENGTH, SAMPLER_STEPS = 2, 4, 48, 4
OF_CLIPS = (
    "psnr", "ssim", "scuts", "sharpness", "action_error_ratio_vizdoom", "fd_place_vizdoom", "fd_action_vizdoom",
)  # fmt: skip
OF_PATHS = ("src_place_vizdoom", "psnr", "scuts", "sharpness")
VARIANTS: dict[str, Section] = {
    "bundled": {
        "frames": {"train": 60_000, "validation": 24_000}, "steps": 2500, "windows": 256, "clips": 256, "paths": 48,
        "recorded": "all",
    },
    "smoke": {
        "frames": {"train": 6_000, "validation": 6_000}, "steps": 20, "windows": 32, "clips": 32, "paths": 4,
        "recorded": "smoke",
    },
}  # fmt: skip


def stages(v: Section) -> dict[str, Section]:
    """The stages of a variant, in order."""
    cpu = vizdoom.VARIANTS["cpu"]
    clips = videos.stage(OF_CLIPS, real="@data", generated=MODEL, skip=PAST)
    paths = videos.stage(OF_PATHS, real="@paths", generated=MODEL, skip=1)
    splits = {"revisit_64": revisit.VARIANTS[v["recorded"]]["revisit_64"]}
    return {
        "data": common.collect_stage(v["frames"], cpu["episode_steps"], cpu["size"], FUTURE, cpu["shard"], workers=2),
        "paths": common.paths_stage(splits, size=cpu["size"], chunk=FUTURE, workers=2),
        "action": action_predictor.stage({**action_predictor.VARIANTS["vizdoom"], "steps": v["steps"]}),
        "next_chunk": common.evaluate_stage(
            ((PAST, FUTURE),), v["windows"], 32, LENGTH, common.sampler(SAMPLER_STEPS), 1.0, MODEL
        ),
        "revisit": {
            **paths,
            "windows": {**paths["windows"], "split": "revisit_64", "count": v["paths"], "frames": 64},
            "model": {**paths["model"], "batch_size": min(16, v["paths"])},
        },
        "videos": {**clips, "action_dir": "@action/export", "windows": {**clips["windows"], "count": v["clips"]}},
    }


def get_config(arg: str = "bundled") -> ConfigDict:
    """``variant`` for the whole pipeline, ``variant.stage`` for one stage alone."""
    file, (variant, _, stage) = "configs/eval/vizdoom.py", arg.partition(".")
    every = stages(VARIANTS[common.known(file, variant, VARIANTS)])
    return common.staged(file, variant, stage, "A VizDoom model, scored", every)
