"""RIVER and RAFI on a robot's drives: data, VQGAN, latents, both models, videos with the actions that RAFI expects.

    python -m vgen_jax.main --config=configs/rafi/robot.py:cpu --workdir=out

runs every stage, each in its own folder of ``out``; a second start goes on where the first one stopped. One stage
alone: ``--config=configs/rafi/robot.py:cpu.rafi --workdir=out/rafi``. ``configs/leap/robot.py`` has these and the
recurrent models, and compares all of them.

variant  frames            size   latents    hardware                            what to expect
tiny     1,200             16×16  4×4×4      2 cores; not timed yet              nothing to look at: for tests
cpu      48,000            32×32  4×4×8      2 cores; not timed yet              not measured yet
small    240,000           64×64  8×8×8      one data-centre GPU; not timed yet  not measured yet
paper    RoAM              64×64  4×4×8      one data-centre GPU; not timed yet  not measured yet
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import Section
from configs.data import roam, robot

PAST, WINDOW = 5, (5, 11)  # the context, and windows of 15 frames and one that the last action leads to
SIGMA = 1e-7

VARIANTS: dict[str, Section] = {
    "tiny": {
        "vqgan": {
            "block_channels": (8, 8, 8), "layers_per_block": 1, "latent_channels": 4, "code_channels": 4, "codes": 16,
            "norm_groups": 4, "attention_levels": (), "codebook": "gradient", "decay": 0.0, "dtype": "float32",
        },
        "discriminator": {"width": 8, "layers": 1}, "adversarial": 0.0, "perceptual": 0.0, "start": 0,
        "vqgan_batch": 8, "vqgan_steps": 10, "vqgan_rate": 1e-3, "unit_latents": True, "encode": True,
        "uvit": {
            "width": 16, "heads": 2, "depth": 1, "middle": 1, "positions": 16, "dropout": 0.05, "dtype": "float32",
        },
        "horizon": 8, "batch": 8, "steps": 10, "rate": 1e-3, "warmup": 2, "decay": "cosine", "kind": "adamw",
        "weight_decay": 5e-6, "checkpoint_every": 10, "solver": {"kind": "euler", "steps": 2, "start": 1.0},
    },
    "cpu": {
        "vqgan": {
            "block_channels": (32, 32, 48, 64), "layers_per_block": 1, "latent_channels": 8, "code_channels": 8,
            "codes": 1024, "norm_groups": 8, "attention_levels": (3,), "codebook": "ema", "decay": 0.99,
            "dtype": "float32",
        },
        "discriminator": {"width": 32, "layers": 2}, "adversarial": 0.0, "perceptual": 0.0, "start": 0,
        "vqgan_batch": 16, "vqgan_steps": 1800, "vqgan_rate": 1e-3, "unit_latents": True, "encode": True,
        "uvit": {
            "width": 192, "heads": 6, "depth": 2, "middle": 1, "positions": 16, "dropout": 0.0, "dtype": "float32",
        },
        "horizon": 16, "batch": 32, "steps": 2000, "rate": 5e-4, "warmup": 100, "decay": "root", "kind": "adamw",
        "weight_decay": 5e-6, "checkpoint_every": 500, "solver": {"kind": "midpoint", "steps": 10, "start": 1.0},
    },
    "small": {
        "vqgan": {
            "block_channels": (64, 64, 128, 128), "layers_per_block": 2, "latent_channels": 8, "code_channels": 8,
            "codes": 4096, "norm_groups": 32, "attention_levels": (3,), "codebook": "ema", "decay": 0.99,
            "dtype": "float32",
        },
        "discriminator": {"width": 64, "layers": 3}, "adversarial": 0.8, "perceptual": 0.0, "start": 5000,
        "vqgan_batch": 32, "vqgan_steps": 20_000, "vqgan_rate": 2e-4, "unit_latents": True, "encode": True,
        "uvit": {
            "width": 512, "heads": 8, "depth": 4, "middle": 5, "positions": 64, "dropout": 0.05, "dtype": "bfloat16",
        },
        "horizon": 32, "batch": 64, "steps": 50_000, "rate": 2e-4, "warmup": 1000, "decay": "root", "kind": "adamw",
        "weight_decay": 5e-6, "checkpoint_every": 2500, "solver": {"kind": "midpoint", "steps": 25, "start": 1.0},
    },
    "paper": {
        "vqgan": {
            "block_channels": (128, 128, 256, 256, 512), "layers_per_block": 2, "latent_channels": 8,
            "code_channels": 8, "codes": 16_384, "norm_groups": 32, "attention_levels": (4,), "codebook": "gradient",
            "decay": 0.0, "dtype": "float32",
        },
        "discriminator": {"width": 64, "layers": 3}, "adversarial": 0.8, "perceptual": 1.0, "start": 10_000,
        "vqgan_batch": 16, "vqgan_steps": 100_000, "vqgan_rate": 4.5e-6, "unit_latents": False, "encode": False,
        "uvit": {
            "width": 768, "heads": 8, "depth": 4, "middle": 5, "positions": 512, "dropout": 0.05, "dtype": "float32",
        },
        "horizon": 32, "batch": 16, "steps": 450_000, "rate": 1e-4, "warmup": 7500, "decay": "root", "kind": "adamw",
        "weight_decay": 5e-6, "checkpoint_every": 5000, "solver": {"kind": "rk4", "steps": 99, "start": 1.0},
    },
}  # fmt: skip


def data_stages(variant: str) -> dict[str, Section]:
    """Where the frames come from: a robot's drives, of ``paper`` RoAM's own files."""
    if variant == "paper":
        data = roam.get_config().to_dict()
        return {"data": data, "check": {"run": "check_data", "data_dir": "@data"}}
    return robot.stages(robot.VARIANTS[variant])


def vqgan_stage(v: Section, cpu_devices: int = 0) -> Section:
    """Run ``train`` with the objective ``vqgan``, on frames in ``@data``."""
    optimizer = {
        **common.optimizer(v["vqgan_rate"], v["vqgan_steps"], min(100, v["vqgan_steps"] // 10), decay="constant"),
        "b1": 0.5, "b2": 0.9,
    }  # fmt: skip
    if v["adversarial"]:
        optimizer = {**optimizer, "second": {"parameters": "^discriminator/", "optimizer": dict(optimizer)}}
    return {
        "run": "train",
        "objective": {
            "kind": "vqgan",
            "loss": {
                "codebook": 1.0, "commitment": 0.25, "perceptual": v["perceptual"], "adversarial": v["adversarial"],
                "start": v["start"],
            },
        },
        "vqgan": v["vqgan"],
        "discriminator": v["discriminator"],
        "weights_dir": "",
        "unit_latents": v["unit_latents"],
        "data": common.data("@data", "train", ((1, 1),), (1.0,), v["vqgan_batch"], 0, seed=1, action="none"),
        "optimizer": optimizer,
        "train": common.train(v["vqgan_steps"], max(10, v["vqgan_steps"] // 4), ema_decay=0.0),
        "mesh": {**common.MESH, "cpu_devices": cpu_devices},
    }  # fmt: skip


def flow_stage(kind: str, v: Section, cpu_devices: int = 0) -> Section:
    """Run ``train`` with the objective ``river`` or ``rafi``."""
    source = "@latents" if v["encode"] else "@data"
    optimizer = common.optimizer(
        v["rate"], v["steps"], v["warmup"], kind=v["kind"], decay=v["decay"], weight_decay=v["weight_decay"]
    )  # fmt: skip
    return {
        "run": "train",
        "objective": {"kind": kind, "loss": {"sigma": SIGMA}},
        "rafi": {"uvit": v["uvit"], "horizon": v["horizon"]},
        "autoencoder_dir": "@vqgan/export",
        "data": common.data(source, "train", (WINDOW,), (1.0,), v["batch"], 0),
        "optimizer": {**optimizer, "clip": 0.0},
        "train": common.train(v["steps"], v["checkpoint_every"], ema_decay=0.0),
        "mesh": {**common.MESH, "cpu_devices": cpu_devices},
    }


def generate_stage(model: str, solver: Section, frames: int = 20, episodes: tuple[int, ...] = (0, 1)) -> Section:
    """Run ``generate``: a model goes on by itself from recorded validation frames in ``@data``."""
    return {
        "run": "generate",
        "model_dir": f"@{model}/export",
        "start": {
            "image": "", "data_dir": "@data", "split": "validation", "episodes": episodes, "frame": PAST - 1,
            "still": False,
        },
        "generate": {
            "past": PAST, "future": 5, "frames": frames, "actions": (), "actions_from": "", "guidance": 1.0, "seed": 0,
            "decode_frames": 5, "gif": True, "save_every": 8,
        },
        "solver": solver,
    }  # fmt: skip


def flow_stages(v: Section, cpu_devices: int = 0) -> dict[str, Section]:
    """From the autoencoder to both models."""
    out = {"vqgan": vqgan_stage(v, cpu_devices)}
    if v["encode"]:
        out["latents"] = {
            "run": "encode", "data_dir": "@data", "autoencoder_dir": "@vqgan/export", "batch_frames": 64,
        }  # fmt: skip
    return {**out, "river": flow_stage("river", v, cpu_devices), "rafi": flow_stage("rafi", v, cpu_devices)}


def cpu_devices(variant: str) -> int:
    """Parts that a CPU is split into: ``cpu`` uses two cores."""
    return 2 if variant == "cpu" else 0


def get_config(arg: str = "cpu") -> ConfigDict:
    """``variant`` for the whole pipeline, ``variant.stage`` for one stage alone."""
    file, (variant, _, stage) = "configs/rafi/robot.py", arg.partition(".")
    v = VARIANTS[common.known(file, variant, VARIANTS)]
    every = {
        **data_stages(variant),
        **flow_stages(v, cpu_devices(variant)),
        "generate": generate_stage("rafi", v["solver"]),
    }
    return common.staged(file, variant, stage, f"RAFI, {variant}", every)
