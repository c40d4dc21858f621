"""AVID's published pixel-space checkpoints (microsoft/causica, research_experiments/avid) to and from our networks.

A Lightning checkpoint holds a training's networks under ``diffusion_model.`` and their moving averages, with which the
paper evaluates, under ``ema.ema_model.``. Within either: ``model`` is the base or the only network, ``adapter`` and
``mixture_conv`` are AVID's, ``control_net`` is ControlNet's. The shapes of the tensors tell the networks' sizes.

PyTorch refuses to unpickle such a checkpoint's hyper-parameters without running their code. Whoever trusts one can
take out the tensors: ``torch.save(torch.load(path, weights_only=False)["state_dict"], "state_dict.pt")``.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from vgen_jax.convert.files import Stored, read_file
from vgen_jax.convert.rules import BIAS, LINEAR, TABLE, Kind, Leaf, Rule, nest, to_original, to_ours
from vgen_jax.models.adapter import AdapterHead
from vgen_jax.types import Params, VgenError
from vgen_jax.worlds.avid import MethodConfig, controlnet_shape, pixel_config
from vgen_jax.worlds.avid_networks import CHANNELS, PixelConfig, WorldConfig, pixel_unet

Part = Literal["model", "adapter", "control_net"]
PREFIXES = {"ema": "ema.ema_model.", "raw": "diffusion_model."}

CONV: Kind = (Leaf("weight", "kernel", "o i 1 h w -> h w i o"), BIAS)
POINT: Kind = (Leaf("weight", "kernel", "o i 1 1 1 -> i o"), BIAS)
FLAT_POINT: Kind = (Leaf("weight", "kernel", "o i 1 1 -> i o"), BIAS)
DOUBLING: Kind = (Leaf("weight", "kernel", "i o 1 h w -> h w i o"), BIAS)
WEIGHT: Kind = (Leaf("weight", "kernel", "o i -> i o"),)
ROWS: Kind = (Leaf("weight", "kernel", "n d -> n d"),)
VECTOR: Kind = (Leaf("weight", "", "d -> d"),)
GAIN: Kind = (Leaf("gamma", "gain", "o 1 1 1 -> o"),)
SCALE: Kind = (Leaf("gamma", "scale", "1 o 1 1 1 -> o"),)
# A parameter of the network itself has no module's name before its own; it gets one, so that a rule can speak of it.
BARE = {r"^null_action_emb$": "null_action_emb.weight"}
CONSTANTS = (r".*rotary_emb\.freqs",)

RESNET = (
    Rule("mlp.1", "film", LINEAR),
    Rule("block{n}.proj", "conv{n}", CONV),
    Rule("block{n}.norm", "norm{n}", GAIN),
    Rule("res_conv", "shortcut", POINT),
)
LINEAR_ATTENTION = (
    Rule("fn.norm", "prenorm/norm", SCALE),
    Rule("fn.fn.to_qkv", "to_qkv", FLAT_POINT),
    Rule("fn.fn.to_out", "to_out", FLAT_POINT),
)
ATTENTION = (
    Rule("fn.norm", "prenorm/norm", SCALE),
    Rule("fn.fn.fn.to_qkv", "attention/to_qkv", WEIGHT),
    Rule("fn.fn.fn.to_out", "attention/to_out", WEIGHT),
)


def _level(original: str, ours: str) -> list[Rule]:
    return [
        *nest(f"{original}.0", f"{ours}/resnet_0", RESNET),
        *nest(f"{original}.1", f"{ours}/resnet_1", RESNET),
        *nest(f"{original}.2", f"{ours}/spatial", LINEAR_ATTENTION),
        *nest(f"{original}.3", f"{ours}/temporal", ATTENTION),
    ]


def path_rules() -> list[Rule]:
    """The way down and the middle."""
    return [
        Rule("init_conv", "path/stem", CONV),
        *nest("init_temporal_attn", "path/stem_temporal", ATTENTION),
        Rule("time_rel_pos_bias.relative_attention_bias", "path/time_bias/embedding", TABLE),
        Rule("time_mlp.1", "path/step/mlp/linear_1", LINEAR),
        Rule("time_mlp.3", "path/step/mlp/linear_2", LINEAR),
        Rule("action_emb", "path/actions/table", ROWS),
        Rule("null_action_emb", "path/actions/null", VECTOR),
        Rule("action_mlp.0", "path/actions/mlp/linear_1", LINEAR),
        Rule("action_mlp.2", "path/actions/mlp/linear_2", LINEAR),
        *_level("downs.{i}", "path/down_{i}"),
        Rule("downs.{i}.4", "path/down_{i}_sample/conv", CONV),
        *nest("mid_block1", "path/mid_resnet_0", RESNET),
        *nest("mid_spatial_attn", "path/mid_spatial", ATTENTION),
        *nest("mid_temporal_attn", "path/mid_temporal", ATTENTION),
        *nest("mid_block2", "path/mid_resnet_1", RESNET),
    ]


def unet_rules(levels: int) -> list[Rule]:
    """``Unet3D``; the original counts its way up from the coarsest."""
    rules = [*path_rules(), *nest("final_conv.0", "final_resnet", RESNET), Rule("final_conv.1", "conv_out", POINT)]
    for level in range(levels):
        block = f"ups.{levels - 1 - level}"
        rules += _level(block, f"up_{level}")
        rules.append(Rule(f"{block}.4", f"up_{level}_sample", DOUBLING))
    return rules


def control_rules(levels: int) -> list[Rule]:
    """``ControlNet`` and ``ControlNetSmaller``."""
    return [
        *path_rules(),
        Rule("zero_linear_action_mlp", "path/actions/gate", LINEAR),
        Rule("zero_convs.{i}", "zero_{i}", POINT),
        Rule("mid_block_1_out", f"zero_{levels}", POINT),
        Rule("mid_block_2_out", f"zero_{levels + 1}", POINT),
        Rule("projection_layers.{i}", "project_{i}", LINEAR),
    ]


MIXTURE = [Rule("mixture_conv", "mixture", POINT)]


class Converted(NamedTuple):
    """A network of a checkpoint: its method and parameters as ``worlds.avid`` has them."""

    method: MethodConfig
    params: Params


def load(path: Path, part: Part, world: WorldConfig, weights: str = "ema") -> Converted:
    """One network of a checkpoint.

    Args:
        path: a state dict (``.pt``, ``.safetensors``); see the module's docstring.
        part: ``model`` (a base, an action-conditioned or a fine-tuned model), ``adapter`` or ``control_net``.
        world: what its training shared with others; says how many actions and past frames there are.
        weights: ``ema`` or ``raw``.

    Raises:
        VgenError: if the file lacks that network, or it does not fit.
    """
    tensors = read_file(path)
    root = PREFIXES[weights]
    own = _below(tensors, f"{root}{part}.")
    if not own:
        raise VgenError(f"{path} holds no {root}{part}: it is a checkpoint of another training, or has no {weights}")
    shape = _shape(own)
    mixture = _below(tensors, f"{root}mixture_conv.", keep=len(root))
    if part == "adapter":
        mask = mixture["mixture_conv.weight"].shape[0] == 1
        inputs = own["init_conv.weight"].shape[1] // CHANNELS
        method = MethodConfig("avid", shape, mask, inputs > world.past + 1)
        network = _converted(own, unet_rules(len(shape.mults)), _unet(shape, world, method, inputs), path)
        out = jax.ShapeDtypeStruct((1, 1, 1, 1, CHANNELS + mask), np.float32)
        expected = jax.eval_shape(AdapterHead(mask).init, jax.random.key(0), out)["params"]
        return Converted(method, {"network": network, "head": to_ours(mixture, MIXTURE, expected, path)})
    if part == "control_net":
        method = MethodConfig("controlnet", shape, False, False)
        projected = own["projection_layers.0.weight"].shape[0] if "projection_layers.0.weight" in own else 0
        return Converted(
            method, _converted(own, control_rules(len(shape.mults)), controlnet_shape(method, world, projected), path)
        )
    method = MethodConfig("diffusion", shape, False, False)
    return Converted(
        method, _converted(own, unet_rules(len(shape.mults)), _unet(shape, world, method, world.past + 1), path)
    )


def save_unet(params: Params, method: MethodConfig, world: WorldConfig, shown: int) -> dict[str, Stored]:
    """A UNet's parameters under the original's names; ``shown`` frames stand side by side in its input.

    Raises:
        VgenError: for a network that the original has no place for.
    """
    shape = pixel_config(method)
    if shape.patch != 1:
        raise VgenError("unet.patch is not 1: the original has no patches")
    found = to_original(params, unet_rules(len(shape.mults)), _unet(shape, world, method, shown))
    return {re.sub(r"^null_action_emb\.weight$", "null_action_emb", name): value for name, value in found.items()}


def _below(tensors: Mapping[str, Stored], prefix: str, keep: int | None = None) -> dict[str, Stored]:
    """The tensors whose names begin with ``prefix``, without it (or without its first ``keep`` letters)."""
    cut = len(prefix) if keep is None else keep
    return {name[cut:]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _converted(tensors: Mapping[str, Stored], rules: list[Rule], expected: Any, path: Path) -> Params:
    return to_ours(tensors, rules, expected, path, old_names=BARE, ignored=CONSTANTS)


def _unet(shape: PixelConfig, world: WorldConfig, method: MethodConfig, shown: int) -> Any:
    """The shapes of a UNet's parameters."""
    network = pixel_unet(shape, world, method.form == "avid" and method.mask)
    side = 2 ** len(shape.mults)
    x = jax.ShapeDtypeStruct((1, 1, side, side, CHANNELS * shown), np.float32)
    action = jax.ShapeDtypeStruct((1, 1, world.action_dim), np.float32)
    t_B, known = jax.ShapeDtypeStruct((1,), np.int32), jax.ShapeDtypeStruct((1, 1), bool)
    return jax.eval_shape(network.init, jax.random.key(0), x, t_B, action, known)["params"]


def _shape(tensors: Mapping[str, Stored]) -> PixelConfig:
    """A network's size, read off its tensors."""
    dim = tensors["init_conv.weight"].shape[0]
    heads = tensors["time_rel_pos_bias.relative_attention_bias.weight"].shape[1]
    inner = tensors["init_temporal_attn.fn.fn.fn.to_qkv.weight"].shape[0]
    levels = sorted(
        int(m[1]) for name in tensors if (m := re.fullmatch(r"downs\.(\d+)\.0\.block1\.proj\.weight", name))
    )
    mults = tuple(tensors[f"downs.{level}.0.block1.proj.weight"].shape[0] // dim for level in levels)
    return PixelConfig(dim, mults, heads, inner // (3 * heads), 1, "none", "float32")
