"""AVID and all of its baselines on CoinRun, from the game to the paper's table (arXiv:2410.12822, tables 1-6).

    python -m vgen_jax.main --config=configs/avid/coinrun.py:cpu --workdir=out

records Procgen's games, trains a base model on all of them but CoinRun, then every method on CoinRun under an equal
budget (the same number of updates of the same batch), and writes the table with intervals, the claims of the paper and
pictures of the masks into ``out/table``. A second start goes on where the first one stopped. One stage or method alone:
``--config=configs/avid/coinrun.py:cpu.avid --workdir=out/avid`` (the others are siblings of the work directory).

variant     frames  base   adapters  hardware                  what to expect
paper_71m   64×64   92 M   72 M      GPUs, days                the paper's sizes, data and steps; not run here
paper_22m   64×64   92 M   22 M      GPUs, days                likewise, with ControlNet-Small
small       64×64   18 M   5 M       one data-centre GPU       not run yet
cpu         32×32   below  below     2 cores, 71 minutes       docs/results.md
tiny        16×16                    2 cores, minutes          nothing to look at: for tests

``cpu`` is shrunk in everything: frames of 32×32, 4×4 pixels of which are one for the networks (``unet.patch``), two
levels, 32 to 64 channels, two heads of 16, 150,000 frames to train the base and the adapters on each, 256 test clips,
10 steps of DDIM for 200 of DDPM. And its loss is the plain error of x0: the paper's weight, the signal-to-noise ratio,
is 658 at the first step and 0.0000015 at the last, where sampling begins, which some hundred updates do not reach.
``fd_action_procgen`` stands for FVD, ``fd_frames_procgen`` for FID and ``lpips_action_procgen`` for LPIPS, since no
weights of those are at hand (``docs/evaluation.md``).
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import Section
from configs.data import procgen

PAST, FUTURE = 2, 8
SCHEDULE = {
    "kind": "sigmoid", "steps": 200, "start": -3.0, "end": 3.0, "zero_terminal_snr": False, "set_alpha_to_one": True,
}  # fmt: skip
WORLD = {"schedule": SCHEDULE, "kind": "x0", "actions": "discrete", "past": PAST}
POE, CFG, CLASSIFIER = (0.2, 0.4, 0.6), (0.3, 1.0, 3.0, 10.0), (0.003, 0.01, 0.03, 0.1, 0.3)
METRICS = (
    "psnr", "ssim", "sharpness", "action_error_ratio_procgen", "fd_action_procgen", "fd_frames_procgen",
    "lpips_action_procgen",
)  # fmt: skip


def unet(
    dim: int,
    mults: tuple[int, ...],
    heads: int,
    head_dim: int,
    patch: int = 1,
    remat: str = "none",
    dtype: str = "float32",
) -> Section:
    """A network's shape."""
    return {
        "dim": dim, "mults": mults, "heads": heads, "head_dim": head_dim, "patch": patch, "remat": remat, "dtype": dtype
    }  # fmt: skip


PAPER = {
    "size": (64, 64),
    "pretrain": procgen.VARIANTS["pretrain"]["train"],
    "coinrun": procgen.VARIANTS["coinrun500k"]["train"],
    "actions": procgen.levels(procgen.COINRUN, 10_000, shard=100),
    "test": procgen.TEST,
    "base": unet(100, (1, 2, 4, 8), 8, 64, dtype="bfloat16"),
    "classifier": unet(64, (1, 2, 4, 8), 8, 64, dtype="bfloat16"), "mlp_width": 1024,
    "predictor": {
        "level_channels": (256, 512), "blocks_per_level": 3, "width": 512, "mixers": 2, "norm_groups": 32,
        "dtype": "float32",
    },
    "batch": 64, "base_steps": 260_000, "steps": 65_000, "classifier_steps": 65_000, "predictor_steps": 100_000,
    "rate": 1e-4, "finetune_rate": 2e-5, "warmup": 1000, "ema": 0.9995, "checkpoint_every": 1000, "workers": 8,
    "sampler": {**common.sampler(200, "ddpm"), "clip_x0": 1.0}, "sample_batch": 64, "clips": 1024, "tune_clips": 256,
    "mask_clips": 64, "cpu_devices": 0, "weight": "eps",
}  # fmt: skip
ALWAYS = (
    "base", "avid", "no_mask", "no_conditioning", "diffusion", "product_of_experts", "action_guidance",
    "classifier_guidance", "finetune",
)  # fmt: skip

