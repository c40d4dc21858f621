"""SVG-LP's networks (Denton and Fergus 2018), and those that VG-LeAP and Causal-LeAP add to them.

A VGG encoder turns a frame into a code h and one feature map a level; a mirrored decoder turns a code g and the maps of
an earlier frame back into one. Between them stand recurrent stacks, each with a state of its own: ``prior`` and
``posterior`` of the latent z, ``frame`` (h, z -> g), and with actions ``action`` (e -> the code of the next action)
and, for Causal-LeAP, ``action_prior`` and ``action_posterior`` of the latent alpha. Which of them sees what is not said
here (``objectives.variational``): a dense layer takes what it is given.

Level l of the encoder: ``convs[l]`` times 3×3 convolution, batch normalisation, LeakyReLU 0.2; max-pooling between the
levels and after the last; a convolution over all that is left gives the code. The decoder mirrors it with nearest
upsampling; its last convolution has neither norm nor LeakyReLU but a tanh: frames are in [-1, 1].

Two orders of the code's tanh and norm are known, SVG's (norm, tanh) and that of LeAP's public code (tanh, norm):
``head_norm_last``. The bodies of LeAP's action networks are not published. Ours: the encoder is Dense and tanh, the
stack ``action`` ends in Dense and tanh like ``frame``, the decoder is Dense alone.

Batch normalisation: while training, the statistics of the batch at hand, over all frames of all clips at once, and
running averages of them are model state (``learning.state``). Whatever is evaluated uses the running averages. (LeAP's
code normalises step by step; all frames at once is our choice: a clip's frames pass through the encoder together.)
Momentum and epsilon are not published: they are TensorFlow's defaults.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vgen_jax.nn.dtypes import dtype_of
from vgen_jax.nn.recurrent import DENSE_INIT, Carry, RecurrentStack, zero_carry
from vgen_jax.types import Array, VgenError

MOMENTUM, EPSILON, SLOPE = 0.99, 1e-3, 0.2
GLOROT = nn.initializers.glorot_uniform()
GAUSSIANS = ("prior", "posterior", "action_prior", "action_posterior")


@dataclasses.dataclass(frozen=True)
class SvgConfig:
    """The networks' shape. The published ones: ``size`` 64, ``widths`` (64, 128, 256, 512), ``convs`` (2, 2, 3, 3).

    Attributes:
        size: height and width of a frame, a multiple of 2 for every level.
        widths: channels of each level, finest first.
        convs: convolutions of each level.
        code: width of h and g (LeAP 256, SVG 128).
        latent: width of z (LeAP 128, SVG 10).
        rnn: width of the LSTMs of frames and of z (LeAP 512, SVG 256).
        frame_layers: cells of the frame predictor (2).
        action_code: width of an action's code e (16).
        action_rnn: width of the LSTMs of actions and of alpha (32).
        action_latent: width of alpha (8).
        cell_tanh: whether LSTM cells have their tanh (SVG) or not (LeAP).
        head_norm_last: the encoder's code is normalised after its tanh (LeAP) or before it (SVG).
        skip_back: skips come at the latest from the frame that is so many before the end of the context: 1 is its
            last frame (LeAP), 2 the one before (SVG).
        dtype: compute dtype; parameters are float32.
    """

    size: int
    widths: tuple[int, ...]
    convs: tuple[int, ...]
    code: int
    latent: int
    rnn: int
    frame_layers: int
    action_code: int
    action_rnn: int
    action_latent: int
    cell_tanh: bool
    head_norm_last: bool
    skip_back: int
    dtype: str

    def __post_init__(self) -> None:
        if not self.widths or len(self.widths) != len(self.convs) or min(self.convs) < 1:
            raise VgenError(f"widths {self.widths} and convs {self.convs}: give one number of each per level, above 0")
        if self.size < 2 ** len(self.widths) or self.size % 2 ** len(self.widths):
            raise VgenError(f"size {self.size} is no multiple of {2 ** len(self.widths)}: {len(self.widths)} levels")
        if self.skip_back not in (1, 2):
            raise VgenError(f"skip_back is {self.skip_back}: use 1 (LeAP) or 2 (SVG)")

    def widths_of(self, stack: str) -> tuple[int, int]:
        """(width, layers) of a stack's LSTM."""
        if stack == "frame":
            return self.rnn, self.frame_layers
        return (self.action_rnn if stack.startswith("action") else self.rnn), 1

    def carry(self, stack: str, batch: int) -> Carry:
        """The state of a stack at the beginning of a clip."""
        return zero_carry(batch, *self.widths_of(stack))


class VggLayer(nn.Module):
    """3×3 convolution, batch normalisation, LeakyReLU."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_FHWC: Array, train: bool) -> Array:
        x = nn.Conv(self.features, (3, 3), dtype=self.dtype, kernel_init=GLOROT, name="conv")(x_FHWC)
        return jax.nn.leaky_relu(batch_norm("norm", self.dtype)(x, use_running_average=not train), SLOPE)


def batch_norm(name: str, dtype: Any) -> nn.BatchNorm:
    """See the module's docstring. It is told in each call whether it trains."""
    return nn.BatchNorm(momentum=MOMENTUM, epsilon=EPSILON, dtype=dtype, name=name)


