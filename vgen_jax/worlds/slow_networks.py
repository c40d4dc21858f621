"""A slow model's networks as functions of their parameters: the UNet, the text encoder, the flow that moves frames."""

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from vgen_jax.config import later
from vgen_jax.diffusion.masking import Masking
from vgen_jax.diffusion.prediction import check_kind
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.models.text import ByteTextEncoder, looked_up
from vgen_jax.models.unet_latent import UNet3D
from vgen_jax.models.warp import FlowWarp
from vgen_jax.nn.dtypes import dtype_of
from vgen_jax.objectives.masked_diffusion import Embed, Predict
from vgen_jax.types import Array, Condition, Key, Moved, Params, Prediction, PredictionKind, VgenError, VideoBatch

FRAMES_PER_UNIT = 8.0  # of the count of frames beside a text
KEPT = 2.0  # the UNet's share of the moved reference starts at sigmoid(2) = 0.88


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """The latent UNet's shape (see ``models.unet_latent.UNet3D``); ``text_width`` is its cross_attention_dim."""

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
    """The byte text encoder's shape (see ``models.text.ByteTextEncoder``); ``width`` 0 for a model without text.

    ``layers`` 0: the embeddings come from a table that a frozen encoder filled (``models.text.looked_up``).
    """

    width: int
    layers: int
    heads: int
    max_length: int


@dataclasses.dataclass(frozen=True)
class WarpConfig:
    """The flow network that moves the last past frame (see ``models.warp.FlowWarp``); ``width`` 0 for none.

    Attributes:
        text: whether the text says how the frame moves where the actions do not.
    """

    width: int
    layers: int
    cells: int
    patch: int
    norm_groups: int
    text: bool = later(False)


NO_WARP = WarpConfig(width=0, layers=0, cells=0, patch=0, norm_groups=0)


@dataclasses.dataclass(frozen=True)
class SlowConfig:
    """Everything that defines a slow model and must travel with its weights.

    Attributes:
        warp: with it the UNet sees the last past frame as each frame would, and adds to a share of it that it chooses.
        kind: what the network predicts.
        actions: the action space that conditions each frame, ``continuous``, ``discrete`` or ``none``.
        action_dim: width of a frame's action (one-hot for a discrete space, 0 for ``none``).
        latent_channels: of the latents (or of the pixels) it denoises.
    """

    unet: UNetConfig
    text: TextConfig
    schedule: Schedule
    masking: Masking
    warp: WarpConfig
    kind: PredictionKind
    actions: str
    action_dim: int
    latent_channels: int

    def __post_init__(self) -> None:
        check_kind(self.kind)
        if self.warp.width and not (self.masking.reference and self.kind == "x0" and self.action_dim):
            raise VgenError(
                "slow.warp moves the reference frame by the actions: set masking.reference to True, "
                "objective.loss.kind to 'x0' and data.action to a space, or slow.warp.width to 0"
            )
        if self.warp.text and not self.text.width:
            raise VgenError(
                "slow.warp.text reads the model's texts, but slow.text.width is 0: set it, or text to False"
            )


class Initialise(Protocol):
    """Fresh parameters."""

    def __call__(self, rng: Key) -> Params: ...


class Denoiser(NamedTuple):
    """A slow model as functions of its parameters ``{"unet": …, "text": …, "warp": …}``.

    Attributes:
        init: (rng) -> params; without ``text`` where that is a table, which is not learnt.
        embed: (params, batch) -> Condition. Reads the batch's tokens and actions.
        predict: (params, x_t, t, condition) -> Prediction.
    """

    init: Initialise
    embed: Embed
    predict: Predict


class Networks(NamedTuple):
    """The modules of a slow model; ``None`` for those it has none of."""

    unet: UNet3D
    text: ByteTextEncoder | None
    warp: FlowWarp | None


def networks_of(config: SlowConfig) -> Networks:
    """The modules that a configuration asks for."""
    dtype, channels = dtype_of(config.unet.dtype), config.latent_channels
    inputs = channels * (2 if config.masking.reference else 1)
    moves = config.warp.width > 0
    unet = UNet3D(
        **_shape(config.unet, "dtype"),
        in_channels=inputs + (1 if moves else 0),
        out_channels=channels * (2 if moves else 1),
        cross_attention_dim=config.text.width or 1,
        action_dim=config.action_dim,
        dtype=dtype,
    )
    learnt = config.text.width > 0 and config.text.layers > 0
    text = ByteTextEncoder(**dataclasses.asdict(config.text), dtype=dtype) if learnt else None
    warp = FlowWarp(latent_channels=channels, **dataclasses.asdict(config.warp), dtype=dtype) if moves else None
    return Networks(unet, text, warp)


def _shape(config: UNetConfig, left_out: str) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(config).items() if name != left_out}


