"""The UNet of Video Diffusion Models (Ho et al. 2022) in AVID's form (AVID §9.2): pixels in, pixels out, no text.

    stem 7×7, temporal attention,
    per level: 2 × resnet, linear spatial attention, temporal attention, halve (but for the last),
    middle: resnet, spatial attention, temporal attention, resnet,
    per level, mirrored, with skips: 2 × resnet, linear spatial attention, temporal attention, double (not the last),
    stem's features beside them, resnet without embedding, 1×1.

The way down and the middle are a module of their own, ``DownPath``, of which ControlNet and the classifier are made.
Clean frames that come before the generated ones are repeated over time and stand before them on the channels.

Beyond the original: ``patch`` folds p×p pixels into channels before the stem and unfolds them at the end, which makes a
small network on a CPU several times as fast. With ``patch = 1`` the network is the original's, parameter for parameter.
"""

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from vgen_jax.models.unet_latent import REMAT_POLICIES
from vgen_jax.nn.embeddings import sinusoidal
from vgen_jax.nn.factorized import (
    DoublingConv,
    FilmResnet,
    HalvingConv,
    LinearAttention,
    RelativeBias,
    SpatialAttention,
    TemporalAttention,
)
from vgen_jax.types import Array, VgenError

ActionKind = Literal["none", "discrete", "continuous"]
STEM = 7


def with_past(x_BTHWC: Array, past_BTHWC: Array | None) -> Array:
    """``x`` with every past frame repeated over time before it on the channels, colours outermost."""
    if past_BTHWC is None:
        return x_BTHWC
    past = rearrange(past_BTHWC, "b p h w c -> b 1 h w (c p)")
    return jnp.concatenate([jnp.broadcast_to(past, (*x_BTHWC.shape[:-1], past.shape[-1])), x_BTHWC], axis=-1)


class StepEmbedding(nn.Module):
    """Dense, GELU, Dense of the sinusoidal embedding of a diffusion step, sines first; (B, 4·width)."""

    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, t_B: Array) -> Array:
        if self.width < 4:
            raise VgenError(f"unet.dim is {self.width}: use 4 or more, so that a diffusion step has two frequencies")
        x = sinusoidal(t_B, self.width, sines_first=True)
        return GeluMLP(4 * self.width, self.dtype, name="mlp")(x.astype(self.dtype))


