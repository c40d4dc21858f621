"""AVID and its baselines on RT-1, in the latent space of an autoencoder (arXiv:2410.12822, tables 2, 3, 6 and 9).

    python -m vgen_jax.main --config=configs/avid/rt1.py:paper_145m.avid --workdir=out/avid \
        --config.remote.url=http://127.0.0.1:8765

trains the adapter over DynamiCrafter, which answers over HTTP (``docs/black_box.md``), on latents in ``out/latents``.
``:paper_145m.data``, ``.autoencoder`` and ``.latents`` make those of RT-1 and of Stable Diffusion's weights
(``docs/avid.md`` has the commands); each stage's folder is a sibling of the others.

variant     frames   latents  base                 adapter  hardware                what to expect
paper_145m  320×512  40×64    DynamiCrafter, 1.4 B 127 M    GPUs, days              the paper's settings; not run here
paper_34m   320×512  40×64    likewise             27 M     GPUs, days              likewise
paper_11m   320×512  40×64    likewise             7 M      GPUs, days              likewise
tiny        16×16    4×4      trained as a stage   2 k      2 cores, a few minutes  nothing to look at: for tests

The variants are named after the paper's labels; ``docs/avid.md`` says where the counts differ. ``tiny`` trains its base
from nothing on the same data with an empty prompt, so that it has the methods that need a base's parameters too:
fine-tuning by actions and by language.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common
from configs.avid import coinrun
from configs.common import Section
from configs.data import rt1

PAST, FUTURE = 1, 15
SCHEDULE = {
    "kind": "scaled_linear", "steps": 1000, "start": 0.00085, "end": 0.012, "zero_terminal_snr": True,
    "set_alpha_to_one": True,
}  # fmt: skip
PROMPT = "Robot arm performs the task "  # and then the task; AVID §9.5
NO_TEXT = {"width": 0, "layers": 0, "heads": 0, "max_length": 0, "prompt": ""}
METRICS = (
    "psnr", "ssim", "sharpness", "action_error_ratio_rt1", "fd_action_rt1", "fd_frames_rt1", "lpips_action_rt1",
)  # fmt: skip
REMOTE = {
    "url": "http://127.0.0.1:8765", "token_env": "", "timeout": 600.0, "tries": 10, "pause": 0.5,
    "longest_pause": 30.0, "batch": 8,
}  # fmt: skip


def unet(
    channels: int,
    mults: tuple[int, ...],
    attention: tuple[bool, ...],
    head_dim: int,
    actions: str = "concatenated",
    text: Section = NO_TEXT,
    **changes: Any,
) -> Section:
    """A network's shape: DynamiCrafter's with other widths, table 9."""
    shape = {
        "block_channels": tuple(channels * mult for mult in mults), "attention_levels": attention,
        "layers_per_block": 2, "head_dim": head_dim, "norm_groups": 32, "transformer_in_heads": 8,
        "scale_shift": False, "remat": "full", "dtype": "bfloat16", **changes,
    }  # fmt: skip
    return {"shape": shape, "text": text, "actions": actions}


THREE = (True, True, True)
PAPER = {
    "size": rt1.SIZE, "source": "rt1", "chunk": 1, "shard": 200,
    "splits": {"train": {"first": 0, "episodes": 82_851}, "test": {"first": 82_851, "episodes": 4361}},
    "schedule": {**SCHEDULE, "kind": "dynamicrafter"}, "autoencoder": None, "base": None, "encode_batch": 16,
    "predictor": {
        "level_channels": (128, 256, 512, 512), "blocks_per_level": 2, "width": 512, "mixers": 2, "norm_groups": 32,
        "dtype": "float32",
    },
    "batch": 64, "steps": 100_000, "predictor_steps": 100_000, "rate": 1e-4, "finetune_rate": 2e-5, "warmup": 1000,
    "ema": 0.9995, "checkpoint_every": 1000, "workers": 8, "cpu_devices": 0,
}  # fmt: skip
VARIANTS = {
    "paper_145m": {**PAPER, "adapter": unet(96, (1, 2, 4, 4), (*THREE, False), 64)},
    "paper_34m": {**PAPER, "adapter": unet(64, (1, 1, 2, 3), (*THREE, False), 64)},
    "paper_11m": {**PAPER, "adapter": unet(32, (1, 2, 3), THREE, 16)},
}
SMALLEST: Section = {
    "layers_per_block": 1, "norm_groups": 4, "transformer_in_heads": 1, "remat": "none", "dtype": "float32",
}  # fmt: skip
TINY_TEXT = {"width": 8, "layers": 1, "heads": 2, "max_length": 64, "prompt": PROMPT}
VARIANTS["tiny"] = {
    **PAPER,
    "size": (16, 16), "shard": 4, "schedule": SCHEDULE,
    "splits": {"train": {"first": 0, "episodes": 6}, "test": {"first": 6, "episodes": 2}},
    "autoencoder": {
        "block_channels": (8, 8), "layers_per_block": 1, "latent_channels": 4, "norm_groups": 4, "patch": 2,
        "linear_path": False, "dtype": "float32", "kl_weight": 1e-6,
    },
    "autoencoder_steps": 4, "encode_batch": 8,
    "base": unet(8, (1,), (True,), 8, "none", TINY_TEXT, **SMALLEST),
    "adapter": unet(4, (1,), (True,), 4, **SMALLEST),
    "predictor": {
        "level_channels": (8, 8), "blocks_per_level": 1, "width": 8, "mixers": 1, "norm_groups": 4, "dtype": "float32",
    },
    "batch": 8, "base_steps": 3, "steps": 3, "predictor_steps": 4, "rate": 1e-3, "finetune_rate": 3e-4, "warmup": 1,
    "ema": 0.9, "checkpoint_every": 10, "workers": 0, "tokens": 32,
    "sampler": common.sampler(3), "sample_batch": 8, "clips": 8, "tune_clips": 8, "mask_clips": 4,
    "methods": (
        "base", "avid", "no_mask", "no_conditioning", "diffusion", "product_of_experts", "action_guidance", "finetune",
        "finetune_language",
    ),
}  # fmt: skip


def data_stage(v: Section) -> Section:
    """Run ``import_rlds``."""
    rlds = rt1.get_config().rlds.to_dict()
    changes = {"source": v["source"], "size": v["size"], "chunk": v["chunk"], "episodes_per_shard": v["shard"]}
    return {"run": "import_rlds", "rlds": {**rlds, **changes}, "splits": v["splits"]}


def autoencoder_stage(v: Section) -> Section:
    """Run ``convert`` on Stable Diffusion's autoencoder, which the base has; ``tiny`` trains one."""
    if v["autoencoder"] is None:
        convert = {"model": "kl_vae", "direction": "to_flax", "source": "", "target": "", "dtype": "float32"}
        return {"run": "convert", "convert": convert}
    return common.autoencoder_stage(v["autoencoder"], ((1, 1),), v["batch"], v["autoencoder_steps"], 1e-3, 10)


