"""The frozen autoencoder between frames and latents, from an export: a KL autoencoder or a VQGAN."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vgen_jax.config import section
from vgen_jax.files.exports import check_matches, load_export
from vgen_jax.learning.state import divided
from vgen_jax.models.autoencoder_kl import AutoencoderKL
from vgen_jax.models.vqgan import CODEBOOK, Vqgan, VqganConfig
from vgen_jax.nn.dtypes import dtype_of
from vgen_jax.nn.pixels import from_unit, to_unit
from vgen_jax.types import Array, Params, VgenError

VQGAN = "vqgan"  # in an export's config.json: the shape of such an autoencoder


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """The KL autoencoder's shape; see ``models.autoencoder_kl.AutoencoderKL``.

    Attributes:
        dtype: of the computation; parameters are float32.
        kl_weight: of the KL term, beside the error of a pixel.
    """

    block_channels: tuple[int, ...]
    layers_per_block: int
    latent_channels: int
    norm_groups: int
    patch: int
    linear_path: bool
    dtype: str
    kl_weight: float


class FrozenAutoencoder(NamedTuple):
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


def load_autoencoder(folder: Path) -> FrozenAutoencoder:
    """A frozen autoencoder from an export folder (``model.safetensors``, ``config.json`` with its scale).

    The latents of a VQGAN are those before its codebook; ``decode`` quantises them.

    Raises:
        VgenError: if a file is missing or does not fit.
    """
    params, raw = load_export(folder)
    if VQGAN in raw:
        return vqgan_of(section(VqganConfig, raw[VQGAN], VQGAN), params, float(required(raw, "scale", folder)), folder)
    config = section(AutoencoderConfig, required(raw, "autoencoder", folder), "autoencoder")
    scale = float(required(raw, "scale", folder))
    network = autoencoder_network(config)
    frame = jax.ShapeDtypeStruct((1, network.factor, network.factor, 3), jnp.float32)
    check_matches(params, jax.eval_shape(network.init, jax.random.key(0), frame)["params"], folder)
    return autoencoder_of(config, params, scale, folder)


def autoencoder_of(config: AutoencoderConfig, params: Params, scale: float, folder: Path) -> FrozenAutoencoder:
    """A frozen autoencoder of these parameters; ``folder`` is where they come from."""
    network = autoencoder_network(config)

    def encode(params: Params, frames: Array) -> Array:
        mean, _ = network.apply({"params": params}, to_unit(frames), method="encode")
        return mean * scale

    def decode(params: Params, latents: Array) -> Array:
        frames: Any = network.apply({"params": params}, latents / scale, method="decode")
        return from_unit(frames)

    pair = Partial(encode, params), Partial(decode, params)
    return FrozenAutoencoder(*pair, config.latent_channels, network.factor, folder, params, scale)


def required(raw: Mapping[str, Any], name: str, folder: Path) -> Any:
    """An entry of an export's config.

    Raises:
        VgenError: if it has none of that name.
    """
    if name not in raw:
        raise VgenError(f"{folder / 'config.json'} has no '{name}': it is no export of this kind; name another folder")
    return raw[name]


def vqgan_of(config: VqganConfig, tree: Params, scale: float, folder: Path) -> FrozenAutoencoder:
    """A frozen VQGAN of these parameters, with its model state among them.

    Raises:
        VgenError: if they do not fit.
    """
    network = Vqgan(config)
    frame = jax.ShapeDtypeStruct((1, config.factor, config.factor, 3), jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), frame)
    params, state = divided(tree)
    variables = {"params": params, **({CODEBOOK: state} if state else {})}
    check_matches(variables, shapes, folder)

    def encode(variables: Params, frames: Array) -> Array:
        found: Any = network.apply(variables, to_unit(folded(frames)), method="encode")
        return scale * found.reshape(*frames.shape[:-3], *found.shape[1:])

    def decode(variables: Params, latents: Array) -> Array:
        found: Any = network.apply(variables, folded(latents) / scale, method="decode")
        return from_unit(found).reshape(*latents.shape[:-3], *found.shape[1:])

    pair = Partial(encode, variables), Partial(decode, variables)
    return FrozenAutoencoder(*pair, config.code_channels, config.factor, folder, params, scale)


def folded(x: Array) -> Array:
    """(…, H, W, C) as (F, H, W, C)."""
    return x.reshape(-1, *x.shape[-3:])
