"""Weights for the package: an export as float16 with a model card, under ``vgen_jax/assets``.

    python -m vgen_jax.main --config=configs/bundle.py:autoencoder --workdir=out/bundle --config.card.hardware='…'
    python -m vgen_jax.main --config=configs/bundle.py:slow --workdir=out/bundle --config.card.hardware='…'
    python -m vgen_jax.main --config=configs/bundle.py:place --workdir=out/bundle --config.card.hardware='…'

after ``configs/slow/vizdoom.py`` has trained them in ``out``. Seconds, on any machine. A file may have 16 MiB and all
together 40. ``card.hardware`` has to be given; look over ``card.data`` and ``card.command``.

variant      what is bundled, of ``out``
autoencoder  ``autoencoder/export``
slow         ``slow/export``, over the autoencoder that is bundled already
place        ``place/export``, the place encoder (``configs/eval/place_encoder.py``)
"""

from ml_collections import ConfigDict

from configs import common

DATA = "ViZDoom with the Freedoom 2 maps map01-map24, 64×64, chunks of 4 frames: 300,000 frames of the explorer"
COMMAND = "python -m vgen_jax.main --config=configs/slow/vizdoom.py:cpu --workdir=out"

VARIANTS = {
    "autoencoder": {
        "title": "KL autoencoder for ViZDoom frames", "stage": "autoencoder", "autoencoder": "", "evaluation": "",
        "command": COMMAND,
    },
    "slow": {
        "title": "Slow model: action-driven video of ViZDoom", "stage": "slow", "autoencoder": "vizdoom/autoencoder",
        "evaluation": "@evaluate", "command": COMMAND,
    },
    "place": {
        "title": "Place encoder for ViZDoom frames", "stage": "place", "autoencoder": "", "evaluation": "",
        "command": "python -m vgen_jax.main --config=configs/eval/place_encoder.py:cpu --workdir=out/place",
    },
}  # fmt: skip


def get_config(arg: str = "slow") -> ConfigDict:
    """The run for one network."""
    v = VARIANTS[common.known("configs/bundle.py", arg, VARIANTS)]
    bundle = {
        "source": f"@{v['stage']}/export",
        "name": f"vizdoom/{arg}",
        "folder": "",
        "autoencoder": v["autoencoder"],
    }
    card = {
        "title": v["title"], "command": v["command"], "data": DATA, "hardware": "", "training": f"@{v['stage']}",
        "evaluation": v["evaluation"],
    }  # fmt: skip
    return ConfigDict({"run": "bundle", "bundle": bundle, "card": card}, convert_dict=True)
