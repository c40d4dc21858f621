"""The conditional 3D UNet of ModelScopeT2V (Wang et al. 2023), the slow model of SlowFast-VGen (supplement B.3).

    conv_in, transformer_in,
    per level: layers × [resnet, temporal conv, (spatial transformer with text, temporal transformer)], downsample,
    middle: resnet, temporal conv, spatial transformer, temporal transformer, resnet, temporal conv,
    per level, mirrored, with skips: (layers + 1) × [...], upsample,
    norm, SiLU, conv_out.

Frames are folded into the batch for spatial layers and pixels are folded for temporal ones; nothing depends on the
number of frames. Where a level's size is odd, the way up doubles it less one pixel, as in the original.

Beyond the original: optional per-frame actions, added to the time embedding or beside it, and diffusion steps given per
frame (``t_BT``). With ``action_dim = 0`` and ``t_B`` the network is the original's, parameter for parameter.

DynamiCrafter's UNet (Xing et al. 2023), whose shape AVID's adapters for RT-1 have (AVID §9.2), is this network without
its embedding of the frame rate and its attention to the tokens of an image.
"""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from vgen_jax.nn.embeddings import ActionEmbedding, ActionFeatures, TimeEmbedding
from vgen_jax.nn.resnet import Downsample, ResnetBlock, Upsample, conv3x3, group_norm
from vgen_jax.nn.temporal import SpatialTransformer, TemporalConv, TemporalTransformer
from vgen_jax.types import Array, VgenError

REMAT_POLICIES: dict[str, Callable | None] = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}

ActionJoin = Literal["added", "concatenated"]
ACTION_JOINS: tuple[ActionJoin, ...] = ("added", "concatenated")


class Layer(nn.Module):
    """One layer of a level: resnet and temporal convolution, then, where asked for, the two transformers."""

    features: int
    attention: bool
    head_dim: int
    groups: int
    scale_shift: bool
    eps: float
    cross_attention: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: Array, embedding_FD: Array, text_BLD: Array | None, mask_BL: Array | None) -> Array:
        b, t, height, width, _ = x_BTHWC.shape
        x = rearrange(x_BTHWC, "b t h w c -> (b t) h w c")
        x = ResnetBlock(self.features, self.groups, self.eps, self.dtype, self.scale_shift, name="resnet")(
            x, embedding_FD
        )
        x = rearrange(x, "(b t) h w c -> b t (h w) c", b=b)
        x = TemporalConv(self.groups, dtype=self.dtype, name="temp_conv")(x)
        if self.attention:
            shape = (self.head_dim, self.groups, self.cross_attention, self.dtype)
            x = Transformers(*shape, name="transformers")(x, text_BLD, mask_BL)
        return x.reshape(b, t, height, width, self.features)


class Transformers(nn.Module):
    """A spatial transformer with text cross-attention (if ``cross_attention``), then a temporal transformer."""

    head_dim: int
    groups: int
    cross_attention: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTNC: Array, text_BLD: Array | None, mask_BL: Array | None) -> Array:
        b, c = x_BTNC.shape[0], x_BTNC.shape[-1]
        heads = c // self.head_dim
        x = rearrange(x_BTNC, "b t n c -> (b t) n c")
        shape = (heads, self.head_dim, self.groups, self.dtype)
        spatial = SpatialTransformer(*shape, second_attention=self.cross_attention, name="spatial")
        x = spatial(x, text_BLD, mask_BL)
        x = rearrange(x, "(b t) n c -> b t n c", b=b)
        return TemporalTransformer(*shape, name="temporal")(x)


