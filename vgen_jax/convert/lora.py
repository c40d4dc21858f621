"""Adapters to and from the files of Hugging Face's PEFT: ``adapter_model.safetensors`` and ``adapter_config.json``.

PEFT adapts a layer exactly as ``nn.lora`` does; only names and the order of axes differ. A network without an original
keeps its own names, dots between their parts, and PyTorch's layouts. For a converted network the rules of its
conversion say what each layer is called there and how its kernel is laid out, so that the adapter fits the original.
"""

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.flax
from einops import EinopsError, rearrange

from vgen_jax.convert.rules import Rule, entries
from vgen_jax.nn.lora import KERNEL, Lora, kernel_shapes
from vgen_jax.types import Array, Params, VgenError

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
LAYOUTS = {2: "o i -> i o", 3: "o i t -> t i o", 4: "o i h w -> h w i o", 5: "o i t h w -> t h w i o"}
# What another value of would make an adapter compute something else.
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_rslora": (False, None),
    "use_dora": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": ([], None),
}


class OriginalLayer(NamedTuple):
    """A layer's name in the original, and how its kernel is laid out there: ``original -> ours``."""

    name: str
    layout: str


def layers(
    shapes: dict[str, tuple[int, ...]], rules: Iterable[Rule] | None
) -> tuple[dict[str, OriginalLayer], list[str]]:
    """Path -> the layer there; and the paths of layers that the original lacks.

    Args:
        shapes: path -> kernel shape here.
        rules: of the network's conversion; ``None`` for a network without an original.
    """
    if rules is None:
        return {path: OriginalLayer(path.replace("/", "."), LAYOUTS[len(shape)]) for path, shape in shapes.items()}, []
    found, uncovered = entries(rules, {f"{path}/{KERNEL}": shape for path, shape in shapes.items()})
    known = {
        entry.path.removesuffix(f"/{KERNEL}"): OriginalLayer(name.removesuffix(".weight"), entry.layout)
        for name, entry in found.items()
    }
    return known, [path.removesuffix(f"/{KERNEL}") for path in uncovered]


def save_peft(folder: Path, lora: Lora, rules: Iterable[Rule] | None = None) -> None:
    """Writes one adapter (not a stack) as PEFT reads it.

    Raises:
        VgenError: if the original has no layer for one of the adapter's.
    """
    folder = Path(folder)
    shapes = {path: (*w["a"].shape[:-1], w["b"].shape[-1]) for path, w in lora.weights.items()}
    names, lacking = layers(shapes, rules)
    if lacking:
        raise VgenError(f"the original has no layer for the adapter's {lacking[0]}: leave it out of lora.targets")
    tensors: dict[str, jax.Array] = {}
    for path, weights in lora.weights.items():
        name, layout = names[path]
        before, after = layout.split(" -> ")
        a = np.asarray(weights["a"])
        tensors[f"{PREFIX}{name}.lora_A.weight"] = jnp.asarray(rearrange(a, f"{after} -> {before}"))
        b = np.asarray(weights["b"]).T
        tensors[f"{PREFIX}{name}.lora_B.weight"] = jnp.asarray(b.reshape(*b.shape, *(1,) * (len(before.split()) - 2)))
    rank = next(iter(lora.weights.values()))["a"].shape[-1]
    config = {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": None, "inference_mode": True,
        "r": rank, "lora_alpha": rank * lora.scale, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False,
        "target_modules": sorted(layer.name for layer in names.values()),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.flax.save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def load_peft(folder: Path, params: Params, rules: Iterable[Rule] | None = None) -> Lora:
    """An adapter that PEFT wrote.

    Args:
        params: the network's parameters or their shapes.
        rules: as for ``layers``.

    Raises:
        VgenError: if a file is missing or damaged, if the adapter is of a kind that ``nn.lora`` is not, or for tensors
            that are missing, unexpected or wrongly shaped.
    """
    folder = Path(folder)
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise VgenError(f"{folder / file} is missing: name the folder of a PEFT adapter")
    try:
        config = json.loads((folder / CONFIG).read_text())
        tensors = safetensors.flax.load_file(folder / WEIGHTS)
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise VgenError(f"{folder} is damaged ({error}): copy it again") from error
    for key, plain in PLAIN.items():
        if key in config and config[key] not in plain:
            raise VgenError(f"{folder / CONFIG} has {key} = {config[key]!r}: only plain LoRA can be read")
    shapes = kernel_shapes(params)
    weights = {}
    for path, (name, layout) in layers(shapes, rules)[0].items():
        a, b = (tensors.pop(f"{PREFIX}{name}.lora_{part}.weight", None) for part in "AB")
        if a is not None and b is not None:
            weights[path] = _layer(folder, name, a, b, layout, shapes[path])
    if tensors or not weights:
        named = next(iter(tensors), "no tensor")
        raise VgenError(
            f"{folder / WEIGHTS} has {named}, which fits no layer of the network: use the network it is for"
        )
    return Lora(weights, config["lora_alpha"] / config["r"])


def _layer(folder: Path, name: str, a: Array, b: Array, layout: str, shape: tuple[int, ...]) -> dict[str, Array]:
    """``a`` and ``b`` in our layout."""
    spatial = len(layout.split(" -> ")[0].split()) - 2
    if b.shape[2:] == (1,) * spatial:
        down: np.ndarray = np.zeros(())
        with contextlib.suppress(EinopsError):  # another shape altogether: refused below
            down = rearrange(np.asarray(a, np.float32), layout)
        if down.shape[:-1] == shape[:-1] and b.shape[:2] == (shape[-1], a.shape[0]):
            return {"a": jnp.asarray(down), "b": jnp.asarray(b.reshape(b.shape[:2]).T, jnp.float32)}
    raise VgenError(
        f"{folder / WEIGHTS} has {name} as {a.shape} and {b.shape}, which do not fit {shape}: wrong network"
    )
