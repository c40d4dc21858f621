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

from vgen_jax import pretrained
from vgen_jax.bundled import AUTOENCODER
from vgen_jax.checkpoint import check_matches, load_export
from vgen_jax.compose.guidance import classifier_free
from vgen_jax.data.schema import DatasetInfo
from vgen_jax.diffusion.masking import Masking
from vgen_jax.diffusion.prediction import check_kind
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.models.autoencoder_kl import AutoencoderKL
from vgen_jax.models.text import ByteTextEncoder, looked_up
from vgen_jax.models.unet_latent import UNet3D
from vgen_jax.objectives.autoencoder import from_unit, to_unit
from vgen_jax.sections import section
from vgen_jax.types import Array, Condition, Key, Params, Prediction, PredictionKind, Predictor, VgenError, VideoBatch

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}


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


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """The latent UNet's shape (see ``models.unet_latent``); ``text_width`` is its cross_attention_dim."""

    block_channels: tuple[int, ...]
    attention_levels: tuple[bool, ...]
    layers_per_block: int
    head_dim: int
    norm_groups: int
    transformer_in_heads: int
    scale_shift: bool
    remat: str
    dtype: str


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The byte text encoder's shape (see ``models.text``); ``width`` 0 for a model without text.

    ``layers`` 0: the embeddings come from a table that a frozen encoder filled (``models.text.looked_up``).
    """

    width: int
    layers: int
    heads: int
    max_length: int


@dataclasses.dataclass(frozen=True)
class SlowConfig:
    """Everything that defines a slow model and must travel with its weights.

    Attributes:
        kind: what the network predicts.
        actions: the action space that conditions each frame, ``continuous``, ``discrete`` or ``none``.
        action_dim: width of a frame's action (one-hot for a discrete space, 0 for ``none``).
        latent_channels: of the latents (or of the pixels) it denoises.
    """

    unet: UNetConfig
    text: TextConfig
    schedule: Schedule
    masking: Masking
    kind: PredictionKind
    actions: str
    action_dim: int
    latent_channels: int

    def __post_init__(self) -> None:
        check_kind(self.kind)


def dtype_of(name: str) -> Any:
    """A compute dtype by name."""
    if name not in DTYPES:
        raise VgenError(f"dtype '{name}' is unknown: use one of {', '.join(DTYPES)}")
    return DTYPES[name]


class Denoiser(NamedTuple):
    """A slow model as functions of its parameters ``{"unet": …, "text": …}``.

    Attributes:
        init: (rng) -> params; without ``text`` where that is a table, which is not learnt.
        embed: (params, batch) -> Condition. Reads the batch's tokens and actions.
        predict: (params, x_t, t, condition) -> Prediction.
    """

    init: Any
    embed: Any
    predict: Any


def denoiser(config: SlowConfig) -> Denoiser:
    """The networks of a slow model."""
    with_text, from_table = config.text.width > 0, config.text.layers == 0
    dtype = dtype_of(config.unet.dtype)
    shape = {k: v for k, v in dataclasses.asdict(config.unet).items() if k != "dtype"}
    channels, inputs = config.latent_channels, config.latent_channels * (2 if config.masking.reference else 1)
    unet = UNet3D(
        **shape,
        in_channels=inputs,
        out_channels=channels,
        cross_attention_dim=config.text.width or 1,
        action_dim=config.action_dim,
        dtype=dtype,
    )
    encoder = ByteTextEncoder(**dataclasses.asdict(config.text), dtype=dtype)

    def encode(params: Params, token_BL: Any) -> Any:
        if not with_text:
            return None, None
        if not from_table:
            return encoder.apply({"params": params["text"]}, token_BL)
        if "text" not in params:
            raise VgenError("this run has no embeddings of its texts: use a model fine-tuned here, or another run")
        return looked_up(params["text"], token_BL), None

    def embed(params: Params, batch: VideoBatch) -> Condition:
        text, mask = encode(params, batch.token_BL)
        if not config.action_dim:
            return Condition(text, mask)
        return Condition(text, mask, batch.action_BTA, batch.action_valid_BT)

    def predict(params: Params, x_t_BTHWC: Array, t: Array, condition: Condition) -> Prediction:
        value: Any = unet.apply(
            {"params": params["unet"]},
            x_t_BTHWC,
            t,
            condition.text_BLD,
            condition.text_mask_BL,
            condition.action_BTA,
            condition.action_valid_BT,
        )
        return Prediction(value, config.kind)

    def init(rng: Key) -> Params:
        side = 2 ** (len(config.unet.block_channels) - 1)
        x = jnp.zeros((1, 2, side, side, inputs))
        token = jnp.ones((1, config.text.max_length), jnp.int32)
        action = jnp.zeros((1, 2, config.action_dim))
        batch = VideoBatch(x, jnp.ones((1, 2), bool), token, action, jnp.ones((1, 2), bool))
        k_unet, k_text = jax.random.split(rng)
        params = {"text": encoder.init(k_text, token)["params"]} if with_text and not from_table else {}
        table = {"token": token, "embedding": jnp.zeros((1, 1, config.text.width))}
        c = embed({"text": table, **params}, batch)
        arguments = (x, jnp.zeros((1,), jnp.int32), c.text_BLD, c.text_mask_BL, c.action_BTA, c.action_valid_BT)
        return {**params, "unet": unet.init(k_unet, *arguments)["params"]}

    return Denoiser(init, embed, predict)


class Autoencoder(NamedTuple):
    """A frozen autoencoder as pytrees: frames in and out, latents scaled to unit variance between.

    Attributes:
        encode: uint8 (..., H, W, 3) -> float32 latents (the mean, times ``scale``).
        decode: scaled latents -> uint8 frames.
        channels: of a latent.
        factor: pixels per latent pixel, on each side.
    """

    encode: Partial
    decode: Partial
    channels: int
    factor: int
    folder: Path


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

    def encode(params: Params, frames: Array) -> Array:
        mean, _ = network.apply({"params": params}, to_unit(frames), method="encode")
        return mean * scale

    def decode(params: Params, latents: Array) -> Array:
        frames: Any = network.apply({"params": params}, latents / scale, method="decode")
        return from_unit(frames)

    return Autoencoder(Partial(encode, params), Partial(decode, params), config.latent_channels, network.factor, folder)


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
    return SlowModel(config, networks, params, load_autoencoder(autoencoder_folder), info, windows)


def frame_size(model: SlowModel) -> tuple[int, int]:
    """(height, width) of the model's frames, in pixels."""
    latents = model.data.latents
    height, width = (model.data.frame_shape if latents is None else latents["frame_shape"])[:2]
    return height, width


def predictor(model: SlowModel, params: Params) -> Predictor:
    """The slow model as a Predictor that carries its parameters."""
    return Partial(model.denoiser.predict, params)


def guided(model: SlowModel, params: Params, batch: VideoBatch, scale: float) -> Predictor:
    """The slow model with classifier-free guidance against the empty text and the null action."""
    empty = dataclasses.replace(batch, token_BL=None, action_valid_BT=None)
    if batch.token_BL is not None:
        empty = dataclasses.replace(empty, token_BL=jnp.zeros_like(batch.token_BL).at[:, 0].set(1))
    if batch.action_valid_BT is not None:
        empty = dataclasses.replace(empty, action_valid_BT=jnp.zeros_like(batch.action_valid_BT))
    return classifier_free(predictor(model, params), model.denoiser.embed(params, empty), scale)


def action_width(info: DatasetInfo, actions: str) -> int:
    """Width of a frame's action under the chosen space; 0 for ``none``."""
    if actions == "none":
        return 0
    if actions not in info.action_spaces:
        raise VgenError(
            f"config key slow.actions is '{actions}' but the data have {', '.join(info.action_spaces) or 'no actions'}"
        )
    return info.action_spaces[actions].width