VARIANTS = {
    "paper_71m": {
        **PAPER, "adapter": unet(90, (1, 2, 4, 8), 6, 50, dtype="bfloat16"), "methods": (*ALWAYS, "controlnet"),
    },
    "paper_22m": {
        **PAPER, "adapter": unet(50, (1, 2, 4, 8), 4, 50, dtype="bfloat16"),
        "control": unet(52, (1, 2, 4, 8), 8, 64, dtype="bfloat16"), "methods": (*ALWAYS, "controlnet_small"),
    },
    "small": {
        **PAPER,
        "pretrain": procgen.levels(procgen.OTHERS, 200, steps=500, shard=50),
        "coinrun": procgen.levels(procgen.COINRUN, 500, steps=400),
        "actions": procgen.levels(procgen.COINRUN, 1000, steps=300, shard=50),
        "base": unet(64, (1, 2, 4), 4, 32, dtype="bfloat16"),
        "adapter": unet(36, (1, 2, 4), 4, 32, dtype="bfloat16"),
        "control": unet(36, (1, 2, 4), 4, 32, dtype="bfloat16"),
        "classifier": unet(32, (1, 2, 4), 4, 32, dtype="bfloat16"), "mlp_width": 512,
        "predictor": {
            "level_channels": (64, 128), "blocks_per_level": 1, "width": 256, "mixers": 2, "norm_groups": 8,
            "dtype": "float32",
        },
        "batch": 32, "base_steps": 6000, "steps": 1500, "classifier_steps": 1000, "predictor_steps": 2000,
        "rate": 5e-4, "finetune_rate": 1e-4, "warmup": 100, "ema": 0.995, "checkpoint_every": 500, "workers": 4,
        "sampler": {**common.sampler(50), "clip_x0": 1.0}, "sample_batch": 128, "tune_clips": 128,
        "methods": (*ALWAYS, "controlnet", "controlnet_small"),
    },
    "cpu": {
        **PAPER,
        "size": (32, 32),
        "pretrain": procgen.VARIANTS["pretrain150k"]["train"],
        "coinrun": procgen.levels(procgen.COINRUN, 500, steps=300),
        "actions": procgen.levels(procgen.COINRUN, 1000, steps=200, shard=50),
        "base": unet(64, (1, 2), 2, 16, patch=4),
        "adapter": unet(44, (1, 2), 2, 16, patch=4),
        "control": unet(48, (1, 2), 2, 16, patch=4),
        "classifier": unet(32, (1, 2), 2, 16, patch=4), "mlp_width": 128,
        "predictor": {
            "level_channels": (32, 64), "blocks_per_level": 1, "width": 64, "mixers": 2, "norm_groups": 8,
            "dtype": "float32",
        },
        "batch": 8, "base_steps": 2500, "steps": 700, "classifier_steps": 500, "predictor_steps": 4000,
        "rate": 1e-3, "finetune_rate": 3e-4, "warmup": 50, "ema": 0.99, "checkpoint_every": 200, "workers": 0,
        "sampler": {**common.sampler(10), "clip_x0": 1.0}, "sample_batch": 32, "clips": 256, "tune_clips": 64,
        "mask_clips": 32, "cpu_devices": 2, "weight": "none", "methods": (*ALWAYS, "controlnet", "controlnet_small"),
    },
    "tiny": {
        **PAPER,
        "size": (16, 16),
        "pretrain": procgen.levels(("bossfight", "maze"), 2, steps=60, shard=2),
        "coinrun": procgen.levels(procgen.COINRUN, 4, steps=60, shard=4),
        "actions": procgen.levels(procgen.COINRUN, 4, steps=60, shard=4),
        "test": {**procgen.TEST, "clips": 8, "levels": 8, "steps": 40},
        "base": unet(8, (1,), 2, 8), "adapter": unet(4, (1,), 1, 8), "control": unet(4, (1,), 1, 8),
        "classifier": unet(4, (1,), 1, 8), "mlp_width": 8,
        "predictor": {
            "level_channels": (8, 8), "blocks_per_level": 1, "width": 8, "mixers": 1, "norm_groups": 4,
            "dtype": "float32",
        },
        "batch": 8, "base_steps": 4, "steps": 3, "classifier_steps": 2, "predictor_steps": 4,
        "rate": 1e-3, "finetune_rate": 3e-4, "warmup": 1, "ema": 0.9, "checkpoint_every": 10, "workers": 0,
        "sampler": {**common.sampler(3), "clip_x0": 1.0}, "sample_batch": 8, "clips": 8, "tune_clips": 8,
        "mask_clips": 4, "methods": (*ALWAYS, "controlnet", "controlnet_small"),
    },
}  # fmt: skip


