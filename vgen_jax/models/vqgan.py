"""VQGAN (Esser et al. 2021): an autoencoder whose latents are entries of a codebook.

Encoder and decoder are those of ``models.autoencoder_kl``, which descends from this one, with one moment and with
attention after every resnet of some levels. Between them each latent becomes the nearest entry of the codebook; its
gradient goes straight through, as if it had not been changed.

The codebook is learnt by its own loss (``gradient``, as published) or follows the mean of the latents that chose an
entry (``ema``, van den Oord et al. 2017, appendix A.1), whose counts and sums are model state.

The patch discriminator (Isola et al. 2017) says of overlapping patches whether they are real.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vgen_jax.models.autoencoder_kl import Decoder, Encoder
from vgen_jax.nn.dtypes import dtype_of
from vgen_jax.types import Array, VgenError

CODEBOOK = "codebook"  # the collection of a codebook that follows the latents
EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class VqganConfig:
    """The autoencoder's shape. Published for RAFI: (128, 128, 256, 256, 512), 2, 8, 8, 16384, groups 32, levels (4,).

    Attributes:
        block_channels: channels per level, finest first; the latents are smaller by 2 to the number of levels less one.
        layers_per_block: resnets per level of the encoder; the decoder has one more.
        latent_channels: of the encoder's last convolution.
        code_channels: of an entry of the codebook.
        codes: entries of the codebook.
        norm_groups: groups of every GroupNorm.
        attention_levels: levels with attention, 0 is the finest.
        codebook: ``gradient`` or ``ema``.
        decay: of the moving averages of ``ema``.
        dtype: compute dtype; parameters are float32.
    """

    block_channels: tuple[int, ...]
    layers_per_block: int
    latent_channels: int
    code_channels: int
    codes: int
    norm_groups: int
    attention_levels: tuple[int, ...]
    codebook: Literal["gradient", "ema"]
    decay: float
    dtype: str

    def __post_init__(self) -> None:
        if self.codebook not in ("gradient", "ema"):
            raise VgenError(f"vqgan.codebook is '{self.codebook}': use gradient or ema")
        if any(not 0 <= level < len(self.block_channels) for level in self.attention_levels):
            raise VgenError(f"vqgan.attention_levels {self.attention_levels}: the levels are 0 to {self.levels - 1}")

    @property
    def levels(self) -> int:
        return len(self.block_channels)

    @property
    def factor(self) -> int:
        """Pixels of a frame per pixel of a latent, on each side."""
        return 2 ** (self.levels - 1)


class Quantised(NamedTuple):
    """Latents and what a codebook made of them.

    Attributes:
        latents: before, (…, D).
        codes: the nearest entries, (…, D); no gradient goes through to the latents.
        straight: the same, with the latents' gradient.
        entry: which ones, int32 (…).
    """

    latents: Array
    codes: Array
    straight: Array
    entry: Array


class Quantiser(nn.Module):
    """See the module's docstring."""

    config: VqganConfig

    @nn.compact
    def __call__(self, z: Array, train: bool = False) -> Quantised:
        c = self.config
        shape = (c.codes, c.code_channels)
        init = lambda key: jax.random.uniform(key, shape, minval=-1.0 / c.codes, maxval=1.0 / c.codes)  # noqa: E731
        if c.codebook == "gradient":
            table_KD = self.param("codes", init)
        else:
            sums = self.variable(CODEBOOK, "sums", lambda: init(self.make_rng("params")))
            counts = self.variable(CODEBOOK, "counts", lambda: jnp.ones(c.codes))
            table_KD = sums.value / (counts.value + EPSILON)[:, None]
        flat_ND = z.reshape(-1, c.code_channels)
        distance_NK = (flat_ND**2).sum(1, keepdims=True) - 2.0 * flat_ND @ table_KD.T + (table_KD**2).sum(1)
        index_N = distance_NK.argmin(1).astype(jnp.int32)
        codes = jnp.take(table_KD, index_N, axis=0).reshape(z.shape)
        if c.codebook == "ema" and train and not self.is_initializing():
            chosen_NK = jax.nn.one_hot(index_N, c.codes)
            keep = lambda old, new: c.decay * old + (1.0 - c.decay) * jax.lax.stop_gradient(new)  # noqa: E731
            sums.value = keep(sums.value, chosen_NK.T @ flat_ND)
            counts.value = keep(counts.value, chosen_NK.sum(0))
        straight = z + jax.lax.stop_gradient(codes - z)
        return Quantised(z, codes, straight, index_N.reshape(z.shape[:-1]))


