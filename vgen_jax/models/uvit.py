"""The velocity network of RIVER (Davtyan et al. 2023) and RAFI: a U-ViT (Bao et al. 2023) over the states of a video.

A state is a latent (h, w, C), of RAFI with the action on further channels. To move the noisy state x_s of frame tau the
network sees the state before it, ``reference``, and that of any earlier frame, ``context``. Of each place these three
make one token:

    Dense([x_s, reference, context]) + position + MLP(log(tau - context's number))

and one more token tells the flow time. Then ``depth`` transformer layers, ``middle`` layers, and ``depth`` layers each
of which is first joined with the output of its opposite (a long skip: concatenation and Dense). Layers are pre-norm:
attention with biases, GELU and a hidden width of four times the tokens'. A norm and a 3×3 convolution over the places
give the velocity.

The papers' t is 1 at the data; the library's s is 1 at the noise. ``s_B`` is turned into t = 1 - s where it is
embedded, sin and cos of 200 t at geometric frequencies, and nowhere else.

What is published does not say how the time token is made of its embedding, how many positions there are, and how the
velocity is read out: a dense layer, a learnt table of 512 of which a state uses the first h·w, and the convolution are
our choice; with them there are exactly the 98,140,170 parameters of the published network.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from vgen_jax.nn.dtypes import dtype_of
from vgen_jax.nn.embeddings import sinusoidal
from vgen_jax.types import Array, VgenError

TIME_SCALE, DISTANCE_HIDDEN, NORM_EPS = 200.0, 256, 1e-5


@dataclasses.dataclass(frozen=True)
class UViTConfig:
    """The network's shape. The published one: 768, 8, 4, 5, 512, dropout 0.05.

    Attributes:
        width: of a token, a multiple of ``heads``.
        heads: of every attention.
        depth: layers before the middle, and as many after it.
        middle: layers between.
        positions: learnt positions, at least the h·w of a state.
        dropout: share of a layer's outputs that training drops.
        dtype: compute dtype; parameters are float32.
    """

    width: int
    heads: int
    depth: int
    middle: int
    positions: int
    dropout: float
    dtype: str

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 2:
            raise VgenError(f"uvit.width {self.width} is no even multiple of uvit.heads {self.heads}")
        if self.depth < 1 or self.middle < 1:
            raise VgenError(f"uvit.depth is {self.depth} and uvit.middle {self.middle}: use 1 or more")
        if not 0.0 <= self.dropout < 1.0:
            raise VgenError(f"uvit.dropout is {self.dropout}: use a share in [0, 1)")


class PreNormLayer(nn.Module):
    """Attention and a GELU network, each pre-normed and residual, over tokens (B, N, D)."""

    heads: int
    dropout: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BND: Array, train: bool) -> Array:
        b, n, width = x_BND.shape
        drop = nn.Dropout(self.dropout, deterministic=not train)
        h = layer_norm("norm1", self.dtype)(x_BND)
        q, k, v = (
            nn.Dense(width, dtype=self.dtype, name=name)(h).reshape(b, n, self.heads, -1)
            for name in ("to_q", "to_k", "to_v")
        )
        h = jax.nn.dot_product_attention(q, k, v).reshape(b, n, width)
        x = x_BND + drop(nn.Dense(width, dtype=self.dtype, name="to_out")(h))
        h = nn.Dense(4 * width, dtype=self.dtype, name="proj_in")(layer_norm("norm2", self.dtype)(x))
        h = drop(jax.nn.gelu(h, approximate=False))
        return x + drop(nn.Dense(width, dtype=self.dtype, name="proj_out")(h))


def layer_norm(name: str, dtype: jnp.dtype) -> nn.LayerNorm:
    """Statistics in float32."""
    return nn.LayerNorm(epsilon=NORM_EPS, dtype=dtype, use_fast_variance=False, name=name)


class UViT(nn.Module):
    """See the module's docstring.

    Attributes:
        config: its shape.
        channels: of a state.
    """

    config: UViTConfig
    channels: int

    @nn.compact
    def __call__(
        self, x_BHWC: Array, s_B: Array, reference_BHWC: Array, context_BHWC: Array, distance_B: Array, train: bool
    ) -> Array:
        """The velocity dx_s/ds, float32, of the shape of ``x_BHWC``.

        Args:
            s_B: flow time in [0, 1], 1 is noise.
            distance_B: frames from the context to the frame that is made, 2 or more.
            train: drops out; needs the random stream ``dropout``.

        Raises:
            VgenError: a state with more places than there are positions.
        """
        c, dtype = self.config, dtype_of(self.config.dtype)
        b, height, width = x_BHWC.shape[:3]
        places = height * width
        if places > c.positions:
            raise VgenError(f"uvit.positions is {c.positions}: a state has {places} places, use that or more")
        inputs = jnp.concatenate([x_BHWC, reference_BHWC, context_BHWC], axis=-1).reshape(b, places, -1)
        x = nn.Dense(c.width, dtype=dtype, name="states")(inputs.astype(dtype))
        table_ND = self.param("positions", nn.initializers.normal(0.02), (c.positions, c.width))
        far = jnp.log(distance_B.astype(jnp.float32))[:, None].astype(dtype)
        far = jax.nn.silu(nn.Dense(DISTANCE_HIDDEN, dtype=dtype, name="distance_in")(far))
        far_BD = nn.Dense(c.width, dtype=dtype, name="distance_out")(far)
        x = x + table_ND[:places].astype(dtype) + far_BD[:, None]
        time_BD = sinusoidal(TIME_SCALE * (1.0 - s_B), c.width).astype(dtype)
        x = jnp.concatenate([nn.Dense(c.width, dtype=dtype, name="time")(time_BD)[:, None], x], axis=1)
        layer = lambda name: PreNormLayer(c.heads, c.dropout, dtype, name=name)  # noqa: E731
        skips = []
        for i in range(c.depth):
            x = layer(f"in_{i}")(x, train)
            skips.append(x)
        for i in range(c.middle):
            x = layer(f"middle_{i}")(x, train)
        for i in range(c.depth):
            x = nn.Dense(c.width, dtype=dtype, name=f"skip_{i}")(jnp.concatenate([x, skips.pop()], axis=-1))
            x = layer(f"out_{i}")(x, train)
        x = layer_norm("norm_out", dtype)(x[:, 1:]).reshape(b, height, width, c.width)
        return nn.Conv(self.channels, (3, 3), dtype=dtype, name="velocity")(x).astype(jnp.float32)
