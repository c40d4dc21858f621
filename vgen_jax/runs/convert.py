"""Run ``convert``: weights of the original models into folders of this library, and back.

``to_flax`` writes export folders, ``model.safetensors`` with the names and layouts that the networks here have and
``config.json`` (see ``checkpoint.load_export``); a pipeline's tokenizer and scheduler stay as they are. An autoencoder
becomes one that ``autoencoder_dir`` of the other runs takes. ``to_diffusers`` reads such folders, those of trained
autoencoders included.

A network is in memory once and alone: a pipeline is converted part by part, and written tensor by tensor.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import linen as nn
from flax import traverse_util
from ml_collections import ConfigDict

from vgen_jax import build
from vgen_jax.convert import clip, files, kl_vae, modelscope, schedulers
from vgen_jax.models.text import ClipTextEncoder
from vgen_jax.models.unet_latent import UNet3D
from vgen_jax.runs.folder import keep_config, write_results
from vgen_jax.types import Params, VgenError

EXPORT_STEM = "model"
UNET, AUTOENCODER, TEXT = "unet", "autoencoder", "text"  # a network's fields in its folder's config.json
SCALE, SAMPLE_SIZE = "scale", "sample_size"


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """What to convert.

    Attributes:
        model: ``modelscope`` (a whole text-to-video pipeline), ``kl_vae`` or ``clip`` (a text tower).
        direction: ``to_flax`` or ``to_diffusers``.
        source: folder to read; for ``to_flax`` also a model of the Hugging Face hub.
        target: folder to write; empty for ``export`` in the work directory.
        dtype: of the written weights.
    """

    model: str
    direction: str
    source: str
    target: str
    dtype: str

    def __post_init__(self) -> None:
        for key, allowed in (("model", tuple(MODELS)), ("direction", DIRECTIONS)):
            if getattr(self, key) not in allowed:
                raise VgenError(f"config key convert.{key} is '{getattr(self, key)}': use {' or '.join(allowed)}")
        if not self.source:
            raise VgenError("config key convert.source is empty: give the folder of a model")


def run(config: ConfigDict, workdir: Path) -> None:
    """Converts; writes the target folder and ``results.json``."""
    convert = build.section(ConvertConfig, config.convert, "convert")
    target = Path(convert.target).expanduser() if convert.target else workdir / "export"
    if target.resolve() == Path(convert.source).expanduser().resolve():
        raise VgenError(f"config key convert.target is convert.source, {target}: give another folder")
    dtype = np.dtype(build.dtype_of(convert.dtype))
    keep_config(config, workdir)  # not of a start that was refused
    to_flax, to_diffusers = MODELS[convert.model]
    if convert.direction == "to_flax":
        count = to_flax(convert.source, target, dtype)
    else:
        source = Path(convert.source).expanduser()
        if not source.is_dir():
            raise VgenError(f"config key convert.source is {source}, which is no folder: give one that to_flax wrote")
        count = to_diffusers(source, target, dtype)
    print(f"converted {count:,} parameters to {target}", flush=True)
    write_results(workdir, {"parameters": count, "target": str(target), "dtype": convert.dtype})


def _unet_to_flax(source: str, target: Path, dtype: np.dtype) -> int:
    config, params = modelscope.load_unet(source, dtype=dtype)
    return _write(target, {UNET: config, SAMPLE_SIZE: modelscope.sample_size(source)}, params)


def _unet_to_diffusers(source: Path, target: Path, dtype: np.dtype) -> int:
    raw, params = _read(source, (UNET, SAMPLE_SIZE), dtype)
    modelscope.save_unet(_fields(raw[UNET], UNet3D, source), params, target, sample_size=raw[SAMPLE_SIZE])
    return _count(params)


def _vae_to_flax(source: str, target: Path, dtype: np.dtype) -> int:
    fields, params = kl_vae.load(source, dtype=dtype)
    if fields.pop("channels") != 3:
        raise VgenError(f"the autoencoder in {source} is not one of RGB frames: only 3 channels can be converted")
    # What the original has not; and a training that goes on from here would weigh the KL term as the original's did.
    ours = {"patch": 1, "linear_path": False, "dtype": "float32", "kl_weight": 1e-6}
    return _write(target, {AUTOENCODER: {**fields, **ours}, SCALE: kl_vae.scaling_factor(source)}, params)


def _vae_to_diffusers(source: Path, target: Path, dtype: np.dtype) -> int:
    raw, params = _read(source, (AUTOENCODER, SCALE), dtype)
    config = build.section(build.AutoencoderConfig, raw[AUTOENCODER], AUTOENCODER)
    fields = {key: value for key, value in dataclasses.asdict(config).items() if key not in ("dtype", "kl_weight")}
    kl_vae.save(fields, params, target, scaling_factor=raw[SCALE])
    return _count(params)


def _text_to_flax(source: str, target: Path, dtype: np.dtype) -> int:
    config, params = clip.load_text(source, dtype=dtype)
    return _write(target, {TEXT: config}, params)


def _text_to_diffusers(source: Path, target: Path, dtype: np.dtype) -> int:
    raw, params = _read(source, (TEXT,), dtype)
    clip.save_text(_fields(raw[TEXT], ClipTextEncoder, source), params, target)
    return _count(params)


def _pipeline_to_flax(source: str, target: Path, dtype: np.dtype) -> int:
    scheduler, tokenizer = schedulers.load_scheduler(source), clip.tokenizer_folder(source)
    count = sum(to_flax(source, target / part, dtype) for part, (to_flax, _) in PARTS.items())
    schedulers.save_scheduler(scheduler, target / schedulers.PART)
    clip.copy_tokenizer(tokenizer, target / clip.TOKENIZER_PART)
    return count


def _pipeline_to_diffusers(source: Path, target: Path, dtype: np.dtype) -> int:
    scheduler, tokenizer = schedulers.load_scheduler(source), clip.tokenizer_folder(source)
    count = sum(to_diffusers(source / part, target / part, dtype) for part, (_, to_diffusers) in PARTS.items())
    modelscope.save_settings(scheduler, tokenizer, target)
    return count


Converter = tuple[Callable[[str, Path, np.dtype], int], Callable[[Path, Path, np.dtype], int]]
PARTS: dict[str, Converter] = {
    kl_vae.PART: (_vae_to_flax, _vae_to_diffusers),
    clip.PART: (_text_to_flax, _text_to_diffusers),
    modelscope.PART: (_unet_to_flax, _unet_to_diffusers),
}
MODELS: dict[str, Converter] = {
    "modelscope": (_pipeline_to_flax, _pipeline_to_diffusers),
    "kl_vae": PARTS[kl_vae.PART],
    "clip": PARTS[clip.PART],
}
DIRECTIONS = ("to_flax", "to_diffusers")


def _write(folder: Path, config: Mapping[str, Any], params: Params) -> int:
    """Writes an export folder; returns the number of parameters."""
    flat = traverse_util.flatten_dict(params, sep="/")
    tensors = {path: files.Stored(x.shape, x.dtype, functools.partial(_same, x)) for path, x in flat.items()}
    files.write_folder(folder, config, tensors, EXPORT_STEM)
    return _count(params)


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _read(folder: Path, keys: tuple[str, ...], dtype: np.dtype) -> tuple[dict[str, Any], Params]:
    """An export folder's config and its parameters as NumPy arrays.

    Raises:
        VgenError: if a file is missing or damaged, or the config lacks a key.
    """
    raw = files.read_json(folder / files.CONFIG)
    for key in keys:
        if key not in raw:
            path = folder / files.CONFIG
            raise VgenError(f"{path} has no '{key}': it is no export of this kind; name another folder")
    flat = {path: np.asarray(stored.read(), dtype) for path, stored in files.read_weights(folder).items()}
    return raw, traverse_util.unflatten_dict(flat, sep="/")


def _fields(values: Any, module: type[nn.Module], folder: Path) -> dict[str, Any]:
    """The fields of a network from its folder's JSON, which has lists for tuples."""
    known = {field.name for field in dataclasses.fields(module)} - {"parent", "name", "dtype"}
    unknown = sorted(set(values) - known) if isinstance(values, Mapping) else ["no fields"]
    if unknown:
        raise VgenError(f"{folder / files.CONFIG} has {unknown[0]}, which no {module.__name__} has: convert it again")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _count(params: Params) -> int:
    return sum(int(np.prod(shape)) for shape in (x.shape for x in traverse_util.flatten_dict(params).values()))