def collect_stage(v: Section, split: str, section: Section) -> Section:
    """Run ``collect_procgen``."""
    collect = {"size": v["size"], "seed": 0, "workers": max(2, v["workers"])}
    return {"run": "collect_procgen", "collect": collect, "splits": {split: section}}


def training(
    v: Section,
    objective: Section,
    folder: str,
    steps: int,
    rate: float,
    action: str = "discrete",
    seed: int = 1,
    world: Section = WORLD,
    window: tuple[int, int] = (PAST, FUTURE),
    tokens: int = 0,
) -> Section:
    """What all trainings share: a constant rate after a warm-up, as in the paper."""
    section = common.data(
        folder, "train", (window,), (1.0,), v["batch"], tokens, seed=seed, workers=v["workers"], action=action
    )
    return {
        "run": "train", "objective": objective, "world": world, "data": section,
        "optimizer": common.optimizer(rate, steps, min(v["warmup"], steps - 1), decay="constant"),
        "train": common.train(steps, v["checkpoint_every"], ema_decay=v["ema"]),
        "mesh": {**common.MESH, "cpu_devices": v["cpu_devices"]},
    }  # fmt: skip


def method(
    v: Section,
    form: str,
    shape: Section,
    mask: bool = False,
    conditioned: bool = False,
    drop: float = 0.0,
    start: str = "",
    rate: float | None = None,
) -> Section:
    """The training of one method on CoinRun."""
    loss = {"weight": v["weight"], "drop_action": drop}
    stage = training(v, {"kind": "adapter", "loss": loss}, "@coinrun", v["steps"], rate or v["rate"])
    settings = {"form": form, "unet": shape, "mask": mask, "conditioned": conditioned}
    return {**stage, "method": settings, "base_dir": "" if form == "diffusion" else "@base/export", "start_dir": start}


def base_stage(v: Section) -> Section:
    """The training of the base, without actions."""
    loss = {"weight": v["weight"], "drop_action": 0.0}
    stage = training(v, {"kind": "adapter", "loss": loss}, "@pretrain", v["base_steps"], v["rate"], action="none")
    settings = {"form": "diffusion", "unet": v["base"], "mask": False, "conditioned": False}
    return {**stage, "method": settings, "base_dir": "", "start_dir": ""}


def classifier_stage(v: Section) -> Section:
    """The training of the classifier of noisy frames."""
    stage = training(v, {"kind": "noisy_actions"}, "@coinrun", v["classifier_steps"], v["rate"])
    return {**stage, "classifier": {"unet": v["classifier"], "mlp_width": v["mlp_width"]}}


def predictor_stage(v: Section) -> Section:
    """The training of the action predictor, which reads actions off clips."""
    stage = training(v, {"kind": "action"}, "@actions", v["predictor_steps"], 1e-3)
    del stage["world"]
    data = common.data(
        "@actions", "train", ((1, FUTURE),), (1.0,), 32, 0, seed=1, workers=v["workers"], action="discrete"
    )
    return {**stage, "action": v["predictor"], "data": data}


