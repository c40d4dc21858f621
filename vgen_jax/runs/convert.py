"""Run ``convert``: weights of the original models into folders of this library, and back.

``to_flax`` writes export folders, ``model.safetensors`` with the names and layouts that the networks here have and
``config.json`` (see ``files.exports.load_export``); a text-to-video model's tokenizer and scheduler stay as they are.
An autoencoder becomes one that ``autoencoder_dir`` of the other runs takes. ``to_diffusers`` reads such folders, those
of trained autoencoders included.

A network is in memory once and alone: a model is converted part by part, and written tensor by tensor.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.convert import clip, kl_vae, modelscope, schedulers
from vgen_jax.convert.exports import AUTOENCODER, SAMPLE_SIZE, SCALE, TEXT, UNET, count, fields, read, write
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.models.text import ClipTextEncoder
from vgen_jax.models.unet_latent import UNet3D
from vgen_jax.nn.dtypes import dtype_of
from vgen_jax.types import VgenError
from vgen_jax.worlds.autoencoder import AutoencoderConfig


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """What to convert.

    Attributes:
        model: ``modelscope`` (a whole text-to-video model), ``kl_vae`` or ``clip`` (a text tower).
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


SECTIONS: Sections = {"convert": ConvertConfig}


def run(config: ConfigDict, workdir: Path) -> None:
    """Converts; writes the target folder and ``results.json``."""
    convert = section(ConvertConfig, config.convert, "convert")
    target = Path(convert.target).expanduser() if convert.target else workdir / "export"
    if target.resolve() == Path(convert.source).expanduser().resolve():
        raise VgenError(f"config key convert.target is convert.source, {target}: give another folder")
    dtype = np.dtype(dtype_of(convert.dtype))
    keep_config(config, workdir)  # not of a start that was refused
    to_flax, to_diffusers = MODELS[convert.model]
    if convert.direction == "to_flax":
        parameters = to_flax(convert.source, target, dtype)
    else:
        source = Path(convert.source).expanduser()
        if not source.is_dir():
            raise VgenError(f"config key convert.source is {source}, which is no folder: give one that to_flax wrote")
        parameters = to_diffusers(source, target, dtype)
    print(f"converted {parameters:,} parameters to {target}", flush=True)
    write_results(workdir, {"parameters": parameters, "target": str(target), "dtype": convert.dtype})


def _unet_to_flax(source: str, target: Path, dtype: np.dtype) -> int:
    config, params = modelscope.load_unet(source, dtype=dtype)
    return write(target, {UNET: config, SAMPLE_SIZE: modelscope.sample_size(source)}, params)


def _unet_to_diffusers(source: Path, target: Path, dtype: np.dtype) -> int:
    raw, params = read(source, (UNET, SAMPLE_SIZE), dtype)
    modelscope.save_unet(fields(raw[UNET], UNet3D, source), params, target, sample_size=raw[SAMPLE_SIZE])
    return count(params)


def _vae_to_flax(source: str, target: Path, dtype: np.dtype) -> int:
    found, params = kl_vae.load(source, dtype=dtype)
    if found.pop("channels", 3) != 3:
        raise VgenError(f"the autoencoder in {source} is not one of RGB frames: only 3 channels can be converted")
    # What the original has not; and a training that goes on from here would weigh the KL term as the original's did.
    ours = {"patch": 1, "linear_path": False, "dtype": "float32", "kl_weight": 1e-6}
    return write(target, {AUTOENCODER: {**ours, **found}, SCALE: kl_vae.scaling_factor(source)}, params)


def _vae_to_diffusers(source: Path, target: Path, dtype: np.dtype) -> int:
    raw, params = read(source, (AUTOENCODER, SCALE), dtype)
    config = section(AutoencoderConfig, raw[AUTOENCODER], AUTOENCODER)
    shape = {key: value for key, value in dataclasses.asdict(config).items() if key not in ("dtype", "kl_weight")}
    kl_vae.save(shape, params, target, scaling_factor=raw[SCALE])
    return count(params)


def _text_to_flax(source: str, target: Path, dtype: np.dtype) -> int:
    config, params = clip.load_text(source, dtype=dtype)
    return write(target, {TEXT: config}, params)


def _text_to_diffusers(source: Path, target: Path, dtype: np.dtype) -> int:
    raw, params = read(source, (TEXT,), dtype)
    clip.save_text(fields(raw[TEXT], ClipTextEncoder, source), params, target)
    return count(params)


def _modelscope_to_flax(source: str, target: Path, dtype: np.dtype) -> int:
    scheduler, tokenizer = schedulers.load_scheduler(source), clip.tokenizer_folder(source)
    parameters = sum(to_flax(source, target / part, dtype) for part, (to_flax, _) in PARTS.items())
    schedulers.save_scheduler(scheduler, target / schedulers.PART)
    clip.copy_tokenizer(tokenizer, target / clip.TOKENIZER_PART)
    return parameters


def _modelscope_to_diffusers(source: Path, target: Path, dtype: np.dtype) -> int:
    scheduler, tokenizer = schedulers.load_scheduler(source), clip.tokenizer_folder(source)
    parameters = sum(to_diffusers(source / part, target / part, dtype) for part, (_, to_diffusers) in PARTS.items())
    modelscope.save_settings(scheduler, tokenizer, target)
    return parameters


Converter = tuple[Callable[[str, Path, np.dtype], int], Callable[[Path, Path, np.dtype], int]]
PARTS: dict[str, Converter] = {
    kl_vae.PART: (_vae_to_flax, _vae_to_diffusers),
    clip.PART: (_text_to_flax, _text_to_diffusers),
    modelscope.PART: (_unet_to_flax, _unet_to_diffusers),
}
MODELS: dict[str, Converter] = {
    "modelscope": (_modelscope_to_flax, _modelscope_to_diffusers),
    "kl_vae": PARTS[kl_vae.PART],
    "clip": PARTS[clip.PART],
}
DIRECTIONS = ("to_flax", "to_diffusers")
