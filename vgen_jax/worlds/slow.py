"""The only file that turns a configuration into objects.

Each section of a config is mapped 1:1 onto a frozen dataclass: an unknown or a missing key is an error that names it.
Nothing deeper in the library ever sees a ConfigDict.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vgen_jax.compose.guidance import classifier_free
from vgen_jax.config import section
from vgen_jax.data.schema import DatasetInfo
from vgen_jax.files.assets import AUTOENCODER
from vgen_jax.learning.checkpoint import check_matches, load_export
from vgen_jax.models.autoencoder_kl import AutoencoderKL
from vgen_jax.models.warp import CANVAS, canvas
from vgen_jax.objectives.autoencoder import from_unit, to_unit
from vgen_jax.types import Array, Condition, Params, Predictor, Reference, VgenError, VideoBatch
from vgen_jax.worlds import pretrained
from vgen_jax.worlds.slow_networks import Denoiser, SlowConfig, denoiser, dtype_of


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """The KL autoencoder's shape (see ``models.autoencoder_kl``) and the weight of its KL term."""

    block_channels: tuple[int, ...]
    layers_per_block: int
    latent_channels: int
    norm_groups: int
    patch: int
    linear_path: bool
    dtype: str
    kl_weight: float


class Autoencoder(NamedTuple):
    """A frozen autoencoder as pytrees: frames in and out, latents scaled to unit variance between.

    Attributes:
        encode: uint8 (..., H, W, 3) -> float32 latents (the mean, times ``scale``).
        decode: scaled latents -> uint8 frames.
        channels: of a latent.
        factor: pixels per latent pixel, on each side.
        params, scale: of the network, and what its latents are multiplied by.
    """

    encode: Partial
    decode: Partial
    channels: int
    factor: int
    folder: Path
    params: Params
    scale: float


def autoencoder_network(config: AutoencoderConfig) -> AutoencoderKL:
    """The trainable network."""
    shape = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("dtype", "kl_weight")}
    return AutoencoderKL(**shape, dtype=dtype_of(config.dtype))


def load_autoencoder(folder: Path) -> Autoencoder:
    """A frozen autoencoder from an export folder (``model.safetensors``, ``config.json`` with its scale).

    Raises:
        VgenError: if a file is missing or does not fit.
    """
    params, raw = load_export(folder)
    config = section(AutoencoderConfig, _key(raw, "autoencoder", folder), "autoencoder")
    scale = float(_key(raw, "scale", folder))
    network = autoencoder_network(config)
    frame = jax.ShapeDtypeStruct((1, network.factor, network.factor, 3), jnp.float32)
    check_matches(params, jax.eval_shape(network.init, jax.random.key(0), frame)["params"], folder)
    return autoencoder_of(config, params, scale, folder)


def autoencoder_of(config: AutoencoderConfig, params: Params, scale: float, folder: Path) -> Autoencoder:
    """A frozen autoencoder of these parameters; ``folder`` is where they come from."""
    network = autoencoder_network(config)

    def encode(params: Params, frames: Array) -> Array:
        mean, _ = network.apply({"params": params}, to_unit(frames), method="encode")
        return mean * scale

    def decode(params: Params, latents: Array) -> Array:
        frames: Any = network.apply({"params": params}, latents / scale, method="decode")
        return from_unit(frames)

    pair = Partial(encode, params), Partial(decode, params)
    return Autoencoder(*pair, config.latent_channels, network.factor, folder, params, scale)


def start_warp(config: SlowConfig, autoencoder: Autoencoder, params: Params) -> Params:
    """Fresh parameters with the constants that ``slow.warp`` takes from the autoencoder.

    Raises:
        VgenError: if the autoencoder has no linear path, or another patch.
    """
    if config.warp.patch != autoencoder.factor:
        raise VgenError(
            f"config key slow.warp.patch is {config.warp.patch}, but a latent pixel of the autoencoder in "
            f"{autoencoder.folder} is {autoencoder.factor} pixels wide: use that"
        )
    warp = {**params["warp"], CANVAS: canvas(autoencoder.params, autoencoder.scale)}
    return {**params, "warp": warp}


