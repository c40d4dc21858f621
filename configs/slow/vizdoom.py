"""Slow learning on VizDoom, from nothing: record the game, train an autoencoder and a slow model, generate, evaluate.

    python -m vgen_jax.main --config=configs/slow/vizdoom.py:cpu --workdir=out

runs every stage, each in its own folder of ``out``; a second start goes on where the first one stopped. One stage
alone: ``--config=configs/slow/vizdoom.py:cpu.slow --workdir=out/slow`` (the others are siblings of the work directory).

variant  frames      size     hardware                             what to expect
tiny     1,500       16×16    2 cores, 2 minutes                   nothing to look at: for tests
cpu      300,000     64×64    2 cores, about 1 1/2 hours           what was seen moves, what is new blurs: 2.5 dB above
                                                                   "repeat the last frame", action shuffle ratio 1.50
small    300,000     64×64    one data-centre GPU, 10-20 minutes   not measured yet
base     10 million  128×128  8 GPUs or a TPU v5e-8                not measured yet
"""

from configs import common

TOUR = (
    "go forward", "go forward", "turn left", "turn left", "go forward", "turn right", "turn right", "stay",
    "step back", "go forward and turn right", "go forward and turn right", "strafe left", "turn around", "go forward",
    "go forward", "strafe right",
)  # fmt: skip

RECIPE = {
    "simulator": "vizdoom",
    "schedule": {
        "kind": "linear", "steps": 1000, "start": 1e-4, "end": 0.02, "zero_terminal_snr": False,
        "set_alpha_to_one": True,
    },
    "past_t": "zero", "loss": {"kind": "x0", "drop_text": 0.1, "drop_action": 0.1},
    "commands": TOUR,
}  # fmt: skip