class Vqgan(nn.Module):
    """See the module's docstring. Frames are float (F, H, W, 3) in [-1, 1]."""

    config: VqganConfig

    def setup(self) -> None:
        c, dtype = self.config, dtype_of(self.config.dtype)
        shared = (c.block_channels, c.layers_per_block)
        levels = c.attention_levels
        self.encoder = Encoder(*shared, c.latent_channels, c.norm_groups, dtype, moments=1, attention_levels=levels)
        self.decoder = Decoder(*shared, 3, c.norm_groups, dtype, attention_levels=levels)
        self.quant_conv = nn.Conv(c.code_channels, (1, 1), dtype=dtype)
        self.post_quant_conv = nn.Conv(c.latent_channels, (1, 1), dtype=dtype)
        self.quantiser = Quantiser(c)

    def encode(self, x_FHWC: Array) -> Array:
        """Latents before they are quantised, float32 (F, H / factor, W / factor, code_channels).

        Raises:
            VgenError: if height or width is not a multiple of the factor.
        """
        factor = self.config.factor
        if x_FHWC.shape[1] % factor or x_FHWC.shape[2] % factor:
            raise VgenError(f"frames of {x_FHWC.shape[1:3]} pixels cannot be encoded: use multiples of {factor}")
        return self.quant_conv(self.encoder(x_FHWC)).astype(jnp.float32)

    def quantise(self, z: Array, train: bool = False) -> Quantised:
        """What the codebook makes of latents; with ``train`` a codebook that follows them is moved."""
        return self.quantiser(z, train)

    def decode_codes(self, codes_FHWC: Array) -> Array:
        """Frames of entries of the codebook, float32, nominally in [-1, 1], not clipped."""
        return self.decoder(self.post_quant_conv(codes_FHWC)).astype(jnp.float32)

    def decode(self, z_FHWC: Array) -> Array:
        """Frames of latents, which are quantised first."""
        return self.decode_codes(self.quantise(z_FHWC).codes)

    def __call__(self, x_FHWC: Array, train: bool = False) -> tuple[Array, Quantised]:
        """Reconstructed frames, and the latents on the way."""
        found = self.quantise(self.encode(x_FHWC), train)
        return self.decode_codes(found.straight), found


@dataclasses.dataclass(frozen=True)
class PatchConfig:
    """The discriminator's shape (published: 64, 3).

    Attributes:
        width: channels of its first layer; doubled by every further one, up to eight times.
        layers: strided convolutions, each of which halves the frame.
    """

    width: int
    layers: int


class PatchDiscriminator(nn.Module):
    """4×4 convolutions, LeakyReLU 0.2, batch normalisation but in the first and last layer; a logit per patch."""

    config: PatchConfig

    @nn.compact
    def __call__(self, x_FHWC: Array, train: bool) -> Array:
        c = self.config
        conv: Any = lambda features, stride, bias, name: nn.Conv(  # noqa: E731
            features, (4, 4), (stride, stride), ((1, 1), (1, 1)), use_bias=bias,
            kernel_init=nn.initializers.normal(0.02), name=name,
        )  # fmt: skip
        x = jax.nn.leaky_relu(conv(c.width, 2, True, "conv_0")(x_FHWC), 0.2)
        for layer in range(1, c.layers + 1):
            x = conv(c.width * min(2**layer, 8), 2 if layer < c.layers else 1, False, f"conv_{layer}")(x)
            norm = nn.BatchNorm(momentum=0.9, epsilon=1e-5, name=f"norm_{layer}")
            x = jax.nn.leaky_relu(norm(x, use_running_average=not train), 0.2)
        return conv(1, 1, True, "logit")(x)
