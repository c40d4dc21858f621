"""ModelScopeT2V: diffusers' ``UNet3DConditionModel`` to and from ``models.unet_latent``, and the whole model around it.

``attention_head_dim`` of the original is the width of a head and called ``head_dim`` here. Within the original it
travels under the name of a number of heads, and its blocks hand it on in the place of the head's width, which undoes
the mistake: a level of C channels has C // head_dim heads.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vgen_jax.convert import clip, exports, files, kl_vae, schedulers
from vgen_jax.convert.kl_vae import RESNET
from vgen_jax.convert.rules import CONV, LINEAR, NORM, TEMPORAL_CONV, Rule, nest, to_original, to_ours
from vgen_jax.models.unet_latent import UNet3D
from vgen_jax.types import Params, VgenError

PART = "unet"  # its folder in a text-to-video model
CLASS = "UNet3DConditionModel"
PIPELINE_CLASS, INDEX_FILE = "TextToVideoSDPipeline", "model_index.json"
SAMPLE_SIZE = 32  # side of the latents where the original does not say
# (without transformers, with them)
DOWN_BLOCKS = ("DownBlock3D", "CrossAttnDownBlock3D")
UP_BLOCKS = ("UpBlock3D", "CrossAttnUpBlock3D")
TRANSFORMER_IN_HEADS = 8  # fixed in the original
DEFAULTS: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": [DOWN_BLOCKS[1]] * 3 + [DOWN_BLOCKS[0]],
    "up_block_types": [UP_BLOCKS[0]] + [UP_BLOCKS[1]] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 1024,
    "attention_head_dim": 64,
    "num_attention_heads": None,
    "time_cond_proj_dim": None,
}
ONLY: dict[str, tuple[Any, ...]] = {
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),  # two names of one function
    "num_attention_heads": (None,),
    "time_cond_proj_dim": (None,),
}

TRANSFORMER = (
    Rule("norm", "norm", NORM),
    Rule("proj_in", "proj_in", LINEAR),
    Rule("proj_out", "proj_out", LINEAR),
    Rule("transformer_blocks.0.norm{n}", "block/norm{n}", NORM),
    Rule("transformer_blocks.0.attn{n}.to_q", "block/attn{n}/to_q", LINEAR),
    Rule("transformer_blocks.0.attn{n}.to_k", "block/attn{n}/to_k", LINEAR),
    Rule("transformer_blocks.0.attn{n}.to_v", "block/attn{n}/to_v", LINEAR),
    Rule("transformer_blocks.0.attn{n}.to_out.0", "block/attn{n}/to_out", LINEAR),
    Rule("transformer_blocks.0.ff.net.0.proj", "block/ff/proj_in", LINEAR),
    Rule("transformer_blocks.0.ff.net.2", "block/ff/proj_out", LINEAR),
)
# The original counts norm, SiLU, (dropout,) convolution within each of the four.
TEMPORAL = tuple(
    rule
    for n, conv in ((1, 2), (2, 3), (3, 3), (4, 3))
    for rule in (Rule(f"conv{n}.0", f"norm{n}", NORM), Rule(f"conv{n}.{conv}", f"conv{n}", TEMPORAL_CONV))
)


def _layer(block: str, ours: str) -> list[Rule]:
    """The rules of layer {i} of a block; ``ours`` is its path here."""
    return [
        *nest(f"{block}.resnets.{{i}}", f"{ours}/resnet", RESNET),
        *nest(f"{block}.temp_convs.{{i}}", f"{ours}/temp_conv", TEMPORAL),
        *nest(f"{block}.attentions.{{i}}", f"{ours}/transformers/spatial", TRANSFORMER),
        *nest(f"{block}.temp_attentions.{{i}}", f"{ours}/transformers/temporal", TRANSFORMER),
    ]


def unet_rules(levels: int) -> list[Rule]:
    """The rules of a UNet with that many levels; the original counts its way up from the coarsest."""
    rules = [
        Rule("conv_in", "conv_in", CONV),
        Rule("time_embedding.linear_{n}", "time_embedding/linear_{n}", LINEAR),
        *nest("transformer_in", "transformer_in", TRANSFORMER),
        *_layer("down_blocks.{level}", "down_{level}_layer_{i}"),
        Rule("down_blocks.{level}.downsamplers.0.conv", "down_{level}_sample/conv", CONV),
        *_layer("mid_block", "mid_layer_{i}"),
        Rule("conv_norm_out", "conv_norm_out", NORM),
        Rule("conv_out", "conv_out", CONV),
    ]
    for level in range(levels):
        block = f"up_blocks.{levels - 1 - level}"
        rules += _layer(block, f"up_{level}_layer_{{i}}")
        rules.append(Rule(f"{block}.upsamplers.0.conv", f"up_{level}_sample/conv", CONV))
    return rules


def load_unet(folder: str | Path, *, dtype: Any = np.float32) -> tuple[dict[str, Any], Params]:
    """A UNet from diffusers: ``UNet3D(**config).apply({"params": params}, x_BTHWC, t_B, text_BLD)``.

    Args:
        folder: the UNet's, its whole model's, or a model of the Hugging Face hub (``files.locate``); also what the run
            ``convert`` made of one.
        dtype: of the parameters, NumPy arrays in host memory.

    Raises:
        VgenError: if a file is missing or damaged, or does not fit the network.
    """
    path = files.locate(folder, PART)
    if exports.is_export(path, exports.UNET):
        return exports.load(path, exports.UNET, UNet3D, _expected, dtype)
    config = _from_original(files.read_config(path, CLASS, DEFAULTS, ONLY), path)
    rules = unet_rules(len(config["block_channels"]))
    return config, to_ours(files.read_weights(path), rules, _expected(UNet3D(**config)), path, dtype=dtype)


def save_unet(config: Mapping[str, Any], params: Params, folder: str | Path, *, sample_size: int = SAMPLE_SIZE) -> None:
    """Writes a UNet for ``diffusers.UNet3DConditionModel.from_pretrained(folder)``.

    Args:
        config: fields of ``UNet3D``.
        sample_size: side of the latents that it is meant for; diffusers takes it as their default.

    Raises:
        VgenError: for a network that the original has no place for, parameters that are not the configuration's, or a
            folder that cannot be written.
    """
    module = UNet3D(**config)
    levels = len(module.block_channels)
    files.write_folder(
        folder,
        {**original_config(module), "sample_size": sample_size},
        to_original(params, unet_rules(levels), _expected(module)),
        "diffusion_pytorch_model",
    )


def sample_size(folder: str | Path) -> int:
    """Side of the latents that a UNet's folder, or its whole model's, is meant for."""
    path = files.locate(folder, PART)
    if exports.is_export(path, exports.UNET):
        return int(exports.read_config(path, (exports.SAMPLE_SIZE,))[exports.SAMPLE_SIZE])
    found = files.read_config(path, CLASS, DEFAULTS, ONLY)["sample_size"]
    return SAMPLE_SIZE if found is None else int(found)


class TextToVideo(NamedTuple):
    """ModelScopeT2V with all that a generation needs.

    Attributes:
        unet_config, unet: fields of ``UNet3D``, and its parameters; likewise ``vae`` for ``AutoencoderKL`` and
            ``text`` for ``ClipTextEncoder``. Parameters are NumPy arrays in host memory.
        scaling_factor: what latents are multiplied by before diffusion and divided by before ``decode``.
        tokenize: texts -> int32 tokens (B, L).
        tokenizer_folder: where the tokenizer's files lie.
        scheduler: the noise schedule, the sampler and what the UNet predicts.
        sample_size: side of the latents that it is meant for.
    """

    unet_config: dict[str, Any]
    unet: Params
    vae_config: dict[str, Any]
    vae: Params
    text_config: dict[str, Any]
    text: Params
    scaling_factor: float
    tokenize: clip.Tokenizer
    tokenizer_folder: Path
    scheduler: schedulers.Scheduler
    sample_size: int


def load_text_to_video(
    folder: str | Path, *, dtype: Any = np.float32, steps: int = 50, eta: float = 0.0
) -> TextToVideo:
    """A whole text-to-video model from diffusers.

    Args:
        folder: the whole model's, or a model of the Hugging Face hub (``files.locate``).
        dtype: of the parameters.
        steps, eta: of the sampler (``schedulers.from_config``).

    Raises:
        VgenError: if a file is missing or damaged, or does not fit its network; small files first.
    """
    scheduler = schedulers.load_scheduler(folder, steps, eta)
    tokenize = clip.load_tokenizer(folder)
    side, factor = sample_size(folder), kl_vae.scaling_factor(folder)
    text_config, text = clip.load_text(folder, dtype=dtype)
    vae_config, vae = kl_vae.load(folder, dtype=dtype)
    unet_config, unet = load_unet(folder, dtype=dtype)
    return TextToVideo(
        unet_config, unet, vae_config, vae, text_config, text,
        factor, tokenize, clip.tokenizer_folder(folder), scheduler, side,
    )  # fmt: skip


def save_text_to_video(model: TextToVideo, folder: str | Path) -> None:
    """Writes a model for ``diffusers.TextToVideoSDPipeline.from_pretrained(folder)``.

    Raises:
        VgenError: for a network or a sampler that the original has no place for, parameters that are not the
            configuration's, or a folder that cannot be written.
    """
    folder, p = Path(folder), model
    save_unet(p.unet_config, p.unet, folder / PART, sample_size=p.sample_size)
    kl_vae.save(p.vae_config, p.vae, folder / kl_vae.PART, scaling_factor=p.scaling_factor)
    clip.save_text(p.text_config, p.text, folder / clip.PART)
    save_settings(p.scheduler, p.tokenizer_folder, folder)


def save_settings(scheduler: schedulers.Scheduler, tokenizer: str | Path, folder: str | Path) -> None:
    """Writes what a whole model's folder holds besides networks: scheduler, tokenizer (from its folder) and index."""
    folder = Path(folder)
    schedulers.save_scheduler(scheduler, folder / schedulers.PART)
    clip.copy_tokenizer(tokenizer, folder / clip.TOKENIZER_PART)
    scheduler_class = schedulers.to_config(scheduler)["_class_name"]
    index = {
        "_class_name": PIPELINE_CLASS,
        PART: ["diffusers", CLASS],
        kl_vae.PART: ["diffusers", kl_vae.CLASS],
        schedulers.PART: ["diffusers", scheduler_class],
        clip.PART: ["transformers", clip.CLASS],
        clip.TOKENIZER_PART: ["transformers", "CLIPTokenizer"],
    }
    files.write_json(folder / INDEX_FILE, index)


