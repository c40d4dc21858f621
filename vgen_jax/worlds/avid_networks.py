"""The networks of AVID's methods: the UNet of a pixel world or that of a latent one, alike to what is built of them.

Both are given the noisy frames after the clean past. The pixel UNet sees every past frame repeated beside them. The
latent one is DynamiCrafter's (AVID §9.2): it sees the whole clip, the past frame clean in its place (the published code
puts it there at every sampling step, here it stands there in training too) and repeated beside every frame on the
channels, and what it says of that frame is dropped. An adapter in latent space sees the base's output beside those,
zeros at the past frame.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vgen_jax.data.text import encode_text
from vgen_jax.diffusion.prediction import check_kind
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.models.text import ByteTextEncoder
from vgen_jax.models.unet_latent import ACTION_JOINS, ActionJoin, UNet3D
from vgen_jax.models.unet_pixel import ActionKind, PixelUNet, with_past
from vgen_jax.nn.dtypes import dtype_of
from vgen_jax.types import Array, Condition, Key, Params, PredictionKind, VgenError
from vgen_jax.worlds.slow_networks import UNetConfig

CHANNELS = 3  # of a frame
ActionPath = ActionJoin | Literal["none"]


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """What the models of one experiment share.

    Attributes:
        kind: what is predicted.
        actions: the action space, ``discrete`` or ``continuous``.
        action_dim: its width.
        past: clean frames that open a clip.
        channels: of what is denoised.
        autoencoder: digest of the autoencoder whose latents are denoised; empty for frames.
    """

    schedule: Schedule
    kind: PredictionKind
    actions: ActionKind
    action_dim: int
    past: int
    channels: int = CHANNELS
    autoencoder: str = ""

    def __post_init__(self) -> None:
        check_kind(self.kind)
        if self.actions not in ("discrete", "continuous"):
            raise VgenError(f"world.actions '{self.actions}' is unknown: use discrete or continuous")
        if self.past < 1:
            raise VgenError(f"world.past is {self.past}: use 1 frame or more")
        if self.autoencoder and self.past != 1:
            raise VgenError(f"world.past is {self.past}: clips of latents open with 1 frame")
        if self.kind == "eps" and self.schedule.ends_in_noise:
            raise VgenError(
                "world.kind 'eps' cannot be sampled with schedule.zero_terminal_snr or schedule.kind 'flow': "
                "use 'v', 'x0' or 'velocity'"
            )


@dataclasses.dataclass(frozen=True)
class PixelConfig:
    """The shape of a pixel UNet, or of its way down; see ``models.unet_pixel.PixelUNet``."""

    dim: int
    mults: tuple[int, ...]
    heads: int
    head_dim: int
    patch: int
    remat: str
    dtype: str


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """The byte text encoder that is trained with a latent UNet (``models.text.ByteTextEncoder``); ``width`` 0 for
    none.

    Attributes:
        prompt: stands before every text. Without a text an empty one is read, without it.
    """

    width: int
    layers: int
    heads: int
    max_length: int
    prompt: str


@dataclasses.dataclass(frozen=True)
class LatentConfig:
    """The shape of a latent UNet.

    Attributes:
        shape: see ``models.unet_latent.UNet3D``.
        text: what it reads.
        actions: how it takes them (``UNet3D.action_join``), or ``none`` for a network that never takes any.
    """

    shape: UNetConfig
    text: PromptConfig
    actions: ActionPath

    def __post_init__(self) -> None:
        if self.actions not in ("none", *ACTION_JOINS):
            raise VgenError(f"unet.actions '{self.actions}' is unknown: use none, {' or '.join(ACTION_JOINS)}")


class Net(NamedTuple):
    """A network as functions of its parameters.

    Attributes:
        init: (rng) -> params.
        apply: (params, x_t, beside, t, condition) -> (B, T, H, W, outputs) of the frames of x_t. ``beside``, what a
            network that is ``conditioned`` sees beside x_t, has its shape; ``None`` for others.
        outputs: channels.
    """

    init: Callable[[Key], Params]
    apply: Callable[[Params, Array, Array | None, Array, Condition], Array]
    outputs: int


def net(unet: PixelConfig | LatentConfig, world: WorldConfig, mask: bool = False, conditioned: bool = False) -> Net:
    """The network of a method.

    Args:
        mask: it has a channel more, for a mask.
        conditioned: it sees another prediction beside x_t.

    Raises:
        VgenError: for a network of the other kind of world.
    """
    if isinstance(unet, LatentConfig) != bool(world.autoencoder):
        here, there = ("pixel", "latents") if world.autoencoder else ("latent", "frames")
        raise VgenError(f"method.unet is a {here} UNet in a world of {there}: give one of the other kind")
    if isinstance(unet, LatentConfig):
        return latent_net(unet, world, mask, conditioned)
    return pixel_net(unet, world, mask, conditioned)


def network_fields(config: PixelConfig) -> dict[str, Any]:
    """The fields that a network takes from its configuration."""
    return {**dataclasses.asdict(config), "dtype": dtype_of(config.dtype)}


def actions_of(condition: Condition, x_BTHWC: Array, width: int) -> tuple[Array, Array]:
    """The condition's actions and where they are known; without any, the null action everywhere."""
    shape = x_BTHWC.shape[:2]
    if condition.action_BTA is None:
        return jnp.zeros((*shape, width)), jnp.zeros(shape, bool)
    known = condition.action_valid_BT
    return condition.action_BTA, jnp.ones(shape, bool) if known is None else known


