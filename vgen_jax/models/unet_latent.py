"""The conditional 3D UNet of ModelScopeT2V (Wang et al. 2023), the slow model of SlowFast-VGen (supplement B.3).

    conv_in, transformer_in,
    per level: layers × [resnet, temporal conv, (spatial transformer with text, temporal transformer)], downsample,
    middle: resnet, temporal conv, spatial transformer, temporal transformer, resnet, temporal conv,
    per level, mirrored, with skips: (layers + 1) × [...], upsample,
    norm, SiLU, conv_out.

Frames are folded into the batch for spatial layers and pixels are folded for temporal ones; nothing depends on the
number of frames. Beyond the original: optional per-frame actions, added to the time embedding, and diffusion steps
given per frame (``t_BT``). With ``action_dim = 0`` and ``t_B`` the network is the original's, parameter for parameter.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from vgen_jax.nn.embeddings import ActionEmbedding, TimeEmbedding
from vgen_jax.nn.resnet import Downsample, ResnetBlock, Upsample, conv3x3, group_norm
from vgen_jax.nn.temporal import SpatialTransformer, TemporalConv, TemporalTransformer
from vgen_jax.types import Array, VgenError

REMAT_POLICIES: dict[str, Callable | None] = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Layer(nn.Module):
    """One layer of a level: resnet and temporal convolution, then, where asked for, the two transformers."""

    features: int
    attention: bool
    head_dim: int
    groups: int
    scale_shift: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: Array, embedding_FD: Array, text_BLD: Array | None, mask_BL: Array | None) -> Array:
        b, t, height, width, _ = x_BTHWC.shape
        x = rearrange(x_BTHWC, "b t h w c -> (b t) h w c")
        resnet = ResnetBlock(self.features, self.groups, dtype=self.dtype, scale_shift=self.scale_shift, name="resnet")
        x = resnet(x, embedding_FD)
        x = rearrange(x, "(b t) h w c -> b t (h w) c", b=b)
        x = TemporalConv(self.groups, dtype=self.dtype, name="temp_conv")(x)
        if self.attention:
            x = Transformers(self.head_dim, self.groups, self.dtype, name="transformers")(x, text_BLD, mask_BL)
        return x.reshape(b, t, height, width, self.features)


class Transformers(nn.Module):
    """A spatial transformer with text cross-attention, then a temporal transformer."""

    head_dim: int
    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTNC: Array, text_BLD: Array | None, mask_BL: Array | None) -> Array:
        b, c = x_BTNC.shape[0], x_BTNC.shape[-1]
        heads = c // self.head_dim
        x = rearrange(x_BTNC, "b t n c -> (b t) n c")
        spatial = SpatialTransformer(heads, self.head_dim, self.groups, self.dtype, name="spatial")
        x = spatial(x, text_BLD, mask_BL)
        x = rearrange(x, "(b t) n c -> b t n c", b=b)
        return TemporalTransformer(heads, self.head_dim, self.groups, self.dtype, name="temporal")(x)


class UNet3D(nn.Module):
    """See the module's docstring.

    Attributes:
        in_channels, out_channels: latent channels.
        block_channels: channels per level, finest first; each a multiple of ``head_dim`` and of ``norm_groups``.
        attention_levels: whether each level has transformers.
        layers_per_block: layers per level going down; one more going up.
        head_dim: width of an attention head.
        cross_attention_dim: width of the text embeddings. Without text the second attention is self-attention, and the
            parameters are then of another shape.
        norm_groups: groups of every GroupNorm.
        transformer_in_heads: heads of ``transformer_in``.
        action_dim: width of per-frame actions; 0 for none.
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
    layers_per_block: int = 2
    head_dim: int = 64
    cross_attention_dim: int = 1024
    norm_groups: int = 32
    transformer_in_heads: int = 8
    action_dim: int = 0
    scale_shift: bool = False
    remat: str = "none"
    dtype: jnp.dtype = jnp.float32

    def _check(self, x_BTHWC: Array, text_BLD: Array | None) -> None:
        levels = len(self.block_channels)
        if self.remat not in REMAT_POLICIES:
            raise VgenError(f"unet.remat '{self.remat}' is unknown: use one of {', '.join(REMAT_POLICIES)}")
        if len(self.attention_levels) != levels:
            raise VgenError(f"unet.attention_levels has {len(self.attention_levels)} entries for {levels} levels")
        for channels in self.block_channels:
            if channels % self.head_dim or channels % self.norm_groups:
                raise VgenError(
                    f"unet.block_channels has {channels}: use multiples of head_dim {self.head_dim} and "
                    f"norm_groups {self.norm_groups}"
                )
        factor = 2 ** (levels - 1)
        if x_BTHWC.shape[2] % factor or x_BTHWC.shape[3] % factor:
            raise VgenError(f"the UNet's input is {x_BTHWC.shape[2:4]} pixels: use multiples of {factor}")
        if text_BLD is not None and text_BLD.shape[-1] != self.cross_attention_dim:
            raise VgenError(
                f"unet.cross_attention_dim is {self.cross_attention_dim} but the text is {text_BLD.shape[-1]} wide"
            )

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
        self._check(x_BTHWC, text_BLD)
        b, frames = x_BTHWC.shape[:2]
        embedding_FD = self._embedding(t, b, frames, action_BTA, action_valid_BT)
        context = (None if text_BLD is None else text_BLD.astype(self.dtype), text_mask_BL)
        policy = REMAT_POLICIES[self.remat]
        layer_cls = Layer if policy is None else nn.remat(Layer, policy=policy)

        shared = (self.head_dim, self.norm_groups, self.scale_shift, self.dtype)

        def layer(x: Array, level: int, name: str) -> Array:
            features, attention = self.block_channels[level], self.attention_levels[level]
            module = layer_cls(features, attention, *shared, name=name)
            return module(x, embedding_FD, *context)

        def per_frame(module: nn.Module, x: Array) -> Array:
            return rearrange(module(rearrange(x, "b t h w c -> (b t) h w c")), "(b t) h w c -> b t h w c", b=b)

        x = per_frame(conv3x3(self.block_channels[0], self.dtype, "conv_in"), x_BTHWC.astype(self.dtype))
        x = self._transformer_in(x)
        skips = [x]
        last = len(self.block_channels) - 1
        for level in range(last + 1):
            for i in range(self.layers_per_block):
                x = layer(x, level, f"down_{level}_layer_{i}")
                skips.append(x)
            if level < last:
                x = per_frame(Downsample(dtype=self.dtype, name=f"down_{level}_sample"), x)
                skips.append(x)
        x = self._middle(x, embedding_FD, *context)
        for level in range(last, -1, -1):
            for i in range(self.layers_per_block + 1):
                x = layer(jnp.concatenate([x, skips.pop()], axis=-1), level, f"up_{level}_layer_{i}")
            if level > 0:
                x = per_frame(Upsample(dtype=self.dtype, name=f"up_{level}_sample"), x)
        x = rearrange(x, "b t h w c -> (b t) h w c")
        x = jax.nn.silu(group_norm(self.norm_groups, 1e-5, self.dtype, "conv_norm_out")(x))
        x = conv3x3(self.out_channels, self.dtype, "conv_out")(x)
        return rearrange(x, "(b t) h w c -> b t h w c", b=b).astype(jnp.float32)

    def _embedding(self, t: Array, b: int, frames: int, action: Array | None, valid: Array | None) -> Array:
        """The time (and action) embedding of every frame, (F, D)."""
        width = self.block_channels[0]
        t_BT = jnp.broadcast_to(t[:, None] if t.ndim == 1 else t, (b, frames))
        embedding = TimeEmbedding(width, 4 * width, self.dtype, name="time_embedding")(t_BT)
        if (action is not None) != (self.action_dim > 0):
            given = "none" if action is None else f"width {action.shape[-1]}"
            raise VgenError(f"unet.action_dim is {self.action_dim} but the actions given are {given}")
        if action is not None:
            known = jnp.ones((b, frames), bool) if valid is None else valid
            embedding = embedding + ActionEmbedding(4 * width, self.dtype, name="action_embedding")(action, known)
        return rearrange(embedding, "b t d -> (b t) d")

    def _transformer_in(self, x_BTHWC: Array) -> Array:
        shape = x_BTHWC.shape
        module = TemporalTransformer(
            self.transformer_in_heads, self.head_dim, self.norm_groups, self.dtype, name="transformer_in"
        )
        return module(rearrange(x_BTHWC, "b t h w c -> b t (h w) c")).reshape(shape)

    def _middle(self, x: Array, embedding_FD: Array, text_BLD: Array | None, mask_BL: Array | None) -> Array:
        arguments = (self.block_channels[-1], True, self.head_dim, self.norm_groups, self.scale_shift, self.dtype)
        x = Layer(*arguments, name="mid_layer_0")(x, embedding_FD, text_BLD, mask_BL)
        without = (arguments[0], False, *arguments[2:])
        return Layer(*without, name="mid_layer_1")(x, embedding_FD, text_BLD, mask_BL)