def _from_original(raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Fields of ``UNet3D`` from the original's configuration."""
    for key in ("attention_head_dim", "norm_num_groups"):
        if not isinstance(raw[key], int):
            raise VgenError(
                f"{path / files.CONFIG} has {key} {raw[key]!r}: only one number for all levels can be converted"
            )
    levels = len(raw["block_out_channels"])
    attention = {}
    for key, kinds in (("down_block_types", DOWN_BLOCKS), ("up_block_types", UP_BLOCKS)):
        if len(raw[key]) != levels or not set(raw[key]) <= set(kinds):
            raise VgenError(
                f"{path / files.CONFIG} has {key} {raw[key]}: only {levels} of {' and '.join(kinds)} can be converted"
            )
        attention[key] = tuple(kind == kinds[1] for kind in raw[key])
    down, up = attention["down_block_types"], attention["up_block_types"][::-1]
    return {
        "in_channels": raw["in_channels"],
        "out_channels": raw["out_channels"],
        "block_channels": tuple(raw["block_out_channels"]),
        "attention_levels": down,
        "up_attention_levels": None if up == down else up,
        "layers_per_block": raw["layers_per_block"],
        "head_dim": raw["attention_head_dim"],
        "cross_attention_dim": raw["cross_attention_dim"],
        "norm_groups": raw["norm_num_groups"],
        "norm_eps": raw["norm_eps"],
        "transformer_in_heads": TRANSFORMER_IN_HEADS,
    }


def original_config(module: UNet3D) -> dict[str, Any]:
    """The original's configuration of a network.

    Raises:
        VgenError: if it has none.
    """
    for field, only in (("action_dim", 0), ("scale_shift", False), ("transformer_in_heads", TRANSFORMER_IN_HEADS)):
        if getattr(module, field) != only:
            raise VgenError(
                f"a UNet with {field} {getattr(module, field)} cannot be saved for diffusers, which has only {only}"
            )
    down = module.attention_levels
    up = down if module.up_attention_levels is None else module.up_attention_levels
    return {
        **DEFAULTS,
        "_class_name": CLASS,
        "in_channels": module.in_channels,
        "out_channels": module.out_channels,
        "down_block_types": [DOWN_BLOCKS[attends] for attends in down],
        "up_block_types": [UP_BLOCKS[attends] for attends in up[::-1]],
        "block_out_channels": list(module.block_channels),
        "layers_per_block": module.layers_per_block,
        "norm_num_groups": module.norm_groups,
        "norm_eps": module.norm_eps,
        "cross_attention_dim": module.cross_attention_dim,
        "attention_head_dim": module.head_dim,
    }


def _expected(module: UNet3D) -> Any:
    side = 2 ** (len(module.block_channels) - 1)
    x = jax.ShapeDtypeStruct((1, 2, side, side, module.in_channels), np.float32)
    t = jax.ShapeDtypeStruct((1,), np.int32)
    text = None
    if module.cross_attention_dim is not None:
        text = jax.ShapeDtypeStruct((1, 1, module.cross_attention_dim), np.float32)
    return jax.eval_shape(module.init, jax.random.key(0), x, t, text)["params"]
