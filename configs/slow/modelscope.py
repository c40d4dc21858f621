"""ModelScopeT2V (Wang et al. 2023) from a folder of diffusers, or from the Hugging Face hub.

    python -m vgen_jax.main --config=configs/slow/modelscope.py:t2v --workdir=out/t2v \
      --config.model_dir=FOLDER --config.generate.prompts="('a panda eats bamboo',)"
    python -m vgen_jax.main --config=configs/slow/modelscope.py:finetune --workdir=out/finetune \
      --config.stages.flax.convert.source=FOLDER

variant   what it does                                                              hardware
t2v       text to video as the original does it: 16 frames of 256×256,              one GPU: docs/modelscope.md
          DDIM, 50 steps, guidance 9
finetune  SlowFast-VGen's slow learning from its weights: convert, record ViZDoom,  not run yet at full size
          encode frames and texts, train the UNet, generate, convert back
rollout   a long video, chunk after chunk, from a converted text-to-video model     as t2v
          that was never fine-tuned, and a picture; it has not learnt to go on
          from a past

One stage alone: ``finetune.slow`` and so on; the others are siblings of the work directory. For your own videos import
them (configs/data/videos.py) to ``out/finetune/data`` and start stage by stage from ``latents``. On one GPU accumulate
over single windows: ``--config.stages.slow.train.accumulate=128``.

Needs ``pip install 'vgen_jax[convert]'``, for the tokenizer.
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import Section

# The networks as ``convert`` finds them, for what needs their shapes alone: (slow, autoencoder).
SLOW: Section = {
    "schedule": {
        "kind": "scaled_linear", "steps": 1000, "start": 0.00085, "end": 0.012, "zero_terminal_snr": False,
        "set_alpha_to_one": False,
    },
    "masking": {"past_t": "shared", "augment_past": 0.0, "reference": False},
    "warp": common.NO_WARP,
    "kind": "eps", "actions": "none", "action_dim": 0, "latent_channels": 4,
}  # fmt: skip
FULL: tuple[Section, Section] = (
    {
        **SLOW,
        "unet": {
            "block_channels": (320, 640, 1280, 1280), "attention_levels": (True, True, True, False),
            "layers_per_block": 2, "head_dim": 64, "norm_groups": 32, "transformer_in_heads": 8, "scale_shift": False,
            "remat": "none", "dtype": "bfloat16",
        },
        "text": {"width": 1024, "layers": 0, "heads": 0, "max_length": 256},
    },
    {
        "block_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4, "norm_groups": 32,
        "patch": 1, "linear_path": False, "dtype": "float32", "kl_weight": 1e-6,
    },
)  # fmt: skip
TINY: tuple[Section, Section] = (
    {
        **SLOW,
        "unet": {
            **FULL[0]["unet"], "block_channels": (8, 8), "attention_levels": (False, True), "layers_per_block": 1,
            "head_dim": 8, "norm_groups": 4,
        },
        "text": {"width": 8, "layers": 0, "heads": 0, "max_length": 16},
    },
    {**FULL[1], "block_channels": (8, 8), "layers_per_block": 1, "norm_groups": 4},
)  # fmt: skip

T2V: Section = {
    "run": "text_to_video",
    "model_dir": "ali-vilab/text-to-video-ms-1.7b",
    "generate": {
        "prompts": ("a panda eats bamboo on a rock",), "negative": "", "frames": 16, "height": 256, "width": 256,
        "guidance": 9.0, "sampler": "", "steps": 50, "eta": 0.0, "seed": 0, "dtype": "bfloat16",
        "decode_frames": 4, "fps": 8.0, "gif": True,
    },
}  # fmt: skip

# The paper's: a window of 32 frames, from a first frame alone as well; Adam, 5e-6, a batch of 128 (supplement D.1).
WINDOWS, WEIGHTS, BATCH, RATE, STEPS = ((16, 16), (1, 16)), (0.7, 0.3), 128, 5e-6, 20_000
CHUNK, TOKENS = 16, 256
FRAMES = {"train": 100_000, "validation": 5_000}
TOUR = ("go forward", "turn left", "go forward", "turn right", "step back", "turn around")

VARIANTS = ("t2v", "finetune", "rollout")


def train_stage() -> Section:
    """Run ``train``: the UNet alone, on latents and embeddings that are there."""
    return {
        "run": "train",
        "objective": {"kind": "finetune"},
        "finetune": {
            "model_dir": "@flax/export", "texts_dir": "@texts", "remat": "full", "dtype": "bfloat16",
            "encode_frames": 4, "masking": SLOW["masking"], "drop_text": 0.1, "drop_action": 0.1,
        },
        "data": common.data("@latents", "train", WINDOWS, WEIGHTS, BATCH, TOKENS, action="none"),
        "optimizer": common.optimizer(RATE, STEPS, 0, decay="constant"),
        "train": common.train(STEPS, 1000, accumulate=16),
        "mesh": common.MESH,
    }  # fmt: skip


def finetune_stages(source: str = T2V["model_dir"]) -> dict[str, Section]:
    """From a model of diffusers to a fine-tuned one, in order."""
    convert = {"model": "modelscope", "target": "", "dtype": "float32"}
    past, future = WINDOWS[0]
    return {
        "flax": {"run": "convert", "convert": {**convert, "direction": "to_flax", "source": source}},
        "data": common.collect_stage(FRAMES, 512, (256, 256), CHUNK, 20, workers=2),
        "latents": {"run": "encode", "data_dir": "@data", "autoencoder_dir": "@flax/export/vae", "batch_frames": 8},
        "texts": {
            "run": "embed_texts", "model_dir": "@flax/export", "data_dir": "@data", "splits": ("train", "validation"),
            "windows": WINDOWS, "token_length": TOKENS,
        },
        "slow": train_stage(),
        "generate": common.generate_stage(
            past, future, 16 * future, TOUR, common.sampler(50), guidance=9.0, episodes=(0, 1)
        ),
        "diffusers": {"run": "convert", "convert": {**convert, "direction": "to_diffusers", "source": "@slow/export"}},
    }  # fmt: skip


def rollout() -> Section:
    """Run ``generate`` from a picture, with texts that no data set has to know."""
    texts = ("a panda eats bamboo on a rock", "a panda climbs a tree")
    config = common.generate_stage(
        8, 8, 64, texts, common.sampler(50), guidance=9.0, episodes=(), model_dir="@flax/export"
    )
    return {**config, "start": {**config["start"], "image": "start.png", "data_dir": "", "frame": 0, "still": True}}


def get_config(arg: str = "t2v") -> ConfigDict:
    """``arg``: the variant, or ``finetune.stage`` for one stage alone."""
    file, (variant, _, stage) = "configs/slow/modelscope.py", arg.partition(".")
    common.known(file, arg if stage and variant != "finetune" else variant, VARIANTS)
    if variant != "finetune":
        return ConfigDict(T2V if variant == "t2v" else rollout(), convert_dict=True)
    return common.staged(file, variant, stage, "Slow learning from ModelScopeT2V", finetune_stages())
