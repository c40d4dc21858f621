"""VQGANs in the layout of taming-transformers' checkpoints, as ``models.vqgan``.

A checkpoint is a pickle of PyTorch Lightning (or its ``state_dict`` as safetensors) and has no description beside it
that could be read without running code: the shape is given, or guessed from the tensors. What belongs to the training
alone, the discriminator and the perceptual network under ``loss.``, is left out.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vgen_jax.convert import files
from vgen_jax.convert.rules import CONV, NORM, TABLE, Kind, Leaf, Rule, nest, to_original, to_ours
from vgen_jax.models.vqgan import Vqgan, VqganConfig
from vgen_jax.types import Params, VgenError

# Projections of the attention are 1×1 convolutions there, dense layers here.
DENSE: Kind = (Leaf("weight", "kernel", "o i 1 1 -> i o"), Leaf("bias", "bias", "o -> o"))
RESNET = (
    Rule("norm{n}", "norm{n}", NORM),
    Rule("conv{n}", "conv{n}", CONV),
    Rule("nin_shortcut", "conv_shortcut", CONV),
)
ATTENTION = (
    Rule("norm", "group_norm", NORM),
    *(Rule(name, f"to_{name}", DENSE) for name in ("q", "k", "v")),
    Rule("proj_out", "to_out", DENSE),
)
IGNORED = (r"loss\..*", r"colorize")


def rules() -> list[Rule]:
    """The rules of any number of levels: both count them from the finest."""
    found = [Rule(name, name, CONV) for name in ("quant_conv", "post_quant_conv")]
    found.append(Rule("quantize.embedding", "quantiser/codes", TABLE))
    for half, levels, way, sampling in (
        ("encoder", "down", "down", "downsample"),
        ("decoder", "up", "up", "upsample"),
    ):
        inner = [Rule("conv_in", "conv_in", CONV), Rule("norm_out", "conv_norm_out", NORM)]
        inner += [Rule("conv_out", "conv_out", CONV), *nest("mid.attn_1", "mid/attention", ATTENTION)]
        for n in (1, 2):
            inner += nest(f"mid.block_{n}", f"mid/resnet_{n - 1}", RESNET)
        inner += nest(f"{levels}.{{level}}.block.{{i}}", f"{way}_{{level}}_resnet_{{i}}", RESNET)
        inner += nest(f"{levels}.{{level}}.attn.{{i}}", f"{way}_{{level}}_attention_{{i}}", ATTENTION)
        inner.append(Rule(f"{levels}.{{level}}.{sampling}.conv", f"{way}_{{level}}_sample/conv", CONV))
        found += nest(half, half, inner)
    return found


def expected(config: VqganConfig) -> Any:
    """The shapes of the network's parameters."""
    frame = jax.ShapeDtypeStruct((1, config.factor, config.factor, 3), np.float32)
    return jax.eval_shape(Vqgan(config).init, jax.random.key(0), frame)["params"]


def shape_of(tensors: Mapping[str, files.Stored], source: object, norm_groups: int = 32) -> VqganConfig:
    """The shape of the VQGAN that these tensors are of.

    Args:
        norm_groups: of every GroupNorm, which the tensors do not tell (taming: 32).

    Raises:
        VgenError: for tensors that are no VQGAN's.
    """

    def size(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise VgenError(f"{source} has no {name}, so it is no VQGAN of taming-transformers: give another file")
        return tensors[name].shape

    def numbers(pattern: str) -> list[int]:
        found = (re.match(pattern, name) for name in tensors)
        return sorted({int(match[1]) for match in found if match})

    levels = numbers(r"encoder\.down\.(\d+)\.block\.0\.conv1\.weight")
    if not levels:
        raise VgenError(f"{source} has no encoder.down, so it is no VQGAN of taming-transformers: give another file")
    codes, width = size("quantize.embedding.weight")
    return VqganConfig(
        block_channels=tuple(size(f"encoder.down.{level}.block.0.conv2.weight")[0] for level in levels),
        layers_per_block=len(numbers(r"encoder\.down\.0\.block\.(\d+)\.conv1\.weight")),
        latent_channels=size("encoder.conv_out.weight")[0],
        code_channels=width,
        codes=codes,
        norm_groups=norm_groups,
        attention_levels=tuple(numbers(r"encoder\.down\.(\d+)\.attn\.0\.q\.weight")),
        codebook="gradient",
        decay=0.0,
        dtype="float32",
    )  # fmt: skip


def load(path: str | Path, norm_groups: int = 32, *, dtype: Any = np.float32) -> tuple[VqganConfig, Params]:
    """A VQGAN from a checkpoint, ``.ckpt``, ``.pth``, ``.bin`` or ``.safetensors``.

    Args:
        dtype: of the parameters, NumPy arrays in host memory.

    Raises:
        VgenError: if the file is missing or damaged, a pickle that holds code, or no VQGAN's.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise VgenError(f"{path} is no file: give a checkpoint of taming-transformers")
    tensors = files.read_file(path)
    config = shape_of(tensors, path, norm_groups)
    return config, to_ours(tensors, rules(), expected(config), path, dtype=dtype, ignored=IGNORED)


def original(config: VqganConfig, params: Params) -> dict[str, files.Stored]:
    """The original's tensors.

    Raises:
        VgenError: for a codebook that follows its latents, which the original's checkpoints have no place for.
    """
    if config.codebook != "gradient":
        raise VgenError("a codebook of kind 'ema' cannot be saved for taming-transformers: train one with 'gradient'")
    return to_original(params, rules(), expected(config))
