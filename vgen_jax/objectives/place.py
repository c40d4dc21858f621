"""Training of the place encoder: InfoNCE (van den Oord et al. 2018) over pairs of frames with nearly the same pose.

loss = mean over both directions of -log softmax_b(cosine(a_i, b_j) / temperature)[i = j]

Each frame is augmented on its own by changes of tone, a small shift and a blur, so that the code survives what a video
model does to a view. Negatives are the other pairs of the batch, those of the same scene among them; only pairs of
nearly the same pose are left out, since to tell these apart is not asked.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vgen_jax.nn.pixels import to_unit
from vgen_jax.types import Array, Key, Objective, Params, VgenError, wrapped

SHARP = 0.3  # pixels: a blur that changes next to nothing


@flax.struct.dataclass
class PairBatch:
    """Two frames of each of B places.

    Attributes:
        pair_BTHWC: uint8, T = 2.
        pose_BTP: x, y, z (map units), heading (degrees).
        scene_B: int32; equal numbers are the same scene.
    """

    pair_BTHWC: Array
    pose_BTP: Array
    scene_B: Array


@dataclasses.dataclass(frozen=True)
class Augment:
    """How frames are changed, each by amounts drawn for it.

    Attributes:
        tone: largest relative change of each colour's gain, and of the level.
        shift: largest shift in pixels, to each side.
        blur: largest standard deviation of the Gaussian blur in pixels.
    """

    tone: float
    shift: float
    blur: float

    def __post_init__(self) -> None:
        if self.blur < SHARP:
            raise VgenError(f"augment.blur is {self.blur}: use {SHARP} (next to none) or more")


@dataclasses.dataclass(frozen=True)
class PlaceLoss:
    """The loss.

    Attributes:
        temperature: of the softmax.
        near, turn: map units and degrees; pairs of a scene that differ by less in both are no negatives.
    """

    temperature: float
    near: float
    turn: float
    augment: Augment

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise VgenError(f"objective.loss.temperature is {self.temperature}: use more than 0")


def augmented(frames_FHWC: Array, rng: Key, augment: Augment) -> Array:
    """Float frames in [-1, 1], each changed in tone, shifted and blurred by amounts of its own."""
    f, height, width, _ = frames_FHWC.shape
    k_gain, k_level, k_shift, k_blur = jax.random.split(rng, 4)
    gain = 1.0 + jax.random.uniform(k_gain, (f, 1, 1, 3), minval=-augment.tone, maxval=augment.tone)
    level = jax.random.uniform(k_level, (f, 1, 1, 1), minval=-augment.tone, maxval=augment.tone)
    shift_F2 = jax.random.uniform(k_shift, (f, 2), minval=-augment.shift, maxval=augment.shift)
    blur_F = jax.random.uniform(k_blur, (f,), minval=SHARP, maxval=augment.blur)
    rows_FHH, columns_FWW = smear(height, shift_F2[:, 0], blur_F), smear(width, shift_F2[:, 1], blur_F)
    frames = jnp.einsum("fgh,fkw,fhwc->fgkc", rows_FHH, columns_FWW, frames_FHWC)
    return jnp.clip(frames * gain + level, -1.0, 1.0)


def smear(size: int, shift_F: Array, blur_F: Array) -> Array:
    """(F, size, size): row g averages pixels around g + shift by a Gaussian; beyond the edge nothing is taken."""
    pixel = jnp.arange(size, dtype=jnp.float32)
    distance_FHH = pixel[None, None, :] - pixel[None, :, None] - shift_F[:, None, None]
    return jax.nn.softmax(-0.5 * (distance_FHH / blur_F[:, None, None]) ** 2, axis=-1)


def no_negatives(batch: PairBatch, near: float, turn: float) -> Array:
    """(B, B) bool: entry (i, j), i ≠ j, is True where frame 0 of pair i and frame 1 of pair j have nearly one pose."""
    first, second = batch.pose_BTP[:, None, 0], batch.pose_BTP[None, :, 1]
    distance = jnp.linalg.norm(first[..., :3] - second[..., :3], axis=-1)
    angle = jnp.abs(wrapped(first[..., 3] - second[..., 3]))
    same = (batch.scene_B[:, None] == batch.scene_B[None]) & (distance < near) & (angle < turn)
    return same & ~jnp.eye(len(batch.scene_B), dtype=bool)


def place(embed: Partial, loss: PlaceLoss) -> Objective:
    """The objective; ``embed(params, float frames in [-1, 1])`` gives unit vectors.

    With ``train.accumulate`` only the pairs of a micro-batch are negatives of each other.
    """

    def objective(params: Params, batch: PairBatch, rng: Key) -> tuple[Array, dict[str, Array]]:
        b = batch.pair_BTHWC.shape[0]
        frames = to_unit(batch.pair_BTHWC.reshape(2 * b, *batch.pair_BTHWC.shape[2:]))
        code_BTD = embed(params, augmented(frames, rng, loss.augment)).reshape(b, 2, -1)
        cosine_BB = code_BTD[:, 0] @ code_BTD[:, 1].T
        logits = jnp.where(no_negatives(batch, loss.near, loss.turn), -jnp.inf, cosine_BB / loss.temperature)
        own = jnp.diagonal(logits)
        value = (jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0) - 2 * own).mean() / 2
        positive = jnp.diagonal(cosine_BB).mean()
        negative = (cosine_BB.sum() - jnp.trace(cosine_BB)) / (b * (b - 1))
        hits = (logits.argmax(axis=1) == jnp.arange(b)).mean()
        return value, {"accuracy": hits, "cosine_same": positive, "cosine_other": negative}

    return Partial(objective)
