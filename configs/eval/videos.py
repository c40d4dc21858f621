"""Scores of generated videos against real ones: two folders of .mp4, .gif, .npz or .npy files, made by any program.

    python -m vgen_jax.main --config=configs/eval/videos.py --config.real=A --config.generated=B --workdir=out/scores

variant   metrics                                                                      foreign weights
plain     PSNR, SSIM, SCuts (the default)                                              none
full      those, LPIPS (VGG), FID, FVD: the tables of SlowFast-VGen and AVID           VGG-16, Inception-v3, I3D
places    those of plain, and an in-domain distance of VizDoom's frames                none
sets      FID and FVD of videos that are not pairs                                     Inception-v3, I3D

``--config.weights_dir=FOLDER`` or the environment variable VGEN_WEIGHTS says where those lie; docs/evaluation.md has
their names. FVD needs 9 frames or more. ``pip install 'vgen_jax[eval]'`` for SCuts and LPIPS. ``plain`` needs a core;
for the networks of ``full`` a GPU is the right place.
"""

from ml_collections import ConfigDict

from configs import common

PLAIN = ("psnr", "ssim", "scuts")
VARIANTS = {
    "plain": (PLAIN, True),
    "full": ((*PLAIN, "lpips_vgg", "fid_inception", "fvd_i3d"), True),
    "places": ((*PLAIN, "fd_place_vizdoom"), True),
    "sets": (("fid_inception", "fvd_i3d"), False),
}


def get_config(arg="plain"):
    """``arg``: which metrics."""
    if arg not in VARIANTS:
        raise ValueError(f"configs/eval/videos.py has no variant '{arg}': use one of {', '.join(VARIANTS)}")
    metrics, paired = VARIANTS[arg]
    return ConfigDict(
        {
            "run": "evaluate_videos",
            "real": "path/of/the/real/videos",
            "generated": "path/of/the/generated/videos",
            "weights_dir": "",
            "place_dir": "asset:vizdoom/place" if arg == "places" else "",
            "cut": {"skip": 0, "frames": 0},
            "score": {"metrics": metrics, "paired": paired, "batch_size": 8},
            "mesh": common.MESH,
        },
        convert_dict=True,
    )
