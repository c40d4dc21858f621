"""A trained slow model with all that a generation needs: loading, conditions, guidance, decoding."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vgen_jax.compose.guidance import classifier_free
from vgen_jax.config import section
from vgen_jax.data.schema import DatasetInfo
from vgen_jax.data.text import EOS
from vgen_jax.files.assets import AUTOENCODER
from vgen_jax.files.exports import DATASET_FILE, check_matches, load_export
from vgen_jax.models.warp import CANVAS, canvas
from vgen_jax.types import Array, Autoencoder, Condition, Params, Predictor, Reference, VgenError, VideoBatch
from vgen_jax.worlds import pretrained
from vgen_jax.worlds.autoencoder import FrozenAutoencoder, load_autoencoder, required
from vgen_jax.worlds.slow_networks import Denoiser, SlowConfig, denoiser

ADAPTED = "unet"  # the part of a slow model's parameters that adapters are for
Sampling = Literal["merged", "intercepted"]


def start_warp(config: SlowConfig, autoencoder: FrozenAutoencoder, params: Params) -> Params:
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
        folder: its export; ``None`` for a model that was not loaded.
    """

    config: SlowConfig
    denoiser: Denoiser
    params: Params
    autoencoder: Autoencoder
    data: DatasetInfo
    windows: tuple[tuple[int, int], ...]
    folder: Path | None = None


def load_slow_model(folder: Path) -> SlowModel:
    """A slow model from the ``export`` folder of a training run, or from that of a text-to-video model
    (``worlds.pretrained``).

    Raises:
        VgenError: if a file is missing or does not fit.
    """
    if pretrained.is_pretrained(folder):
        params, raw, info = pretrained.load(folder)
        autoencoder_folder = folder / "vae"
    else:
        params, raw = load_export(folder)
        info, autoencoder_folder = None, folder / str(raw.get(AUTOENCODER, "autoencoder"))
    config = section(SlowConfig, required(raw, "slow", folder), "slow")
    networks = denoiser(config)
    expected = jax.eval_shape(networks.init, jax.random.key(0))
    check_matches({name: params[name] for name in params if name in expected}, expected, folder)
    info_file = folder / DATASET_FILE
    if info is None and not info_file.is_file():
        raise VgenError(f"{info_file} is missing: export the model again")
    info = info or DatasetInfo.from_json(info_file.read_text(), str(info_file))
    windows = _tuple(required(raw, "windows", folder))
    autoencoder = load_autoencoder(autoencoder_folder)
    params = jax.device_put(params)  # once, for the sampler and the memory
    return SlowModel(config, networks, params, autoencoder, info, windows, folder)


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
    return dataclasses.replace(condition, reference_BTHWC=reference.frames_BTHWC, motion_BTA=reference.motion_BTA)


def guided_predictor(
    model: SlowModel, params: Params, batch: VideoBatch, scale: float, reference: Reference | None = None
) -> Predictor:
    """The slow model with classifier-free guidance against the empty text and the null action."""
    empty = dataclasses.replace(batch, token_BL=None, action_valid_BT=None)
    if batch.token_BL is not None:
        empty = dataclasses.replace(empty, token_BL=jnp.zeros_like(batch.token_BL).at[:, 0].set(EOS))
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


def token_length(model: SlowModel) -> int:
    """Tokens of the model's texts; 0 for a model without text."""
    return model.config.text.max_length if model.config.text.width else 0


def chunk_decoder(model: SlowModel, frames: int) -> Callable[[Array], list[Array]]:
    """Latents of a chunk as uint8 frames in slices of ``frames``; dispatched, not waited for."""
    decode = jax.jit(lambda decode, latents: decode(latents))

    def view(latents_BTHWC: Array) -> list[Array]:
        starts = range(0, latents_BTHWC.shape[1], frames)
        return [decode(model.autoencoder.decode, latents_BTHWC[:, at : at + frames]) for at in starts]

    return view