def method(
    v: Section,
    form: str,
    unet: Section,
    steps: int | None = None,
    mask: bool = False,
    conditioned: bool = False,
    drop: float = 0.0,
    start: str = "",
    rate: float | None = None,
    tokens: int = 0,
) -> Section:
    """The training of one method on latents; an adapter's base is an export, or where there is none a service."""
    objective = {"kind": "adapter", "loss": {"weight": "none", "drop_action": drop}}
    world = {"schedule": v["schedule"], "kind": "v", "actions": "continuous", "past": PAST}
    action = "none" if unet["actions"] == "none" else "continuous"
    stage = coinrun.training(
        v, objective, "@latents", steps or v["steps"], rate or v["rate"], action, world=world, window=(PAST, FUTURE),
        tokens=tokens,
    )  # fmt: skip
    stage["method"] = {"form": form, "unet": unet, "mask": mask, "conditioned": conditioned}
    if form == "avid" and v["base"] is None:
        return {**stage, "objective": {**objective, "kind": "black_box"}, "remote": REMOTE, "keep_dir": ""}
    return {**stage, "base_dir": "@base/export" if form == "avid" else "", "start_dir": start}


def predictor_stage(v: Section) -> Section:
    """The training of the action predictor, which reads actions off frames."""
    stage = coinrun.training(
        v, {"kind": "action"}, "@data", v["predictor_steps"], 1e-3, "continuous", window=(PAST, FUTURE)
    )  # fmt: skip
    del stage["world"]
    return {**stage, "action": v["predictor"]}


def table_stage(v: Section) -> Section:
    """Run ``avid_table``; clips of latents are decoded before they are scored."""
    cut = {"past": PAST, "frames": FUTURE, "action": "continuous", "seed": 0}
    return {
        **coinrun.table_stage(v),
        "test_data": "@data", "windows": {"split": "test", "count": v["clips"], **cut},
        "tune_data": "@data",
        "tune": {"metric": "fd_action_rt1", "windows": {"split": "train", "count": v["tune_clips"], **cut}},
        "autoencoder_dir": "@autoencoder/export", "token_length": v["tokens"],
        "score": {"metrics": METRICS, "paired": True, "batch_size": 8},
        "cut": {"skip": PAST, "frames": FUTURE},
    }  # fmt: skip


def stages(v: Section) -> dict[str, Section]:
    """The stages of a variant, in order."""
    adapter = v["adapter"]
    every = {
        "data": data_stage(v),
        "autoencoder": autoencoder_stage(v),
        "latents": {
            "run": "encode", "data_dir": "@data", "autoencoder_dir": "@autoencoder/export",
            "batch_frames": v["encode_batch"],
        },
        "predictor": predictor_stage(v),
        "avid": method(v, "avid", adapter, mask=True, conditioned=True),
        "no_mask": method(v, "avid", adapter, conditioned=True),
        "no_conditioning": method(v, "avid", adapter, mask=True),
        "diffusion": method(v, "diffusion", adapter),
        "diffusion_dropped": method(v, "diffusion", adapter, drop=0.2),
    }  # fmt: skip
    if v["base"] is None:
        return every
    tuned = {"start": "@base/export", "rate": v["finetune_rate"]}
    return {
        **{name: every[name] for name in ("data", "autoencoder", "latents", "predictor")},
        "base": method(v, "diffusion", v["base"], v["base_steps"]),
        **{name: stage for name, stage in every.items() if stage["run"] == "train" and "method" in stage},
        "finetune": method(v, "diffusion", {**v["base"], "actions": "added"}, **tuned),
        "finetune_language": method(v, "diffusion", v["base"], tokens=v["tokens"], **tuned),
        "table": table_stage(v),
    }


def get_config(arg: str = "tiny") -> ConfigDict:
    """``variant`` for everything, or ``variant.stage`` for one stage; a method is a stage."""
    file, (variant, _, stage) = "configs/avid/rt1.py", arg.partition(".")
    every = stages(VARIANTS[common.known(file, variant, VARIANTS)])
    return common.staged(file, variant, stage, "AVID on RT-1", every)