VARIANTS = {
    "tiny": {
        "frames": {"train": 1200, "validation": 300}, "episode_steps": 32, "size": (16, 16), "chunk": 2, "shard": 8,
        "autoencoder": {
            "block_channels": (16, 16), "layers_per_block": 1, "latent_channels": 4, "norm_groups": 4, "patch": 1,
            "linear_path": False, "dtype": "float32", "kl_weight": 1e-6,
        },
        "autoencoder_batch": 8, "autoencoder_steps": 20, "autoencoder_rate": 1e-3, "encode": True,
        "unet": {
            "block_channels": (16, 16), "attention_levels": (False, True), "layers_per_block": 1, "head_dim": 8,
            "norm_groups": 4, "transformer_in_heads": 2, "scale_shift": True, "remat": "none", "dtype": "float32",
        },
        "text": {"width": 16, "layers": 1, "heads": 2, "max_length": 32},
        "windows": ((2, 2), (1, 2)), "weights": (0.5, 0.5), "batch": 8, "steps": 20, "rate": 1e-3, "warmup": 2,
        "optimizer": "adam",
        "decay": "cosine", "checkpoint_every": 10, "ema": 0.9, "sampler_steps": 4, "guidance": 1.0, "generate": 16,
        "episodes": (0,), "evaluate": 16, "evaluate_batch": 8, "cpu_devices": 0,
        "augment_past": 0.1, "warp": common.NO_WARP,
    },
    "cpu": {
        "frames": {"train": 300_000, "validation": 24_000}, "episode_steps": 256, "size": (64, 64), "chunk": 4,
        "shard": 100,
        "autoencoder": {
            "block_channels": (64,), "layers_per_block": 1, "latent_channels": 64, "norm_groups": 8, "patch": 8,
            "linear_path": True, "dtype": "float32", "kl_weight": 1e-6,
        },
        "autoencoder_batch": 8, "autoencoder_steps": 600, "autoencoder_rate": 1e-3, "encode": False,
        "unet": {
            "block_channels": (96, 96), "attention_levels": (False, False), "layers_per_block": 1, "head_dim": 32,
            "norm_groups": 8, "transformer_in_heads": 2, "scale_shift": True, "remat": "none", "dtype": "float32",
        },
        "text": {"width": 64, "layers": 2, "heads": 4, "max_length": 48},
        "augment_past": 0.05, "warp": {"width": 96, "layers": 3, "cells": 2, "patch": 8, "norm_groups": 8},
        "windows": ((2, 4), (6, 4), (1, 4)), "weights": (0.6, 0.2, 0.2), "batch": 8, "steps": 5000, "rate": 2e-3,
        "warmup": 50, "optimizer": "muon",
        "decay": "cosine", "checkpoint_every": 250, "ema": 0.995, "sampler_steps": 4, "guidance": 1.0,
        "generate": 256, "episodes": (3, 30, 60, 85), "evaluate": 256, "evaluate_batch": 32, "cpu_devices": 2,
    },
    "small": {
        "frames": {"train": 300_000, "validation": 24_000}, "episode_steps": 256, "size": (64, 64), "chunk": 4,
        "shard": 100,
        "autoencoder": {
            "block_channels": (128,), "layers_per_block": 2, "latent_channels": 64, "norm_groups": 32, "patch": 8,
            "linear_path": True, "dtype": "float32", "kl_weight": 1e-6,
        },
        "autoencoder_batch": 64, "autoencoder_steps": 3000, "autoencoder_rate": 1e-3, "encode": True,
        "unet": {
            "block_channels": (384, 512), "attention_levels": (True, True), "layers_per_block": 2,
            "head_dim": 64, "norm_groups": 32, "transformer_in_heads": 4, "scale_shift": True, "remat": "none",
            "dtype": "bfloat16",
        },
        "text": {"width": 256, "layers": 2, "heads": 4, "max_length": 64},
        "windows": ((4, 4), (8, 8), (1, 4)), "weights": (0.5, 0.3, 0.2), "batch": 64, "steps": 10_000, "rate": 5e-4,
        "warmup": 500, "optimizer": "adam",
        "decay": "cosine", "checkpoint_every": 1000, "ema": 0.9995, "sampler_steps": 25,
        "guidance": 1.5, "generate": 512, "episodes": (3, 30, 60, 85), "evaluate": 512, "evaluate_batch": 64,
        "cpu_devices": 0, "augment_past": 0.05,
        "warp": {"width": 256, "layers": 4, "cells": 4, "patch": 8, "norm_groups": 32},
    },
    "base": {
        "frames": {"train": 10_000_000, "validation": 100_000}, "episode_steps": 512, "size": (128, 128), "chunk": 8,
        "shard": 200,
        "autoencoder": {
            "block_channels": (128, 256), "layers_per_block": 2, "latent_channels": 64, "norm_groups": 32,
            "patch": 4, "linear_path": True, "dtype": "float32", "kl_weight": 1e-6,
        },
        "autoencoder_batch": 128, "autoencoder_steps": 20_000, "autoencoder_rate": 5e-4, "encode": True,
        "unet": {
            "block_channels": (384, 512, 768), "attention_levels": (True, True, True), "layers_per_block": 2,
            "head_dim": 64, "norm_groups": 32, "transformer_in_heads": 8, "scale_shift": True, "remat": "dots",
            "dtype": "bfloat16",
        },
        "text": {"width": 512, "layers": 4, "heads": 8, "max_length": 96},
        "windows": ((8, 8), (16, 16), (1, 8)), "weights": (0.5, 0.3, 0.2), "batch": 256, "steps": 200_000,
        "rate": 1e-4, "warmup": 2000, "optimizer": "adam",
        "decay": "cosine", "checkpoint_every": 2000, "ema": 0.9999, "sampler_steps": 50,
        "guidance": 2.0, "generate": 1024, "episodes": (3, 30, 60, 85), "evaluate": 2048, "evaluate_batch": 64,
        "cpu_devices": 0, "augment_past": 0.05,
        "warp": {"width": 384, "layers": 6, "cells": 4, "patch": 8, "norm_groups": 32},
    },
}  # fmt: skip


def stages(v):
    """The stages of a variant, in order."""
    return common.world_stages(v, RECIPE)


def get_config(arg="cpu"):
    """``variant`` for the whole pipeline, ``variant.stage`` for one stage alone."""
    variant, _, stage = arg.partition(".")
    if variant not in VARIANTS:
        raise ValueError(f"configs/slow/vizdoom.py has no variant '{variant}': use one of {', '.join(VARIANTS)}")
    return common.staged(
        "configs/slow/vizdoom.py", variant, stage, f"Slow learning on VizDoom, {variant}", stages(VARIANTS[variant])
    )