def rows(v: Section) -> dict[str, Section]:
    """The rows of the table: label, how it predicts, whose export, weights."""
    every = {
        "base": ("Base", "base", "base", ()),
        "avid": ("AVID", "method", "avid", ()),
        "no_mask": ("AVID, No Mask", "method", "no_mask", ()),
        "no_conditioning": ("AVID, No Conditioning", "method", "no_conditioning", ()),
        "diffusion": ("Action-conditioned diffusion", "method", "diffusion", ()),
        "product_of_experts": ("Product of experts", "product_of_experts", "diffusion", POE),
        "action_guidance": ("Action classifier-free guidance", "action_guidance", "diffusion_dropped", CFG),
        "classifier_guidance": ("Classifier guidance", "classifier_guidance", "classifier", CLASSIFIER),
        "controlnet": ("ControlNet", "method", "controlnet", ()),
        "controlnet_small": ("ControlNet-Small", "method", "controlnet_small", ()),
        "finetune": ("Action-conditioned fine-tuning", "method", "finetune", ()),
        "finetune_language": ("Language-conditioned fine-tuning", "method", "finetune_language", ()),
    }
    return {
        name: {"label": label, "via": via, "dir": f"@{folder}/export", "weights": weights}
        for name, (label, via, folder, weights) in every.items()
        if name in v["methods"]
    }


def table_stage(v: Section) -> Section:
    """Run ``avid_table``."""
    cut = {"past": PAST, "frames": FUTURE, "action": "discrete", "seed": 0}
    return {
        "run": "avid_table",
        "test_data": "@test", "windows": {"split": "test", "count": v["clips"], **cut},
        "tune_data": "@coinrun",
        "tune": {"metric": "fd_action_procgen", "windows": {"split": "train", "count": v["tune_clips"], **cut}},
        "base_dir": "@base/export", "action_dir": "@predictor/export", "place_dir": "", "weights_dir": "",
        "autoencoder_dir": "", "token_length": 0,
        "methods": rows(v), "order": tuple(rows(v)),
        "sampler": v["sampler"], "generate": {"batch_size": v["sample_batch"], "seed": 0},
        "score": {"metrics": METRICS, "paired": True, "batch_size": 32},
        "cut": {"skip": PAST, "frames": FUTURE},
        "table": {"draws": 1000, "seed": 0, "mask_clips": v["mask_clips"]},
        "mesh": {**common.MESH, "cpu_devices": v["cpu_devices"]},
    }  # fmt: skip


def stages(v: Section) -> dict[str, Section]:
    """The stages of a variant, in order."""
    adapter = v["adapter"]
    every = {
        "pretrain": collect_stage(v, "train", v["pretrain"]),
        "coinrun": collect_stage(v, "train", v["coinrun"]),
        "actions": collect_stage(v, "train", v["actions"]),
        "test": collect_stage(v, "test", v["test"]),
        "predictor": predictor_stage(v),
        "base": base_stage(v),
        "classifier": classifier_stage(v),
        "avid": method(v, "avid", adapter, mask=True, conditioned=True),
        "no_mask": method(v, "avid", adapter, conditioned=True),
        "no_conditioning": method(v, "avid", adapter, mask=True),
        "diffusion": method(v, "diffusion", adapter),
        "diffusion_dropped": method(v, "diffusion", adapter, drop=0.2),
        "finetune": method(v, "diffusion", v["base"], start="@base/export", rate=v["finetune_rate"]),
    }
    if "controlnet" in v["methods"]:
        every["controlnet"] = method(v, "controlnet", v["base"])
    if "controlnet_small" in v["methods"]:
        every["controlnet_small"] = method(v, "controlnet", v["control"])
    return {**every, "table": table_stage(v)}


def get_config(arg: str = "cpu") -> ConfigDict:
    """``variant`` for everything, or ``variant.stage`` for one stage; a method is a stage."""
    file, (variant, _, stage) = "configs/avid/coinrun.py", arg.partition(".")
    every = stages(VARIANTS[common.known(file, variant, VARIANTS)])
    return common.staged(file, variant, stage, "AVID on CoinRun", every)