def pixel_unet(config: PixelConfig, world: WorldConfig, mask: bool = False) -> PixelUNet:
    """The network, with a channel more for a mask."""
    return PixelUNet(CHANNELS + mask, actions=world.actions, **network_fields(config))


def example(config: PixelConfig, world: WorldConfig, shown: int) -> tuple[Array, ...]:
    """Inputs of the smallest shape, ``shown`` frames side by side on the channels."""
    side = config.patch * 2 ** len(config.mults)
    x = jnp.zeros((1, 2, side, side, CHANNELS * shown))
    return x, jnp.zeros((1,), jnp.int32), jnp.zeros((1, 2, world.action_dim)), jnp.ones((1, 2), bool)


def pixel_output(
    network: PixelUNet,
    world: WorldConfig,
    params: Params,
    x: Array,
    t_B: Array,
    condition: Condition,
    control: tuple[Array, ...] = (),
) -> Any:
    """A pixel network's output beside the past frames."""
    action, known = actions_of(condition, x, world.action_dim)
    return network.apply({"params": params}, with_past(x, condition.past_BTHWC), t_B, action, known, control)


def pixel_net(unet: PixelConfig, world: WorldConfig, mask: bool, conditioned: bool) -> Net:
    """A pixel UNet; see ``net``."""
    module = pixel_unet(unet, world, mask)

    def init(rng: Key) -> Params:
        return module.init(rng, *example(unet, world, world.past + 1 + conditioned))["params"]

    def apply(params: Params, x: Array, beside: Array | None, t_B: Array, condition: Condition) -> Array:
        seen = x if beside is None else jnp.concatenate([x, beside], axis=-1)
        return pixel_output(module, world, params, seen, t_B, condition)

    return Net(init, apply, CHANNELS + mask)


def latent_unet(unet: LatentConfig, world: WorldConfig, mask: bool, conditioned: bool) -> UNet3D:
    """The module: its inputs are x_t, the first frame and, where ``conditioned``, the base's output."""
    fields = {name: value for name, value in dataclasses.asdict(unet.shape).items() if name != "dtype"}
    takes = unet.actions != "none"
    return UNet3D(
        **fields,
        in_channels=world.channels * (2 + conditioned),
        out_channels=world.channels + mask,
        cross_attention_dim=unet.text.width or None,
        action_dim=world.action_dim if takes else 0,
        action_join=unet.actions if unet.actions != "none" else "added",
        dtype=dtype_of(unet.shape.dtype),
    )


