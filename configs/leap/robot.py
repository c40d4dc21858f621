"""SVG-LP, VG-LeAP, Causal-LeAP, RIVER and RAFI on a robot's drives: data, five models, videos, one table.

    python -m vgen_jax.main --config=configs/leap/robot.py:cpu --workdir=out

runs every stage, each in its own folder of ``out``; a second start goes on where the first one stopped. One stage
alone: ``--config=configs/leap/robot.py:cpu.vg_leap --workdir=out/vg_leap``. The last stage, ``table``, continues the
same clips with every model and asks what of the paper's claims holds. To sum the KL over dimensions instead of
averaging it, as SVG does: ``--config.objective.loss.reduce=sum`` for a stage alone.

variant  frames            size   hardware                            what to expect
tiny     1,200             16×16  2 cores; not timed yet              nothing to look at: for tests
cpu      48,000            32×32  2 cores; meant for three hours      not measured yet
small    240,000           64×64  one data-centre GPU; not timed yet  not measured yet
paper    RoAM              64×64  one data-centre GPU; not timed yet  not measured yet
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import Section
from configs.eval import action_predictor
from configs.rafi import robot as rafi

MODELS = ("svg_lp", "vg_leap", "causal_leap")
LOSS: Section = {"beta": 1e-3, "action": 1e-4, "alpha": 1e-4, "reduce": "mean", "free_bits": 0.0}
# LeAP's variants of SVG-LP's networks; the baseline has them as well, so that only what sees what differs.
LEAP: Section = {
    "action_code": 16, "action_rnn": 32, "action_latent": 8, "cell_tanh": False, "head_norm_last": True, "skip_back": 1,
    "dtype": "float32", "frame_layers": 2,
}  # fmt: skip
SLOW: Section = {
    "text": {"width": 0, "layers": 1, "heads": 1, "max_length": 8},
    "schedule": {
        "kind": "flow", "steps": 1000, "start": 0.0, "end": 0.0, "zero_terminal_snr": False, "set_alpha_to_one": True,
    },
    "masking": {"past_t": "zero", "augment_past": 0.1, "reference": True},
    "warp": common.NO_WARP,
}  # fmt: skip

VARIANTS: dict[str, Section] = {
    "tiny": {
        "leap": {
            **LEAP, "size": 16, "widths": (4, 8), "convs": (1, 1), "code": 16, "latent": 4, "rnn": 16,
            "cell_tanh": True,
        },
        "batch": 8, "steps": 10, "rate": 1e-3, "checkpoint_every": 10,
        "unet": {
            "block_channels": (8,), "attention_levels": (False,), "layers_per_block": 1, "head_dim": 8,
            "norm_groups": 4, "transformer_in_heads": 1, "scale_shift": True, "remat": "none", "dtype": "float32",
        },
        "slow_batch": 8, "slow_steps": 10, "slow_rate": 1e-3, "sampler_steps": 2,
        "action": "", "clips": 4, "samples": 2, "evaluate_batch": 4, "frames": 8, "draws": 100,
        "metrics": ("psnr", "ssim"),
    },
    "cpu": {
        "leap": {
            **LEAP, "size": 32, "widths": (24, 48, 96), "convs": (1, 1, 2), "code": 128, "latent": 32, "rnn": 256,
            "cell_tanh": True,
        },
        "batch": 8, "steps": 2000, "rate": 5e-4, "checkpoint_every": 250,
        "unet": {
            "block_channels": (96, 128), "attention_levels": (False, True), "layers_per_block": 1, "head_dim": 32,
            "norm_groups": 8, "transformer_in_heads": 2, "scale_shift": True, "remat": "none", "dtype": "float32",
        },
        "slow_batch": 32, "slow_steps": 1000, "slow_rate": 5e-4, "sampler_steps": 20,
        "action": "vizdoom", "clips": 128, "samples": 5, "evaluate_batch": 32, "frames": 20, "draws": 1000,
        "metrics": ("psnr", "ssim", "lpips_action_robot", "fd_action_robot"),
    },
    "small": {
        "leap": {
            **LEAP, "size": 64, "widths": (64, 128, 256, 512), "convs": (2, 2, 3, 3), "code": 256, "latent": 128,
            "rnn": 512, "cell_tanh": True,
        },
        "batch": 32, "steps": 30_000, "rate": 1e-4, "checkpoint_every": 2500,
        "unet": {
            "block_channels": (256, 384), "attention_levels": (True, True), "layers_per_block": 2, "head_dim": 64,
            "norm_groups": 32, "transformer_in_heads": 4, "scale_shift": True, "remat": "none", "dtype": "bfloat16",
        },
        "slow_batch": 64, "slow_steps": 30_000, "slow_rate": 2e-4, "sampler_steps": 25,
        "action": "vizdoom", "clips": 512, "samples": 20, "evaluate_batch": 64, "frames": 20, "draws": 1000,
        "metrics": ("psnr", "ssim", "lpips_action_robot", "fd_action_robot"),
    },
    "paper": {
        "leap": {
            **LEAP, "size": 64, "widths": (64, 128, 256, 512), "convs": (2, 2, 3, 3), "code": 256, "latent": 128,
            "rnn": 512,
        },
        "batch": 32, "steps": 180_000, "rate": 1e-4, "checkpoint_every": 5000,
        "unet": None, "action": "", "clips": 1024, "samples": 20, "evaluate_batch": 64, "frames": 20, "draws": 1000,
        "metrics": ("psnr", "ssim", "lpips_vgg", "cosine_vgg16", "fvd_i3d"),
    },
}  # fmt: skip


def leap_stage(kind: str, v: Section, cpu_devices: int = 0) -> Section:
    """Run ``train`` with one of the recurrent models, on frames in ``@data``."""
    optimizer = common.optimizer(v["rate"], v["steps"], 0, decay="constant")
    return {
        "run": "train",
        "objective": {"kind": kind, "loss": LOSS},
        "leap": v["leap"],
        "data": common.data("@data", "train", (rafi.WINDOW,), (1.0,), v["batch"], 0),
        "optimizer": {**optimizer, "clip": 0.0, "eps": 1e-7},
        "train": common.train(v["steps"], v["checkpoint_every"], ema_decay=0.0),
        "mesh": {**common.MESH, "cpu_devices": cpu_devices},
    }


def slow_stage(v: Section, source: str, cpu_devices: int = 0) -> Section:
    """Run ``train`` with the slow model, without actions and texts, over the VQGAN's latents."""
    stage = common.slow_stage(
        {"unet": v["unet"], **SLOW},
        {"kind": "x0", "drop_text": 0.0, "drop_action": 0.0, "weighting": "velocity", "draw": "noisy", "flow": 0.0},
        common.data(source, "train", ((rafi.PAST, 4),), (1.0,), v["slow_batch"], 0, action="none"),
        common.optimizer(v["slow_rate"], v["slow_steps"], max(1, v["slow_steps"] // 20)),
        common.train(v["slow_steps"], max(10, v["slow_steps"] // 4)), cpu_devices,
    )  # fmt: skip
    return {**stage, "autoencoder_dir": "@vqgan/export"}


def action_stage(v: Section) -> Section:
    """The action predictor, whose features stand for LPIPS's and I3D's."""
    return action_predictor.stage(action_predictor.VARIANTS[v["action"]])


def table_stage(v: Section, solver: Section) -> Section:
    """Run ``leap_table`` on validation clips in ``@data``."""
    methods: Section = {"repeat": {"dir": "", "label": "last frame repeated", "told": False, "sampler_steps": 0}}
    if v["unet"]:
        methods["slow"] = {
            "dir": "@slow/export", "label": "slow model, no actions", "told": False,
            "sampler_steps": v["sampler_steps"],
        }  # fmt: skip
    labels = {
        "svg_lp": "SVG-LP", "vg_leap": "VG-LeAP", "causal_leap": "Causal-LeAP", "river": "RIVER", "rafi": "RAFI",
    }  # fmt: skip
    for name, label in labels.items():
        methods[name] = {"dir": f"@{name}/export", "label": label, "told": False, "sampler_steps": 0}
    return {
        "run": "leap_table",
        "data_dir": "@data",
        "order": tuple(methods),
        "methods": methods,
        "predict": {
            "samples": v["samples"], "batch_size": v["evaluate_batch"], "seed": 0, "draws": v["draws"],
            "metrics": v["metrics"],
        },
        "windows": {
            "split": "validation", "count": v["clips"], "past": rafi.PAST, "frames": v["frames"],
            "action": "continuous", "seed": 77,
        },
        "solver": solver,
        "weights_dir": "",
        "action_dir": "@action/export" if v["action"] else "",
        "place_dir": "",
    }  # fmt: skip


def stages(variant: str) -> dict[str, Section]:
    """The stages of a variant, in order."""
    v, flow, devices = VARIANTS[variant], rafi.VARIANTS[variant], rafi.cpu_devices(variant)
    out = rafi.data_stages(variant)
    if v["action"]:
        out["action"] = action_stage(v)
    out |= {kind: leap_stage(kind, v, devices) for kind in MODELS}
    out |= rafi.flow_stages(flow, devices)
    if v["unet"]:
        out["slow"] = slow_stage(v, "@latents" if flow["encode"] else "@data", devices)
    out["generate_causal_leap"] = rafi.generate_stage("causal_leap", flow["solver"])
    out["generate_rafi"] = rafi.generate_stage("rafi", flow["solver"])
    out["table"] = table_stage(v, flow["solver"])
    return out


def get_config(arg: str = "cpu") -> ConfigDict:
    """``variant`` for the whole pipeline, ``variant.stage`` for one stage alone."""
    file, (variant, _, stage) = "configs/leap/robot.py", arg.partition(".")
    every = stages(common.known(file, variant, VARIANTS))
    return common.staged(file, variant, stage, f"Video and action predicted together, {variant}", every)
