"""Stable Diffusion's autoencoder: diffusers' ``AutoencoderKL`` to and from ``models.autoencoder_kl``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vgen_jax.convert import exports, files
from vgen_jax.convert.rules import CONV, LINEAR, NORM, Rule, nest, to_original, to_ours
from vgen_jax.models.autoencoder_kl import AutoencoderKL
from vgen_jax.types import Params, VgenError

PART = "vae"  # its folder in a text-to-video model
CLASS = "AutoencoderKL"
DOWN_BLOCK, UP_BLOCK = "DownEncoderBlock2D", "UpDecoderBlock2D"
SCALING_FACTOR = 0.18215
DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": [DOWN_BLOCK],
    "up_block_types": [UP_BLOCK],
    "block_out_channels": [64],
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 32,
    "scaling_factor": SCALING_FACTOR,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
    "force_upcast": True,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
ONLY: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),  # two names of one function
    "shift_factor": (None,),
    "latents_mean": (None,),
    "latents_std": (None,),
    "use_quant_conv": (True,),
    "use_post_quant_conv": (True,),
    "mid_block_add_attention": (True,),
}

RESNET = (
    Rule("norm{n}", "norm{n}", NORM),
    Rule("conv{n}", "conv{n}", CONV),
    Rule("time_emb_proj", "time_emb_proj", LINEAR),
    Rule("conv_shortcut", "conv_shortcut", CONV),
)
# What the attention's parts were called until diffusers 0.16; the published checkpoints still say so.
OLD_NAMES = {
    rf"(mid_block\.attentions\.0)\.{old}\.": rf"\1.{new}."
    for old, new in {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.items()
}


def vae_rules(levels: int) -> list[Rule]:
    """The rules of an autoencoder with that many levels; the original counts the decoder's from the coarsest."""
    rules = [Rule(name, name, CONV) for name in ("quant_conv", "post_quant_conv")]
    for half in ("encoder", "decoder"):
        inner = [Rule("conv_in", "conv_in", CONV), Rule("conv_norm_out", "conv_norm_out", NORM)]
        inner += [
            Rule("conv_out", "conv_out", CONV),
            Rule("mid_block.attentions.0.group_norm", "mid/attention/group_norm", NORM),
        ]
        for original, ours in (("to_q", "to_q"), ("to_k", "to_k"), ("to_v", "to_v"), ("to_out.0", "to_out")):
            inner.append(Rule(f"mid_block.attentions.0.{original}", f"mid/attention/{ours}", LINEAR))
        inner += nest("mid_block.resnets.{i}", "mid/resnet_{i}", RESNET)
        rules += nest(half, half, inner)
    rules += nest("encoder.down_blocks.{level}.resnets.{i}", "encoder/down_{level}_resnet_{i}", RESNET)
    rules.append(Rule("encoder.down_blocks.{level}.downsamplers.0.conv", "encoder/down_{level}_sample/conv", CONV))
    for level in range(levels):
        block = f"decoder.up_blocks.{levels - 1 - level}"
        rules += nest(f"{block}.resnets.{{i}}", f"decoder/up_{level}_resnet_{{i}}", RESNET)
        rules.append(Rule(f"{block}.upsamplers.0.conv", f"decoder/up_{level}_sample/conv", CONV))
    return rules


def load(folder: str | Path, *, dtype: Any = np.float32) -> tuple[dict[str, Any], Params]:
    """An autoencoder from diffusers: ``AutoencoderKL(**config).apply({"params": params}, x, method="encode")``.

    The module neither scales latents nor unscales them: see ``scaling_factor``.

    Args:
        folder: the autoencoder's, its whole model's, or a model of the Hugging Face hub (``files.locate``); also what
            the run ``convert`` made of one.
        dtype: of the parameters, NumPy arrays in host memory.

    Raises:
        VgenError: if a file is missing or damaged, or does not fit the network.
    """
    path = files.locate(folder, PART)
    if exports.is_export(path, exports.AUTOENCODER):
        return exports.load(path, exports.AUTOENCODER, AutoencoderKL, _expected, dtype)
    config = _from_original(_read(path), path)
    rules = vae_rules(len(config["block_channels"]))
    tensors = files.read_weights(path)
    return config, to_ours(tensors, rules, _expected(AutoencoderKL(**config)), path, dtype=dtype, old_names=OLD_NAMES)


def scaling_factor(folder: str | Path) -> float:
    """What latents are multiplied by before diffusion and divided by before ``decode``."""
    path = files.locate(folder, PART)
    if exports.is_export(path, exports.AUTOENCODER):
        return float(exports.read_config(path, (exports.SCALE,))[exports.SCALE])
    return float(_read(path)["scaling_factor"])


def save(
    config: Mapping[str, Any],
    params: Params,
    folder: str | Path,
    *,
    scaling_factor: float = SCALING_FACTOR,
    sample_size: int = 256,
) -> None:
    """Writes an autoencoder for ``diffusers.AutoencoderKL.from_pretrained(folder)``.

    Args:
        config: fields of ``AutoencoderKL``.
        scaling_factor: of the latents, for diffusers.
        sample_size: side of the frames that it is meant for, in pixels; diffusers tiles larger ones if told to.

    Raises:
        VgenError: for a network that the original has no place for, parameters that are not the configuration's, or a
            folder that cannot be written.
    """
    module = AutoencoderKL(**config)
    if module.patch != 1 or module.linear_path:
        raise VgenError("an autoencoder with patch > 1 or linear_path cannot be saved for diffusers: it has neither")
    levels = len(module.block_channels)
    raw = {
        **DEFAULTS,
        "_class_name": CLASS,
        "in_channels": module.channels,
        "out_channels": module.channels,
        "down_block_types": [DOWN_BLOCK] * levels,
        "up_block_types": [UP_BLOCK] * levels,
        "block_out_channels": list(module.block_channels),
        "layers_per_block": module.layers_per_block,
        "latent_channels": module.latent_channels,
        "norm_num_groups": module.norm_groups,
        "sample_size": sample_size,
        "scaling_factor": scaling_factor,
    }
    tensors = to_original(params, vae_rules(levels), _expected(module))
    files.write_folder(folder, raw, tensors, "diffusion_pytorch_model")


def _read(path: Path) -> dict[str, Any]:
    return files.read_config(path, CLASS, DEFAULTS, ONLY)


def _from_original(raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    levels = len(raw["block_out_channels"])
    for key, block in (("down_block_types", DOWN_BLOCK), ("up_block_types", UP_BLOCK)):
        if list(raw[key]) != [block] * levels:
            raise VgenError(f"{path / files.CONFIG} has {key} {raw[key]}: only {levels} times {block} can be converted")
    channels, out = raw["in_channels"], raw["out_channels"]
    if channels != out:
        raise VgenError(f"{path / files.CONFIG} has in_channels {channels}: only out_channels {out} can be converted")
    return {
        "channels": channels,
        "block_channels": tuple(raw["block_out_channels"]),
        "layers_per_block": raw["layers_per_block"],
        "latent_channels": raw["latent_channels"],
        "norm_groups": raw["norm_num_groups"],
    }


def _expected(module: AutoencoderKL) -> Any:
    frame = jax.ShapeDtypeStruct((1, module.factor, module.factor, module.channels), np.float32)
    return jax.eval_shape(module.init, jax.random.key(0), frame)["params"]
