"""Scores of generated videos against real ones: two folders of .mp4, .gif, .npz or .npy files, made by any program.

    python -m vgen_jax.main --config=configs/eval/videos.py --config.real=A --config.generated=B --workdir=out/scores

``real`` may also be a folder of recorded episodes, and ``generated`` a model (an export, ``asset:vizdoom/slow``, the
work directory of a training), which then continues windows of them: give ``windows.past`` as ``cut.skip`` too.

variant   metrics                                                                      foreign weights
plain     PSNR, SSIM, SCuts (the default)                                              none
full      those, LPIPS (VGG), FID, FVD: the tables of SlowFast-VGen and AVID           VGG-16, Inception-v3, I3D
places    those of plain, sharpness, and an in-domain distance of VizDoom's frames     none
sets      FID and FVD of videos that are not pairs                                     Inception-v3, I3D

``--config.weights_dir=FOLDER`` or the environment variable VGEN_WEIGHTS says where those lie; docs/evaluation.md has
their names. FVD needs 9 frames or more. ``pip install 'vgen_jax[eval]'`` for SCuts and LPIPS. ``plain`` needs a core;
for the networks of ``full`` a GPU is the right place. ``action_error_ratio_…`` and ``fd_action_…`` need an action
predictor, ``--config.action_dir=…/export`` (``configs/eval/action_predictor.py``).
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import Section

PLAIN = ("psnr", "ssim", "scuts")
PLACES = ("sharpness", "fd_place_vizdoom")
VARIANTS = {
    "plain": (PLAIN, True),
    "full": ((*PLAIN, "lpips_vgg", "fid_inception", "fvd_i3d"), True),
    "places": ((*PLAIN, *PLACES), True),
    "sets": (("fid_inception", "fvd_i3d"), False),
}


def stage(
    metrics: tuple[str, ...],
    paired: bool = True,
    real: str = "path/of/the/real/videos",
    generated: str = "path/of/the/generated/videos",
    skip: int = 0,
) -> Section:
    """Run ``evaluate_videos``. Recorded episodes are cut into windows of ``skip`` (1 or more) and 16 frames."""
    return {
        "run": "evaluate_videos",
        "real": real,
        "generated": generated,
        "weights_dir": "",
        "place_dir": "asset:vizdoom/place" if any("place_vizdoom" in name for name in metrics) else "",
        "action_dir": "",
        "cut": {"skip": skip, "frames": 0},
        "score": {"metrics": metrics, "paired": paired, "batch_size": 8},
        "windows": {
            "split": "validation", "count": 256, "past": max(1, skip), "frames": 16, "action": "continuous", "seed": 0,
        },
        "model": {"future": 4, "guidance": 1.0, "batch_size": 16, "seed": 0},
        "sampler": common.sampler(4),
        "memory": common.memory(),
        "mesh": common.MESH,
    }  # fmt: skip


def get_config(arg: str = "plain") -> ConfigDict:
    """``arg``: which metrics."""
    common.known("configs/eval/videos.py", arg, VARIANTS)
    return ConfigDict(stage(*VARIANTS[arg]), convert_dict=True)