class VggEncoder(nn.Module):
    """Frames (F, H, W, 3) to codes (F, code) and the levels' maps before pooling, finest first."""

    widths: tuple[int, ...]
    convs: tuple[int, ...]
    code: int
    head_norm_last: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_FHWC: Array, train: bool) -> tuple[Array, tuple[Array, ...]]:
        x, maps = x_FHWC.astype(self.dtype), []
        for level, (features, convs) in enumerate(zip(self.widths, self.convs, strict=True)):
            for i in range(convs):
                x = VggLayer(features, self.dtype, name=f"level_{level}_{i}")(x, train)
            maps.append(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        conv = nn.Conv(self.code, x.shape[1:3], padding="VALID", dtype=self.dtype, kernel_init=GLOROT, name="head")
        x, norm = conv(x)[:, 0, 0], batch_norm("head_norm", self.dtype)
        if self.head_norm_last:
            h = norm(jnp.tanh(x), use_running_average=not train)
        else:
            h = jnp.tanh(norm(x, use_running_average=not train))
        return h.astype(jnp.float32), tuple(maps)


class VggDecoder(nn.Module):
    """Codes (F, code) and an encoder's maps to frames (F, H, W, 3), float32 in [-1, 1]."""

    widths: tuple[int, ...]
    convs: tuple[int, ...]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, g_FD: Array, maps: tuple[Array, ...], train: bool) -> Array:
        side = tuple(n // 2 for n in maps[-1].shape[1:3])
        x = nn.ConvTranspose(
            self.widths[-1], side, padding="VALID", dtype=self.dtype, kernel_init=GLOROT, name="head"
        )(g_FD[:, None, None].astype(self.dtype))  # fmt: skip
        x = batch_norm("head_norm", self.dtype)(x, use_running_average=not train)
        x = jax.nn.leaky_relu(x, SLOPE)
        for level in reversed(range(len(self.widths))):
            x = x.repeat(2, axis=1).repeat(2, axis=2)
            x = jnp.concatenate([x, maps[level].astype(self.dtype)], axis=-1)
            for i in range(self.convs[level] - 1):
                x = VggLayer(self.widths[level], self.dtype, name=f"level_{level}_{i}")(x, train)
            if level:
                x = VggLayer(self.widths[level - 1], self.dtype, name=f"level_{level}_out")(x, train)
        x = nn.Conv(3, (3, 3), dtype=self.dtype, kernel_init=GLOROT, name="pixels")(x)
        return jnp.tanh(x.astype(jnp.float32))


class Gaussian(nn.Module):
    """A recurrent stack whose output is the mean and the log-variance of a diagonal Gaussian, (B, latent) each."""

    latent: int
    width: int
    layers: int
    tanh: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, carry: Carry, x_BD: Array) -> tuple[Carry, tuple[Array, Array]]:
        carry, x = RecurrentStack(self.width, self.layers, self.tanh, self.dtype, name="stack")(carry, x_BD)
        mean, log_variance = (
            nn.Dense(self.latent, dtype=x.dtype, kernel_init=DENSE_INIT, name=name)(x).astype(jnp.float32)
            for name in ("mean", "log_variance")
        )
        return carry, (mean, log_variance)


class CodePredictor(nn.Module):
    """A recurrent stack whose output is a code: Dense and tanh."""

    code: int
    width: int
    layers: int
    tanh: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, carry: Carry, x_BD: Array) -> tuple[Carry, Array]:
        carry, x = RecurrentStack(self.width, self.layers, self.tanh, self.dtype, name="stack")(carry, x_BD)
        x = nn.Dense(self.code, dtype=x.dtype, kernel_init=DENSE_INIT, name="code")(x)
        return carry, jnp.tanh(x).astype(jnp.float32)


class SvgNetworks(nn.Module):
    """All networks of one model; see the module's docstring.

    Attributes:
        config: their shape.
        stacks: those recurrent stacks that the model has.
        actions: A; 0 for a model without actions.
    """

    config: SvgConfig
    stacks: tuple[str, ...]
    actions: int

    def setup(self) -> None:
        c, dtype = self.config, dtype_of(self.config.dtype)
        self.encoder = VggEncoder(c.widths, c.convs, c.code, c.head_norm_last, dtype)
        self.decoder = VggDecoder(c.widths, c.convs, dtype)
        self.cells = {name: self._cell(name, dtype) for name in self.stacks}
        if self.actions:
            self.action_encoder = nn.Dense(c.action_code, dtype=dtype, kernel_init=DENSE_INIT)
            self.action_decoder = nn.Dense(self.actions, dtype=dtype, kernel_init=DENSE_INIT)

    def _cell(self, name: str, dtype: Any) -> Gaussian | CodePredictor:
        c, of_actions = self.config, name.startswith("action")
        shape = (*c.widths_of(name), c.cell_tanh, dtype)
        if name in GAUSSIANS:
            return Gaussian(c.action_latent if of_actions else c.latent, *shape)
        return CodePredictor(c.action_code if of_actions else c.code, *shape)

    def encode(self, frames_FHWC: Array, train: bool) -> tuple[Array, tuple[Array, ...]]:
        """Codes h and maps of frames in [-1, 1]."""
        return self.encoder(frames_FHWC, train)

    def decode(self, g_FD: Array, maps: tuple[Array, ...], train: bool) -> Array:
        """Frames in [-1, 1]."""
        return self.decoder(g_FD, maps, train)

    def encode_action(self, action: Array) -> Array:
        """Codes (…, action_code) of actions (…, A) in [0, 1]."""
        return jnp.tanh(self.action_encoder(action)).astype(jnp.float32)

    def decode_action(self, code: Array) -> Array:
        """Actions (…, A), nominally in [0, 1]."""
        return self.action_decoder(code).astype(jnp.float32)

    def advance(self, stack: str, carry: Carry, x_BD: Array) -> tuple[Carry, Any]:
        """One step of a stack: a mean and a log-variance, or a code."""
        return self.cells[stack](carry, x_BD)
