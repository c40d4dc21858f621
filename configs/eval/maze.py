"""A maze model end to end on mazes that it has never seen. No foreign weights, and most of it without any network.

    python -m vgen_jax.main --config=configs/eval/maze.py:plain,MODEL,PLACE,ACTION --workdir=out

where MODEL is an export or the work directory of a training (``configs/slow/maze.py``), PLACE that of
``configs/eval/place_encoder.py:maze`` and ACTION that of ``configs/eval/action_predictor.py:maze`` (exports). The
instruments are of the same world: ``maze`` and its data for ``plain``, ``maze_patterned`` for ``patterned``.

stage        what                                                         numbers
next_chunk   256 windows, 4 frames after 2 real ones: true actions and    PSNR, SSIM, gain over "repeat last frame",
             those of other windows; texts alone, likewise                action and text shuffle ratios
rollout_64   64 rollouts of 64 frames from one real one, no memory        sharpness twice, at the end too; SCuts, action
                                                                          error ratio, fd_place, walls
rollout_256  the same of 256 frames                                       the same
unheard      windows whose commands are said in words that         the same
             no training says so (``simulators.wording``)
turn         64 times a circle to the right: 48 frames from one real one  walls: ``walls_clips`` is the share of
                                                                          rollouts with 80 % of columns right

One stage alone: ``plain.turn,MODEL``, or with ``--config.generated``, ``--config.model_dir`` and so on as flags.
Every score of walls has that of the real frames beside it, ``…_real``: the instrument's own error.

variant    what                                               hardware and time
plain      the above, walls of one colour                     2 cores; 4 minutes for each of the first two,
                                                              the others not run yet
patterned  walls with patterns                                2 cores; not run yet
smoke      plain with 8 windows and 2 to 4 rollouts           2 cores; only its windows were run yet
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import Section
from configs.data import maze as data
from configs.eval import videos
from configs.slow import maze

PAST, FUTURE, LENGTH = 2, 4, 48
CIRCLE = 48  # frames of twelve commands of 30 degrees
LONG = 256
UNHEARD_STEPS = 32
SHARPNESS = ("gradient_ratio", "gradient_ratio_last", "laplacian_ratio", "laplacian_ratio_last")
FULL: Section = {
    "frames": 100 * (LONG + FUTURE + 1), "windows": 256, "batch": 32, "clips": 64, "clip_batch": 16,
    "lengths": (64, LONG),
}  # fmt: skip
VARIANTS: dict[str, Section] = {
    "plain": {**FULL, "simulator": "maze_plain"},
    "patterned": {**FULL, "simulator": "maze_patterned"},
    "smoke": {
        "frames": 4 * (LONG + FUTURE + 1), "windows": 8, "batch": 4, "clips": 4, "clip_batch": 4, "lengths": (16,),
        "simulator": "maze_plain",
    },
}  # fmt: skip


def rollouts(
    v: Section, model: str, place: str, action: str, metrics: tuple[str, ...], folder: str, split: str, frames: int
) -> Section:
    """Run ``evaluate_videos``: rollouts after one real frame."""
    out = videos.stage(metrics, real=folder, generated=model, skip=1)
    reads = "motion" if any(name.startswith("action_error_ratio_") for name in metrics) else "none"
    return {
        **out,
        "place_dir": place,
        "action_dir": action,
        "windows": {**out["windows"], "split": split, "count": v["clips"], "frames": frames, "action": reads},
        "model": {**out["model"], "batch_size": v["clip_batch"]},
        "sampler": common.sampler(maze.SAMPLER_STEPS),
    }


def stages(v: Section, model: str, place: str, action: str) -> dict[str, Section]:
    """The stages of a variant, in order."""
    world = v["simulator"]
    of_rollouts = (*SHARPNESS, "scuts", "walls", f"fd_place_{world}", f"action_error_ratio_{world}")
    recorded = common.collect_stage(
        {"validation": v["frames"]}, LONG + FUTURE, (64, 64), FUTURE, 25, workers=2, simulator=world
    )
    circles = common.paths_stage(
        {"circle": ("validation", 64, v["clips"])}, (64, 64), FUTURE, workers=2, simulator=world, kinds=("spin",)
    )
    for stage in (recorded, circles):
        stage["collect"]["maze"] = data.world(world)
    next_chunk = common.evaluate_stage(
        ((PAST, FUTURE),), v["windows"], v["batch"], LENGTH, common.sampler(maze.SAMPLER_STEPS), 1.0, model
    )
    next_chunk["evaluate"]["text"] = True
    unheard_frames = 2 * FUTURE * v["windows"]  # an episode of 33 frames has 7 windows
    words = common.collect_stage(
        {"validation": unheard_frames}, UNHEARD_STEPS, (64, 64), FUTURE, 25, workers=2, simulator=world
    )
    words["collect"]["maze"] = {**data.world(world), "wording": "held_out"}
    return {
        "data": recorded,
        "circles": circles,
        "words": words,
        "next_chunk": next_chunk,
        "unheard": {**next_chunk, "data": {**next_chunk["data"], "data_dir": "@words"}},
        **{
            f"rollout_{frames}": rollouts(v, model, place, action, of_rollouts, "@data", "validation", frames)
            for frames in v["lengths"]
        },
        "turn": rollouts(v, model, place, action, ("walls", *SHARPNESS), "@circles", "circle", CIRCLE),
    }


def get_config(arg: str = "plain") -> ConfigDict:
    """``variant`` or ``variant.stage``, then, with commas, the folders of the model and of the two instruments."""
    named, *folders = arg.split(",")
    variant, _, stage = named.partition(".")
    common.known("configs/eval/maze.py", variant, VARIANTS)
    if len(folders) > 3:
        raise ValueError(f"configs/eval/maze.py takes three folders, not {len(folders)}: MODEL,PLACE,ACTION")
    model, place, action = (*folders, "", "", "")[:3]
    every = stages(VARIANTS[variant], model, place, action)
    return common.staged("configs/eval/maze.py", variant, stage, f"A maze model, scored, {variant}", every)