def _key(raw: Mapping[str, Any], name: str, folder: Path) -> Any:
    if name not in raw:
        raise VgenError(f"{folder / 'config.json'} has no '{name}': it is no export of this kind; name another folder")
    return raw[name]


def _tuple(value: Any) -> Any:
    return tuple(_tuple(v) for v in value) if isinstance(value, (list, tuple)) else value


class SlowModel(NamedTuple):
    """A trained slow model with all that a generation needs.

    Attributes:
        config: its definition.
        denoiser: its networks.
        params: its (moving-average) parameters.
        autoencoder: frozen, from the same export.
        data: what the training data said of actions, commands, frame rate and chunks.
        windows: (f_p, f_g) it was trained on.
    """

    config: SlowConfig
    denoiser: Denoiser
    params: Params
    autoencoder: Autoencoder
    data: DatasetInfo
    windows: tuple[tuple[int, int], ...]


def load_slow_model(folder: Path) -> SlowModel:
    """A slow model from the ``export`` folder of a training run, or from a pipeline's (``pretrained``).

    Raises:
        VgenError: if a file is missing or does not fit.
    """
    if pretrained.is_pipeline(folder):
        params, raw, info = pretrained.load(folder)
        autoencoder_folder = folder / "vae"
    else:
        params, raw = load_export(folder)
        info, autoencoder_folder = None, folder / str(raw.get(AUTOENCODER, "autoencoder"))
    config = section(SlowConfig, _key(raw, "slow", folder), "slow")
    networks = denoiser(config)
    expected = jax.eval_shape(networks.init, jax.random.key(0))
    check_matches({name: params[name] for name in params if name in expected}, expected, folder)
    info_file = folder / "dataset.json"
    if info is None and not info_file.is_file():
        raise VgenError(f"{info_file} is missing: export the model again")
    info = info or DatasetInfo.from_json(info_file.read_text(), str(info_file))
    windows = _tuple(_key(raw, "windows", folder))
    autoencoder = load_autoencoder(autoencoder_folder)
    params = jax.device_put(params)  # once, for the sampler and the memory
    return SlowModel(config, networks, params, autoencoder, info, windows)


def frame_size(model: SlowModel) -> tuple[int, int]:
    """(height, width) of the model's frames, in pixels."""
    latents = model.data.latents
    height, width = (model.data.frame_shape if latents is None else latents["frame_shape"])[:2]
    return height, width


def slow_predictor(model: SlowModel, params: Params) -> Predictor:
    """The slow model as a Predictor that carries its parameters."""
    return Partial(model.denoiser.predict, params)


def condition_of(model: SlowModel, params: Params, batch: VideoBatch, reference: Reference | None = None) -> Condition:
    """What the slow model is conditioned on; ``reference`` for frames to be seen again."""
    condition = model.denoiser.embed(params, batch)
    if reference is None:
        return condition
    return condition.replace(reference_BTHWC=reference.frames_BTHWC, motion_BTA=reference.motion_BTA)


def guided_predictor(
    model: SlowModel, params: Params, batch: VideoBatch, scale: float, reference: Reference | None = None
) -> Predictor:
    """The slow model with classifier-free guidance against the empty text and the null action."""
    empty = dataclasses.replace(batch, token_BL=None, action_valid_BT=None)
    if batch.token_BL is not None:
        empty = dataclasses.replace(empty, token_BL=jnp.zeros_like(batch.token_BL).at[:, 0].set(1))
    if batch.action_valid_BT is not None:
        empty = dataclasses.replace(empty, action_valid_BT=jnp.zeros_like(batch.action_valid_BT))
    return classifier_free(slow_predictor(model, params), condition_of(model, params, empty, reference), scale)


def action_width(info: DatasetInfo, actions: str) -> int:
    """Width of a frame's action under the chosen space; 0 for ``none``."""
    if actions == "none":
        return 0
    if actions not in info.action_spaces:
        raise VgenError(
            f"config key slow.actions is '{actions}' but the data have {', '.join(info.action_spaces) or 'no actions'}"
        )
    return info.action_spaces[actions].width