def denoiser(config: SlowConfig) -> Denoiser:
    """The networks of a slow model."""
    unet, encoder, warp = networks_of(config)
    channels = config.latent_channels

    def encode(params: Params, token_BL: Any) -> Any:
        if not config.text.width:
            return None, None
        if encoder is not None:
            return encoder.apply({"params": params["text"]}, token_BL)
        if "text" not in params:
            raise VgenError("this run has no embeddings of its texts: use a model fine-tuned here, or another run")
        return looked_up(params["text"], token_BL), None

    def embed(params: Params, batch: VideoBatch) -> Condition:
        text, mask = encode(params, batch.token_BL)
        if not config.action_dim:
            return Condition(text, mask)
        motion = None if warp is None else motion_since(batch.action_BTA, batch.past_BT)
        told = motion_text(text, mask, batch.past_BT) if config.warp.text else None
        return Condition(text, mask, batch.action_BTA, batch.action_valid_BT, motion_BTA=motion, motion_text_BTD=told)

    def painted(params: Params, x_BTHWC: Array, t: Array, c: Condition) -> Any:
        """The UNet's output."""
        told = (c.text_BLD, c.text_mask_BL, c.action_BTA, c.action_valid_BT)
        return unet.apply({"params": params["unet"]}, x_BTHWC, t, *told)

    def move(params: Params, last_BHWC: Array, c: Condition) -> Any:
        """The reference as each frame would see it, and what of it shows."""
        seen: tuple[Any, ...] = (last_BHWC, c.motion_BTA, c.action_valid_BT, c.motion_text_BTD)
        if c.reference_BTHWC is not None:  # one per frame: as many videos of one frame
            seen = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (c.reference_BTHWC, *seen[1:]))
            seen = (seen[0], *jax.tree.map(lambda x: x[:, None], seen[1:]))
        out = warp.apply({"params": params}, *seen)  # type: ignore[union-attr]
        return jax.tree.map(lambda x: x.reshape(*c.motion_BTA.shape[:2], *x.shape[2:]), out)  # type: ignore[union-attr]

    def predict(params: Params, x_t_BTHWC: Array, t: Array, condition: Condition) -> Prediction:
        if warp is None:
            return Prediction(painted(params, x_t_BTHWC, t, condition), config.kind)
        moved, inside = move(params["warp"], x_t_BTHWC[:, 0, ..., channels:], condition)  # beside every frame, the same
        out = painted(params, jnp.concatenate([x_t_BTHWC[..., :channels], moved, inside], -1), t, condition)
        x0 = out[..., :channels] + jax.nn.sigmoid(out[..., channels:] + KEPT) * moved
        return Prediction(x0, config.kind, Moved(moved, inside))

    def init(rng: Key) -> Params:
        side = 2 ** (len(config.unet.block_channels) - 1)
        x = jnp.zeros((1, 2, side, side, unet.in_channels))
        token = jnp.ones((1, config.text.max_length), jnp.int32)
        action, valid = jnp.zeros((1, 2, config.action_dim)), jnp.ones((1, 2), bool)
        k_unet, k_text = jax.random.split(rng)
        params = {} if encoder is None else {"text": encoder.init(k_text, token)["params"]}
        if warp is not None:
            k_warp = jax.random.fold_in(k_unet, 1)
            told = jnp.zeros((1, 2, config.text.width + 1)) if config.warp.text else None
            params["warp"] = warp.init(k_warp, x[:, 0, ..., :channels], action, valid, told)["params"]
        table = {"token": token, "embedding": jnp.zeros((1, 1, config.text.width))}
        c = embed({"text": table, **params}, VideoBatch(x, valid, token, action, valid))
        conditions = (c.text_BLD, c.text_mask_BL, c.action_BTA, c.action_valid_BT)
        return {**params, "unet": unet.init(k_unet, x, jnp.zeros((1,), jnp.int32), *conditions)["params"]}

    return Denoiser(init, embed, predict)


def motion_since(action_BTA: Array | None, past_BT: Array) -> Array:
    """``Condition.motion_BTA``."""
    if action_BTA is None:
        raise VgenError("slow.warp needs actions: the batch has none")
    sum_BTA = jnp.cumsum(jnp.asarray(action_BTA), axis=1)
    last_B11 = (past_BT.sum(1) - 1)[:, None, None]
    return sum_BTA - jnp.take_along_axis(sum_BTA, last_B11, axis=1)


def motion_text(text_BLD: Array | None, mask_BL: Array | None, past_BT: Array) -> Array:
    """``Condition.motion_text_BTD``: the mean of the text, then the frames since the reference."""
    if text_BLD is None:
        raise VgenError("slow.warp.text needs texts: the batch has none")
    weight_BL1 = jnp.ones(text_BLD.shape[:2])[..., None] if mask_BL is None else mask_BL[..., None].astype(jnp.float32)
    mean_BD = (text_BLD * weight_BL1).sum(1) / jnp.maximum(weight_BL1.sum(1), 1.0)
    frames = past_BT.shape[1]
    since_BT = jnp.arange(frames) - (past_BT.sum(1) - 1)[:, None]
    text_BTD = jnp.broadcast_to(mean_BD[:, None], (mean_BD.shape[0], frames, mean_BD.shape[1]))
    return jnp.concatenate([text_BTD, since_BT[..., None] / FRAMES_PER_UNIT], -1)
