"""Slow learning on mazes, from nothing: record both worlds, train an autoencoder and a slow model, generate, evaluate.

    python -m vgen_jax.main --config=configs/slow/maze.py:cpu --workdir=out

runs every stage, each in its own folder of ``out``; a second start goes on where the first one stopped. One stage
alone: ``--config=configs/slow/maze.py:cpu.slow --workdir=out/slow`` (the others are siblings of the work directory).

The worlds are ``plain``, walls of one colour, and ``patterned``, walls with patterns and floors with lines. A model
learns the plain one (``slow``) and goes on with the patterned one (``patterned``). It predicts x_0 under the noise of
flow matching, weighted as a velocity, from a past with noise whose level it is told; the movement of the last frame has
a loss of its own (``objectives.masked_diffusion``).

variant  frames a world  size     hardware                             what to expect
tiny     1,500           16×16    2 cores; not timed yet               nothing to look at: for tests
cpu      300,000         64×64    2 cores; not timed yet               not measured yet
day      500,000         64×64    2 cores, a day; not timed yet        not measured yet
small    300,000         64×64    one data-centre GPU; not timed yet   not measured yet
base     10 million      128×128  8 GPUs or a TPU v5e-8                not measured yet
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import Section
from configs.data import maze as data
from configs.slow import vizdoom

SAMPLER_STEPS = 6
RECIPE: Section = {
    "simulator": "maze_plain",
    "schedule": {
        "kind": "flow", "steps": 1000, "start": 0.0, "end": 0.0, "zero_terminal_snr": False, "set_alpha_to_one": True,
    },
    "past_t": "level",
    "loss": {
        "kind": "x0", "drop_text": 0.1, "drop_action": 0.2, "weighting": "velocity", "draw": "noisy", "flow": 0.5,
    },
    "commands": vizdoom.TOUR,
}  # fmt: skip

# The small models have no attention but the middle's; a latent pixel has 64 dimensions, hence 128 channels.
CPU: Section = {
    **vizdoom.VARIANTS["cpu"],
    "episode_steps": data.EPISODE_STEPS, "autoencoder_steps": 1500, "augment_past": 0.4, "sampler_steps": SAMPLER_STEPS,
    "unet": {**vizdoom.VARIANTS["cpu"]["unet"], "block_channels": (128, 128)},
    "warp": {**vizdoom.VARIANTS["cpu"]["warp"], "width": 80, "text": True},  # what 16 MiB have room for
    "windows": ((2, 4), (1, 4), (6, 4)), "weights": (0.7, 0.15, 0.15),
    "steps": 10_000, "patterned_steps": 2_000, "checkpoint_every": 500, "ema": 0.998,
}  # fmt: skip
VARIANTS: dict[str, Section] = {
    "tiny": {
        **vizdoom.VARIANTS["tiny"], "augment_past": 0.4, "patterned_steps": 10,
        "warp": {"width": 8, "layers": 1, "cells": 1, "patch": 2, "norm_groups": 4, "text": True},
        "autoencoder": {**vizdoom.VARIANTS["tiny"]["autoencoder"], "patch": 2, "linear_path": True,
                        "block_channels": (16,)},
        "encode": False,
    },
    "cpu": CPU,
    "day": {
        **CPU,
        "frames": data.FRAMES, "steps": 80_000, "patterned_steps": 80_000,
        "decay": "constant", "ema": 0.9995,
    },
    "small": {
        **vizdoom.VARIANTS["small"],
        "augment_past": 0.4, "sampler_steps": SAMPLER_STEPS, "guidance": 1.0, "patterned_steps": 2_500,
        "windows": ((2, 4), (1, 4), (8, 8)), "weights": (0.6, 0.1, 0.3), "steps": 5_000,
    },
    "base": {
        **vizdoom.VARIANTS["base"], "augment_past": 0.4, "sampler_steps": 12, "guidance": 1.0,
        "patterned_steps": 100_000,
    },
}  # fmt: skip


def stages(v: Section) -> dict[str, Section]:
    """The stages of a variant, in order."""
    plain = common.world_stages(v, RECIPE)
    patterned = common.world_stages(v, {**RECIPE, "simulator": "maze_patterned"})
    for stages_of_world, simulator in ((plain, "maze_plain"), (patterned, "maze_patterned")):
        stages_of_world["data"]["collect"]["maze"] = data.world(simulator)
    slow = plain["slow"]
    source = slow["data"]["data_dir"]
    other = {"@data": "@data_patterned", "@latents": "@latents_patterned"}[source]
    out = {
        "data": plain["data"],
        "data_patterned": patterned["data"],
        "check": plain["check"],
        "autoencoder": {
            **plain["autoencoder"], "data": {**plain["autoencoder"]["data"], "data_dir": "@data_patterned"},
        },
    }  # fmt: skip
    if v["encode"]:
        out["latents"] = plain["latents"]
        out["latents_patterned"] = {**plain["latents"], "data_dir": "@data_patterned"}
    return {
        **out,
        "slow": slow,
        "generate": plain["generate"],
        "evaluate": plain["evaluate"],
        "patterned": {
            "run": "train",
            "objective": {"kind": "continued", "loss": RECIPE["loss"]},
            "model_dir": "@slow/export",
            "data": {**slow["data"], "data_dir": other},
            "optimizer": common.optimizer(
                v["rate"], v["patterned_steps"], v["warmup"], v["optimizer"], muon_kernels=common.MUON_KERNELS
            ),
            "train": common.train(v["patterned_steps"], v["checkpoint_every"], ema_decay=v["ema"]),
            "mesh": slow["mesh"],
        },
        "generate_patterned": {
            **plain["generate"], "model_dir": "@patterned/export",
            "start": {**plain["generate"]["start"], "data_dir": "@data_patterned"},
        },
        "evaluate_patterned": {
            **plain["evaluate"], "model_dir": "@patterned/export",
            "data": {**plain["evaluate"]["data"], "data_dir": "@data_patterned"},
        },
    }  # fmt: skip


def get_config(arg: str = "cpu") -> ConfigDict:
    """``variant`` for the whole pipeline, ``variant.stage`` for one stage alone."""
    file, (variant, _, stage) = "configs/slow/maze.py", arg.partition(".")
    every = stages(VARIANTS[common.known(file, variant, VARIANTS)])
    return common.staged(file, variant, stage, f"Slow learning on mazes, {variant}", every)