def clip_of(past_BTHWC: Array | None, x_BTHWC: Array, beside_BTHWC: Array | None) -> Array:
    """What a latent UNet sees: the clip that the past frame opens, that frame repeated, ``beside`` after a zero frame.

    Raises:
        VgenError: without a past frame, or with several.
    """
    if past_BTHWC is None or past_BTHWC.shape[1] != 1:
        shown = 0 if past_BTHWC is None else past_BTHWC.shape[1]
        raise VgenError(f"the condition has {shown} past frames: a latent UNet is given 1, clean")
    clip = jnp.concatenate([past_BTHWC, x_BTHWC], axis=1)
    seen = [clip, jnp.broadcast_to(past_BTHWC, clip.shape)]
    if beside_BTHWC is not None:
        seen.append(jnp.concatenate([jnp.zeros_like(past_BTHWC), beside_BTHWC], axis=1))
    return jnp.concatenate(seen, axis=-1)


def reader(config: PromptConfig, dtype: str) -> tuple[ByteTextEncoder | None, Callable[[Params, Condition, int], Any]]:
    """The text encoder, and (its params, condition, batch) -> what the condition says as embeddings and their mask."""
    if not config.width:
        return None, lambda params, condition, b: (None, None)
    encoder = ByteTextEncoder(config.width, config.layers, config.heads, config.max_length, dtype_of(dtype))
    before_L = encode_text(config.prompt, len(config.prompt.encode()) + 1)[:-1]  # without its end mark

    def read(params: Params, condition: Condition, b: int) -> Any:
        if condition.text_BLD is not None:
            return condition.text_BLD, condition.text_mask_BL
        token_BL = jnp.broadcast_to(encode_text("", 1), (b, 1))
        if condition.token_BL is not None:
            token_BL = jnp.concatenate([jnp.broadcast_to(before_L, (b, len(before_L))), condition.token_BL], axis=1)
        return encoder.apply({"params": params}, token_BL)

    return encoder, read


def latent_net(unet: LatentConfig, world: WorldConfig, mask: bool, conditioned: bool) -> Net:
    """A latent UNet, parameters ``unet`` and, where it reads texts, ``text``; see ``net``."""
    module = latent_unet(unet, world, mask, conditioned)
    encoder, read = reader(unet.text, unet.shape.dtype)

    def conditioning(params: Params, x: Array, condition: Condition) -> tuple[Any, ...]:
        """Text, its mask, actions and where they are known, with the null action at the past frame."""
        text = read(params.get("text", {}), condition, x.shape[0])
        if unet.actions == "none":
            return *text, None, None
        action, known = actions_of(condition, x, world.action_dim)
        return *text, jnp.pad(action, ((0, 0), (1, 0), (0, 0))), jnp.pad(known, ((0, 0), (1, 0)))

    def init(rng: Key) -> Params:
        k_unet, k_text = jax.random.split(rng)
        side = 2 ** (len(unet.shape.block_channels) - 1)
        x = jnp.zeros((1, 1, side, side, world.channels))
        seen, t_B = clip_of(x, x, x if conditioned else None), jnp.zeros((1,), jnp.int32)
        params = {} if encoder is None else {"text": encoder.init(k_text, jnp.ones((1, 1), jnp.int32))["params"]}
        return {**params, "unet": module.init(k_unet, seen, t_B, *conditioning(params, x, Condition()))["params"]}

    def apply(params: Params, x: Array, beside: Array | None, t_B: Array, condition: Condition) -> Array:
        seen = clip_of(condition.past_BTHWC, x, beside)
        out: Any = module.apply({"params": params["unet"]}, seen, t_B, *conditioning(params, x, condition))
        return out[:, 1:]

    return Net(init, apply, world.channels + mask)


def may_begin_with(unet: PixelConfig | LatentConfig, trained: PixelConfig | LatentConfig) -> bool:
    """Whether a network's training may begin with another's parameters: the same, or the same but without actions.

    Actions can only be ``added`` to a network that takes none: its time embedding has another width beside them.
    """
    if isinstance(unet, LatentConfig) and isinstance(trained, LatentConfig) and unet.actions == "added":
        return unet == (dataclasses.replace(trained, actions="added") if trained.actions == "none" else trained)
    return unet == trained