class GeluMLP(nn.Module):
    """Dense, exact GELU, Dense."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = jax.nn.gelu(nn.Dense(self.features, dtype=self.dtype, name="linear_1")(x), approximate=False)
        return nn.Dense(self.features, dtype=self.dtype, name="linear_2")(x)


class FrameActions(nn.Module):
    """Per-frame actions, (B, T, 4·width): a table (``discrete``, one-hot rows) or a layer, then an MLP.

    A learned vector stands before the MLP where an action is unknown or dropped.

    Attributes:
        gated: a linear layer that starts at zero follows, so that actions have no influence at first (ControlNet).
    """

    width: int
    kind: ActionKind
    gated: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, action_BTA: Array, valid_BT: Array) -> Array:
        discrete = self.kind == "discrete"
        init = nn.initializers.normal(1.0) if discrete else nn.linear.default_kernel_init
        inner = nn.Dense(self.width, use_bias=not discrete, kernel_init=init, dtype=self.dtype, name="table")
        null_D = self.param("null", nn.initializers.normal(1.0), (self.width,))
        x: Any = jnp.where(valid_BT[..., None], inner(action_BTA.astype(self.dtype)), null_D.astype(self.dtype))
        x = GeluMLP(4 * self.width, self.dtype, name="mlp")(x)
        if self.gated:
            zeros = nn.initializers.zeros_init()
            x = nn.Dense(4 * self.width, kernel_init=zeros, dtype=self.dtype, name="gate")(x)
        return x


class Level(nn.Module):
    """Two resnets, linear spatial attention, temporal attention."""

    features: int
    heads: int
    head_dim: int
    frames: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_FHWC: Array, embedding_FD: Array, bias_KTT: Array) -> Array:
        x = FilmResnet(self.features, self.dtype, name="resnet_0")(x_FHWC, embedding_FD)
        x = FilmResnet(self.features, self.dtype, name="resnet_1")(x, embedding_FD)
        x = LinearAttention(self.heads, self.dtype, name="spatial")(x)
        return TemporalAttention(self.heads, self.head_dim, self.frames, self.dtype, name="temporal")(x, bias_KTT)


class Encoded(NamedTuple):
    """What the way down hands to the way up, frames folded; ``middle`` is before the last resnet, ``out`` after it."""

    stem: Array
    skips: tuple[Array, ...]
    middle: Array
    out: Array
    embedding_FD: Array
    bias_KTT: Array


class DownPath(nn.Module):
    """The stem, the way down and the middle; see the module's docstring and ``PixelUNet``.

    Attributes:
        gated_actions: see ``FrameActions.gated``.
    """

    dim: int
    mults: tuple[int, ...]
    heads: int
    head_dim: int
    actions: ActionKind = "none"
    gated_actions: bool = False
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x_BTHWC: Array,
        t_B: Array,
        action_BTA: Array | None = None,
        valid_BT: Array | None = None,
        control: tuple[Array, ...] = (),
    ) -> Encoded:
        """``control``: (…, before the last resnet, after it), added to ``middle`` and ``out``."""
        frames = x_BTHWC.shape[1]
        embedding_FD = self._embedding(t_B, frames, action_BTA, valid_BT)
        bias_KTT = RelativeBias(self.heads, name="time_bias")(frames)
        temporal = (self.heads, self.head_dim, frames, self.dtype)
        level = level_module(self.remat)
        x = rearrange(x_BTHWC.astype(self.dtype), "b t h w c -> (b t) h w c")
        x = nn.Conv(self.dim, (STEM, STEM), padding=STEM // 2, dtype=self.dtype, name="stem")(x)
        stem = x = TemporalAttention(*temporal, name="stem_temporal")(x, bias_KTT)
        skips = []
        for i, mult in enumerate(self.mults):
            x = level(self.dim * mult, *temporal, name=f"down_{i}")(x, embedding_FD, bias_KTT)
            skips.append(x)
            if i < len(self.mults) - 1:
                x = HalvingConv(self.dtype, name=f"down_{i}_sample")(x)
        width = x.shape[-1]
        x = FilmResnet(width, self.dtype, name="mid_resnet_0")(x, embedding_FD)
        x = SpatialAttention(self.heads, self.dtype, name="mid_spatial")(x)
        middle = TemporalAttention(*temporal, name="mid_temporal")(x, bias_KTT)
        x = middle + control[-2] if control else middle
        out = FilmResnet(width, self.dtype, name="mid_resnet_1")(x, embedding_FD)
        out = out + control[-1] if control else out
        return Encoded(stem, tuple(skips), middle, out, embedding_FD, bias_KTT)

    def _embedding(self, t_B: Array, frames: int, action: Array | None, valid: Array | None) -> Array:
        """The embedding of every frame: its diffusion step and, if there are any, its action, (F, D)."""
        step_BD = StepEmbedding(self.dim, self.dtype, name="step")(t_B)
        embedding = jnp.broadcast_to(step_BD[:, None], (step_BD.shape[0], frames, step_BD.shape[1]))
        if self.actions == "none":
            if action is not None:
                raise VgenError("this network has no actions but some were given: leave them out of its condition")
            return rearrange(embedding, "b t d -> (b t) d")
        known = jnp.ones((step_BD.shape[0], frames), bool) if valid is None else valid
        if action is None:
            raise VgenError("this network takes actions: give some, with action_valid_BT False to leave them out")
        module = FrameActions(self.dim, self.actions, self.gated_actions, self.dtype, name="actions")
        return rearrange(jnp.concatenate([embedding, module(action, known)], axis=-1), "b t d -> (b t) d")


def level_module(remat: str) -> type[Level]:
    """``Level``, recomputed in the backward pass as ``remat`` says (see ``UNet3D.remat``)."""
    if remat not in REMAT_POLICIES:
        raise VgenError(f"unet.remat '{remat}' is unknown: use one of {', '.join(REMAT_POLICIES)}")
    policy = REMAT_POLICIES[remat]
    return Level if policy is None else nn.remat(Level, policy=policy)


class PixelUNet(nn.Module):
    """See the module's docstring.

    Attributes:
        out_channels: of the prediction, with the mask's channel if there is one.
        dim, mults: channels of the first level, and of each level in multiples of it.
        heads, head_dim: of temporal attention; spatial attention has as many heads of 32.
        actions: ``discrete`` (one-hot rows), ``continuous`` or ``none``.
        patch: pixels folded into channels, on each side; 1 in the original.
        remat: what the backward pass recomputes: ``none``, ``dots`` or ``full``.
        dtype: compute dtype; parameters are float32.
    """

    out_channels: int = 3
    dim: int = 100
    mults: tuple[int, ...] = (1, 2, 4, 8)
    heads: int = 8
    head_dim: int = 64
    actions: ActionKind = "discrete"
    patch: int = 1
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x_BTHWC: Array,
        t_B: Array,
        action_BTA: Array | None = None,
        valid_BT: Array | None = None,
        control: tuple[Array, ...] = (),
    ) -> Array:
        """Predicts from noisy frames.

        Args:
            x_BTHWC: noisy frames in [-1, 1] before noise, with whatever they stand beside on the channels.
            t_B: diffusion steps.
            action_BTA: the action that led to each frame; ``valid_BT`` is False where the null action stands for it.
            control: what a ControlNet adds: one for each level's skip, two for the middle.

        Returns:
            (B, T, H, W, out_channels), float32.

        Raises:
            VgenError: for actions that are missing or unexpected, or a frame that cannot be halved that often.
        """
        b, frames, height, width, _ = x_BTHWC.shape
        check_size(height, width, self.patch, len(self.mults))
        temporal = (self.heads, self.head_dim, frames, self.dtype)
        level = level_module(self.remat)
        path = DownPath(
            self.dim,
            self.mults,
            self.heads,
            self.head_dim,
            self.actions,
            remat=self.remat,
            dtype=self.dtype,
            name="path",
        )
        encoded = path(folded(x_BTHWC, self.patch), t_B, action_BTA, valid_BT, control)
        added = control[: len(self.mults)] or (0,) * len(self.mults)
        x = encoded.out
        dims = (1, *self.mults)
        for i in reversed(range(len(self.mults))):
            x = jnp.concatenate([x, encoded.skips[i] + added[i]], axis=-1)
            x = level(self.dim * dims[i], *temporal, name=f"up_{i}")(x, encoded.embedding_FD, encoded.bias_KTT)
            if i > 0:
                x = DoublingConv(self.dtype, name=f"up_{i}_sample")(x)
        x = jnp.concatenate([x, encoded.stem], axis=-1)
        x = FilmResnet(self.dim, self.dtype, name="final_resnet")(x)
        x = nn.Dense(self.out_channels * self.patch**2, dtype=self.dtype, name="conv_out")(x)
        p = self.patch
        return rearrange(x, "(b t) h w (p q c) -> b t (h p) (w q) c", b=b, p=p, q=p).astype(jnp.float32)


def folded(x_BTHWC: Array, patch: int) -> Array:
    """``patch``×``patch`` pixels as channels of one."""
    return rearrange(x_BTHWC, "b t (h p) (w q) c -> b t h w (p q c)", p=patch, q=patch)


def check_size(height: int, width: int, patch: int, levels: int) -> None:
    """Raises VgenError for frames that do not divide into patches and halves."""
    factor = patch * 2 ** (levels - 1)
    if height % factor or width % factor:
        raise VgenError(
            f"frames of {width}x{height} do not divide by {factor} (unet.patch {patch}, {levels} levels): change "
            "unet.patch or unet.mults"
        )