class UNet3D(nn.Module):
    """See the module's docstring.

    Attributes:
        in_channels, out_channels: latent channels.
        block_channels: channels per level, finest first; each a multiple of ``norm_groups``.
        attention_levels: whether each level has transformers.
        up_attention_levels: the same for the way up; None for the same levels.
        layers_per_block: layers per level going down; one more going up.
        head_dim: width of an attention head; a level has as many heads as fit into its channels.
        cross_attention_dim: width of the text embeddings. Without text the second attention is self-attention, and the
            parameters are then of another shape. None for a network that takes no text and has no second attention.
        norm_groups: groups of every GroupNorm.
        norm_eps: epsilon of the GroupNorms in resnets and at the end.
        transformer_in_heads: heads of ``transformer_in``.
        action_dim: width of per-frame actions; 0 for none.
        action_join: how they meet the time embedding, with C channels in the first level: ``added`` to it (4C wide), or
            2C of them ``concatenated`` with 2C of time (AVID's adapter for RT-1).
        scale_shift: time and action scale and shift the resnets' second norm instead of being added before it. The
            original adds; with per-frame actions scaling lets a small network learn what they do much sooner.
        remat: what the backward pass recomputes per layer: ``none`` (nothing), ``dots`` (all but matrix products) or
            ``full`` (everything).
        dtype: compute dtype; parameters are float32.
    """

    in_channels: int = 4
    out_channels: int = 4
    block_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    up_attention_levels: tuple[bool, ...] | None = None
    layers_per_block: int = 2
    head_dim: int = 64
    cross_attention_dim: int | None = 1024
    norm_groups: int = 32
    norm_eps: float = 1e-5
    transformer_in_heads: int = 8
    action_dim: int = 0
    action_join: ActionJoin = "added"
    scale_shift: bool = False
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32

    def _check(self, text_BLD: Array | None) -> None:
        levels = len(self.block_channels)
        if self.remat not in REMAT_POLICIES:
            raise VgenError(f"unet.remat '{self.remat}' is unknown: use one of {', '.join(REMAT_POLICIES)}")
        if self.action_join not in ACTION_JOINS:
            raise VgenError(f"unet.action_join '{self.action_join}' is unknown: use one of {', '.join(ACTION_JOINS)}")
        for name, flags in (("attention_levels", self.attention_levels), ("up_attention_levels", self._up_attention)):
            if len(flags) != levels:
                raise VgenError(f"unet.{name} has {len(flags)} entries for {levels} levels")
        # The middle has transformers whatever the levels have.
        attends = [*map(max, self.attention_levels[:-1], self._up_attention[:-1]), True]
        for channels, attention in zip(self.block_channels, attends, strict=True):
            if channels % self.norm_groups or (attention and channels < self.head_dim):
                raise VgenError(
                    f"unet.block_channels has {channels}: use multiples of norm_groups {self.norm_groups}, at least "
                    f"head_dim {self.head_dim} where there is attention"
                )
        width = None if text_BLD is None else text_BLD.shape[-1]
        if width not in (None, self.cross_attention_dim):
            raise VgenError(f"unet.cross_attention_dim is {self.cross_attention_dim} but the text is {width} wide")

    @property
    def _up_attention(self) -> tuple[bool, ...]:
        return self.attention_levels if self.up_attention_levels is None else self.up_attention_levels

    @nn.compact
    def __call__(
        self,
        x_BTHWC: Array,
        t: Array,
        text_BLD: Array | None = None,
        text_mask_BL: Array | None = None,
        action_BTA: Array | None = None,
        action_valid_BT: Array | None = None,
    ) -> Array:
        """Predicts from noisy windows.

        Args:
            x_BTHWC: noisy latents (past frames clean).
            t: diffusion steps, (B,) or per frame (B, T).
            text_BLD: text embeddings; ``text_mask_BL`` is True where one is real.
            action_BTA: the action that led to each frame; required if ``action_dim`` > 0.
            action_valid_BT: False where the action is unknown or dropped.

        Returns:
            (B, T, H, W, out_channels), float32.

        Raises:
            VgenError: for sizes that do not fit the configuration, or missing or unexpected actions.
        """
        self._check(text_BLD)
        b, frames = x_BTHWC.shape[:2]
        embedding_FD = self._embedding(t, b, frames, action_BTA, action_valid_BT)
        context = (None if text_BLD is None else text_BLD.astype(self.dtype), text_mask_BL)
        policy = REMAT_POLICIES[self.remat]
        layer_cls = Layer if policy is None else nn.remat(Layer, policy=policy)

        def layer(x: Array, level: int, attention: tuple[bool, ...], name: str) -> Array:
            module = layer_cls(self.block_channels[level], attention[level], *self._layer_shape, name=name)
            return module(x, embedding_FD, *context)

        def per_frame(module: nn.Module, x: Array, *args: Any) -> Array:
            return rearrange(module(rearrange(x, "b t h w c -> (b t) h w c"), *args), "(b t) h w c -> b t h w c", b=b)

        x = per_frame(conv3x3(self.block_channels[0], self.dtype, "conv_in"), x_BTHWC.astype(self.dtype))
        x = self._transformer_in(x)
        skips = [x]
        last = len(self.block_channels) - 1
        for level in range(last + 1):
            for i in range(self.layers_per_block):
                x = layer(x, level, self.attention_levels, f"down_{level}_layer_{i}")
                skips.append(x)
            if level < last:
                x = per_frame(Downsample(dtype=self.dtype, name=f"down_{level}_sample"), x)
                skips.append(x)
        x = self._middle(x, embedding_FD, *context)
        for level in range(last, -1, -1):
            for i in range(self.layers_per_block + 1):
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = layer(x, level, self._up_attention, f"up_{level}_layer_{i}")
            if level > 0:
                x = per_frame(Upsample(dtype=self.dtype, name=f"up_{level}_sample"), x, skips[-1].shape[2:4])
        x = rearrange(x, "b t h w c -> (b t) h w c")
        x = jax.nn.silu(group_norm(self.norm_groups, self.norm_eps, self.dtype, "conv_norm_out")(x))
        x = conv3x3(self.out_channels, self.dtype, "conv_out")(x)
        return rearrange(x, "(b t) h w c -> b t h w c", b=b).astype(jnp.float32)

    def _embedding(self, t: Array, b: int, frames: int, action: Array | None, valid: Array | None) -> Array:
        """The time (and action) embedding of every frame, (F, D)."""
        width = self.block_channels[0]
        if (action is not None) != (self.action_dim > 0):
            given = "none" if action is None else f"width {action.shape[-1]}"
            raise VgenError(f"unet.action_dim is {self.action_dim} but the actions given are {given}")
        known = jnp.ones((b, frames), bool) if valid is None else valid
        t_BT = jnp.broadcast_to(t[:, None] if t.ndim == 1 else t, (b, frames))
        beside = self.action_dim > 0 and self.action_join == "concatenated"
        embedding = TimeEmbedding(width, (2 if beside else 4) * width, self.dtype, name="time_embedding")(t_BT)
        if action is not None and beside:
            features = ActionFeatures(4 * width, 2 * width, self.dtype, name="action_features")
            embedding = jnp.concatenate([embedding, features(action, known)], axis=-1)
        elif action is not None:
            embedding = embedding + ActionEmbedding(4 * width, self.dtype, name="action_embedding")(action, known)
        return rearrange(embedding, "b t d -> (b t) d")

    def _transformer_in(self, x_BTHWC: Array) -> Array:
        shape = x_BTHWC.shape
        module = TemporalTransformer(
            self.transformer_in_heads, self.head_dim, self.norm_groups, self.dtype, name="transformer_in"
        )
        return module(rearrange(x_BTHWC, "b t h w c -> b t (h w) c")).reshape(shape)

    def _middle(self, x: Array, embedding_FD: Array, text_BLD: Array | None, mask_BL: Array | None) -> Array:
        features = self.block_channels[-1]
        x = Layer(features, True, *self._layer_shape, name="mid_layer_0")(x, embedding_FD, text_BLD, mask_BL)
        return Layer(features, False, *self._layer_shape, name="mid_layer_1")(x, embedding_FD, text_BLD, mask_BL)

    @property
    def _layer_shape(self) -> tuple[Any, ...]:
        """What the fields of every ``Layer`` have in common, after its features and attention."""
        cross_attention = self.cross_attention_dim is not None
        return self.head_dim, self.norm_groups, self.scale_shift, self.norm_eps, cross_attention, self.dtype
