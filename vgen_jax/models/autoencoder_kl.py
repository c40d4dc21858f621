"""The KL autoencoder of latent diffusion (Rombach et al. 2022), in Stable Diffusion's layout.

Encoder: conv_in, levels of resnets with strided convolutions between them, a middle with one single-head spatial
attention, norm, conv to mean and log-variance. Decoder: mirrored, one more resnet per level, nearest upsampling.
Beyond the original: ``patch`` > 1 folds patch×patch pixels into channels before conv_in and unfolds them after
conv_out, which moves the work to small images with many channels, where CPUs are an order of magnitude faster.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.nn.initializers import Initializer

from vgen_jax.nn.resnet import Downsample, ResnetBlock, Upsample, conv3x3, group_norm
from vgen_jax.types import Array, Params, VgenError

NORM_EPS = 1e-6
LOG_VARIANCE_RANGE = (-30.0, 20.0)
INITIAL_LOG_VARIANCE = -6.0  # from 0, the noise of the samples drowns the latents for the first thousands of steps
BEFORE_LAST = "before_last"  # what the decoder's last convolution is given, among its intermediates


def moments_bias_init(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """Zeros for the means, ``INITIAL_LOG_VARIANCE`` for the log-variances."""
    return jnp.zeros(shape, dtype).at[shape[0] // 2 :].set(INITIAL_LOG_VARIANCE)


class MiddleAttention(nn.Module):
    """Residual single-head self-attention over the pixels of a frame; every projection with a bias."""

    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_FHWC: Array) -> Array:
        f, height, width, c = x_FHWC.shape
        h = group_norm(self.groups, NORM_EPS, self.dtype, "group_norm")(x_FHWC).reshape(f, height * width, 1, c)
        q, k, v = (nn.Dense(c, dtype=self.dtype, name=name)(h) for name in ("to_q", "to_k", "to_v"))
        h = jax.nn.dot_product_attention(q, k, v)
        return x_FHWC + nn.Dense(c, dtype=self.dtype, name="to_out")(h).reshape(x_FHWC.shape)


class Middle(nn.Module):
    """Resnet, attention, resnet."""

    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_FHWC: Array) -> Array:
        c = x_FHWC.shape[-1]
        x = ResnetBlock(c, self.groups, NORM_EPS, self.dtype, name="resnet_0")(x_FHWC)
        x = MiddleAttention(self.groups, self.dtype, name="attention")(x)
        return ResnetBlock(c, self.groups, NORM_EPS, self.dtype, name="resnet_1")(x)


class Encoder(nn.Module):
    """Frames to moments·latent_channels at 1/2^(levels-1) of the (folded) size.

    Attributes:
        moments: 2 for a mean and a log-variance, 1 for codes (``models.vqgan``).
        attention_levels: levels whose every resnet an attention follows.
    """

    block_channels: tuple[int, ...]
    layers_per_block: int
    latent_channels: int
    groups: int
    dtype: jnp.dtype = jnp.float32
    moments: int = 2
    attention_levels: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x_FHWC: Array) -> Array:
        x = conv3x3(self.block_channels[0], self.dtype, "conv_in")(x_FHWC)
        for level, features in enumerate(self.block_channels):
            for i in range(self.layers_per_block):
                x = ResnetBlock(features, self.groups, NORM_EPS, self.dtype, name=f"down_{level}_resnet_{i}")(x)
                if level in self.attention_levels:
                    x = MiddleAttention(self.groups, self.dtype, name=f"down_{level}_attention_{i}")(x)
            if level < len(self.block_channels) - 1:
                x = Downsample(asymmetric=True, dtype=self.dtype, name=f"down_{level}_sample")(x)
        x = Middle(self.groups, self.dtype, name="mid")(x)
        x = jax.nn.silu(group_norm(self.groups, NORM_EPS, self.dtype, "conv_norm_out")(x))
        return conv3x3(self.moments * self.latent_channels, self.dtype, "conv_out")(x)


class Decoder(nn.Module):
    """Latents to ``out_channels`` at 2^(levels-1) times the size.

    Attributes:
        attention_levels: see ``Encoder``.
    """

    block_channels: tuple[int, ...]
    layers_per_block: int
    out_channels: int
    groups: int
    dtype: jnp.dtype = jnp.float32
    last_init: Initializer = nn.linear.default_kernel_init
    attention_levels: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, z_FHWC: Array) -> Array:
        x = conv3x3(self.block_channels[-1], self.dtype, "conv_in")(z_FHWC)
        x = Middle(self.groups, self.dtype, name="mid")(x)
        for level in range(len(self.block_channels) - 1, -1, -1):
            features = self.block_channels[level]
            for i in range(self.layers_per_block + 1):
                x = ResnetBlock(features, self.groups, NORM_EPS, self.dtype, name=f"up_{level}_resnet_{i}")(x)
                if level in self.attention_levels:
                    x = MiddleAttention(self.groups, self.dtype, name=f"up_{level}_attention_{i}")(x)
            if level > 0:
                x = Upsample(dtype=self.dtype, name=f"up_{level}_sample")(x)
        x = jax.nn.silu(group_norm(self.groups, NORM_EPS, self.dtype, "conv_norm_out")(x))
        self.sow("intermediates", BEFORE_LAST, x)  # for losses that ask what the last layer makes of it
        return conv3x3(self.out_channels, self.dtype, "conv_out", kernel_init=self.last_init)(x)


class AutoencoderKL(nn.Module):
    """See the module's docstring. Works on any leading axes: (..., H, W, C), float frames in [-1, 1].

    Attributes:
        channels: image channels.
        block_channels: channels per level, finest first.
        layers_per_block: resnets per level of the encoder; the decoder has one more.
        latent_channels: channels of a latent.
        norm_groups: groups of every GroupNorm.
        patch: pixels folded into channels on each side; 1 is the original.
        linear_path: adds a linear map of each block of factor×factor pixels to its latent, and one back. The original
            has none. Started at the principal components of the data (``principal_path``) it codes images well before
            any training, which is what a network that trains for minutes needs; the rest starts at zero beside it.
    """

    channels: int = 3
    block_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_groups: int = 32
    patch: int = 1
    linear_path: bool = False
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        shared = (self.block_channels, self.layers_per_block)
        pixels = self.channels * self.patch**2
        last = nn.initializers.zeros_init() if self.linear_path else nn.linear.default_kernel_init
        self.encoder = Encoder(*shared, self.latent_channels, self.norm_groups, self.dtype)
        self.decoder = Decoder(*shared, pixels, self.norm_groups, self.dtype, last)
        if self.linear_path:
            self.linear_encoder = nn.Dense(self.latent_channels, dtype=self.dtype)
            self.linear_decoder = nn.Dense(self.channels * self.factor**2, dtype=self.dtype)
        self.quant_conv = nn.Conv(
            2 * self.latent_channels, (1, 1), dtype=self.dtype, kernel_init=last, bias_init=moments_bias_init
        )
        self.post_quant_conv = nn.Conv(self.latent_channels, (1, 1), dtype=self.dtype)

    @property
    def factor(self) -> int:
        """Pixels of a frame per pixel of a latent, on each side."""
        return self.patch * 2 ** (len(self.block_channels) - 1)

    def encode(self, x: Array) -> tuple[Array, Array]:
        """Mean and log-variance of the latents, each (..., H/factor, W/factor, latent_channels), float32.

        Raises:
            VgenError: if height or width is not a multiple of ``factor``.
        """
        if x.shape[-3] % self.factor or x.shape[-2] % self.factor:
            raise VgenError(f"frames of {x.shape[-3:-1]} pixels cannot be encoded: use multiples of {self.factor}")
        p = self.patch
        frames = rearrange(x.reshape(-1, *x.shape[-3:]), "f (h p) (w q) c -> f h w (p q c)", p=p, q=p)
        moments = self.quant_conv(self.encoder(frames.astype(self.dtype))).astype(jnp.float32)
        mean, log_variance = jnp.split(moments.reshape(*x.shape[:-3], *moments.shape[1:]), 2, axis=-1)
        if self.linear_path:
            blocks = rearrange(x, "... (h p) (w q) c -> ... h w (p q c)", p=self.factor, q=self.factor)
            mean = mean + self.linear_encoder(blocks.astype(self.dtype)).astype(jnp.float32)
        return mean, jnp.clip(log_variance, *LOG_VARIANCE_RANGE)

    def decode(self, z: Array) -> Array:
        """Frames of latents (..., h, w, latent_channels), float32, nominally in [-1, 1], not clipped."""
        frames = self.decoder(self.post_quant_conv(z.reshape(-1, *z.shape[-3:]).astype(self.dtype)))
        p = self.patch
        frames = rearrange(frames, "f h w (p q c) -> f (h p) (w q) c", p=p, q=p).astype(jnp.float32)
        frames = frames.reshape(*z.shape[:-3], *frames.shape[1:])
        if self.linear_path:
            blocks = self.linear_decoder(z.astype(self.dtype)).astype(jnp.float32)
            f = self.factor
            frames = frames + rearrange(blocks, "... h w (p q c) -> ... (h p) (w q) c", p=f, q=f)
        return frames

    def __call__(self, x: Array, rng: Array | None = None) -> tuple[Array, Array, Array]:
        """Reconstruction (of a sample if ``rng`` is given, of the mean otherwise), mean and log-variance."""
        mean, log_variance = self.encode(x)
        z = mean
        if rng is not None:
            z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(rng, mean.shape)
        return self.decode(z), mean, log_variance


def principal_path(frames_FHWC: np.ndarray, factor: int, latent_channels: int) -> Params:
    """Parameters of the linear path that code blocks of pixels by their principal components.

    The maps are orthonormal, so that distances between latents are distances between (projected) frames: the squared
    error of a latent then weighs every component by what it contributes to the image.

    Args:
        frames_FHWC: in [-1, 1]; at least ``latent_channels`` blocks in all.
        factor: pixels of a block on each side.

    Returns:
        ``linear_encoder`` and ``linear_decoder``, float32.

    Raises:
        VgenError: for more latent channels than a block has values.
    """
    blocks = rearrange(frames_FHWC, "f (h p) (w q) c -> (f h w) (p q c)", p=factor, q=factor).astype(np.float64)
    if latent_channels > blocks.shape[1]:
        raise VgenError(
            f"autoencoder.latent_channels is {latent_channels}, a block of {factor}×{factor} pixels has only "
            f"{blocks.shape[1]} values: use fewer"
        )
    mean = blocks.mean(0)
    centred = blocks - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)  # ascending
    basis = vectors[:, ::-1][:, :latent_channels]
    encoder = {"kernel": basis, "bias": -mean @ basis}
    decoder = {"kernel": basis.T, "bias": mean}
    to32 = lambda tree: {name: np.asarray(value, np.float32) for name, value in tree.items()}  # noqa: E731
    return {"linear_encoder": to32(encoder), "linear_decoder": to32(decoder)}
