"""Next-chunk evaluation of a slow model on held-out scenes.

For every window the next f_g frames are generated from the real f_p past frames and the real actions, and compared with
what the simulator showed. Beside each number stands the same for "repeat the last frame", the baseline that needs no
model. The action shuffle ratio is the mean squared error with the actions of another window divided by that with the
true ones, at the same noise: 1 means that the model ignores its actions. The text shuffle ratio is the same of texts,
with every action unknown: are commands obeyed that are only said?
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vgen_jax.data.revisits import turned
from vgen_jax.data.units import DOOM, Units
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.metrics.action_error import ratio_interval
from vgen_jax.metrics.base import Mean
from vgen_jax.metrics.frames import psnr, ssim
from vgen_jax.objectives.masked_diffusion import DiffusionLoss, masked_diffusion
from vgen_jax.types import Array, Key, Objective, Params, VgenError, VideoBatch
from vgen_jax.worlds.chunks import NOISE_STREAM, video_keys
from vgen_jax.worlds.slow import SlowModel
from vgen_jax.worlds.slow_world import window_sampler


class EvaluatedModel(NamedTuple):
    """The model as the evaluation sees it.

    Attributes:
        next_chunk: (batch, key) -> uint8 generated future frames (B, f_g, H, W, 3).
        loss: (batch, key) -> scalars of the training objective without dropped conditions.
    """

    next_chunk: Callable[[VideoBatch, Key], Array]
    loss: Callable[[VideoBatch, Key], dict[str, Array]]


class Windows(NamedTuple):
    """Per-window results: squared errors and frame metrics, each of shape (windows,)."""

    moving: np.ndarray
    mse: np.ndarray
    mse_shuffled: np.ndarray
    mse_text: np.ndarray
    mse_text_shuffled: np.ndarray
    scores: dict[str, np.ndarray]


def moving_windows(pose_BTP: np.ndarray, future: int, units: Units = DOOM) -> np.ndarray:
    """True for windows whose future frames do not all show the last past frame's view (``data.units``)."""
    last = pose_BTP[:, -future - 1 :]
    moved = np.linalg.norm(last[:, 1:, :2] - last[:, :1, :2], axis=-1).max(1)
    turn = turned(last[:, 1:, 3], last[:, :1, 3]).max(1)
    return (moved > units.same_place) | (turn > units.same_turn)


def shuffled_actions(batch: VideoBatch) -> VideoBatch:
    """The batch with every window's text and actions taken from the next window (the last from the first)."""
    roll = lambda x: None if x is None else np.roll(np.asarray(x), 1, axis=0)  # noqa: E731
    return dataclasses.replace(
        batch,
        token_BL=roll(batch.token_BL),
        action_BTA=roll(batch.action_BTA),
        action_valid_BT=roll(batch.action_valid_BT),
    )


def texts_alone(batch: VideoBatch) -> VideoBatch:
    """The batch with every action unknown; texts stay."""
    known = batch.action_valid_BT
    return dataclasses.replace(batch, action_valid_BT=None if known is None else np.zeros_like(np.asarray(known)))


def unit(frames: np.ndarray) -> np.ndarray:
    """uint8 frames to float32 in [0, 1]."""
    return np.asarray(frames, np.float32) / 255.0


def squared_error(a_BTHWC: np.ndarray, b_BTHWC: np.ndarray) -> np.ndarray:
    """Mean squared error per window, of frames in [0, 1]."""
    return ((unit(a_BTHWC) - unit(b_BTHWC)) ** 2).mean((1, 2, 3, 4))


def evaluate_batch(
    networks: EvaluatedModel, batch: VideoBatch, future: int, rng: Key, text: bool = False
) -> tuple[Windows, np.ndarray]:
    """Scores one batch; also returns its generated frames. ``text``: with texts alone as well, else these are NaN."""
    video = np.asarray(batch.video_BTHWC)
    truth, last = video[:, -future:], video[:, -future - 1 : -future]
    repeated = np.broadcast_to(last, truth.shape)
    generated = np.asarray(networks.next_chunk(batch, rng))
    shuffled = np.asarray(networks.next_chunk(shuffled_actions(batch), rng))
    of_text = [np.full(len(video), np.nan)] * 2
    if text:
        told = texts_alone(batch)
        of_text = [
            squared_error(np.asarray(networks.next_chunk(b, rng)), truth) for b in (told, shuffled_actions(told))
        ]
    scores = {}
    for name, frames in (("", generated), ("_repeat_last", repeated)):
        scores[f"psnr{name}"] = psnr(unit(frames), unit(truth)).mean(1)
        scores[f"ssim{name}"] = ssim(unit(frames), unit(truth)).mean(1)
    moving = np.ones(len(video), bool) if batch.pose_BTP is None else moving_windows(np.asarray(batch.pose_BTP), future)
    errors = squared_error(generated, truth), squared_error(shuffled, truth)
    return Windows(moving, *errors, of_text[0], of_text[1], scores), generated


def evaluate(
    networks: EvaluatedModel, batches: Iterable[VideoBatch], future: int, rng: Key, text: bool = False
) -> dict[str, float]:
    """Scores every batch.

    Args:
        text: measure how far texts alone are obeyed, too.

    Returns:
        ``psnr`` (dB), ``ssim``, the same ``_repeat_last``, all of them again ``_moving`` (windows in which the camera
        moves), each with ``_ci95`` and ``_count``; ``eps_loss``; ``psnr_gain_moving``; ``action_shuffle_ratio`` with
        its 95 % bootstrap interval, over moving windows, and where asked for ``text_shuffle_ratio`` likewise.

    Raises:
        VgenError: if no window moves.
    """
    parts, losses = [], []
    for number, batch in enumerate(batches):
        key = jax.random.fold_in(rng, number)
        windows, _ = evaluate_batch(networks, batch, future, key, text)
        parts.append(windows)
        losses.append({k: float(v) for k, v in networks.loss(batch, key).items()})
    moving = np.concatenate([p.moving for p in parts])
    if not moving.any():
        raise VgenError(f"the camera moves in none of the {len(moving)} evaluation windows: raise evaluate.windows")
    results: dict[str, float] = {}
    for name in parts[0].scores:
        values = np.concatenate([p.scores[name] for p in parts])
        results |= mean_of(name, values) | mean_of(f"{name}_moving", values[moving])
    gain = np.concatenate([p.scores["psnr"] - p.scores["psnr_repeat_last"] for p in parts])
    results |= mean_of("psnr_gain_moving", gain[moving])
    for name, field in (("action", "mse"), ("text", "mse_text")) if text else (("action", "mse"),):
        true, shuffled = (np.concatenate([getattr(p, n) for p in parts])[moving] for n in (field, f"{field}_shuffled"))
        results |= shuffle_ratio(true, shuffled, f"{name}_shuffle_ratio")
    for name in losses[0]:
        results |= mean_of(name, np.asarray([part[name] for part in losses]))
    return results


def mean_of(name: str, values: np.ndarray) -> dict[str, float]:
    """Mean, 95 % half-width and count under ``name``."""
    metric = Mean(name)
    return metric.compute(metric.update(metric.init(), values=values))


def shuffle_ratio(true: np.ndarray, shuffled: np.ndarray, name: str = "action_shuffle_ratio") -> dict[str, float]:
    """A shuffle ratio of the windows' errors, with a 95 % bootstrap interval over windows."""
    low, high = ratio_interval(shuffled, true)
    ratio = float(shuffled.mean() / true.mean())
    return {
        name: ratio,
        f"{name}_low": low,
        f"{name}_high": high,
    }


def comparison_rows(truth: np.ndarray, generated: np.ndarray, past: np.ndarray) -> np.ndarray:
    """Frames of windows, one (past, then truth over generation) pair of rows per window, uint8 (2·B·H, T·W, 3)."""
    rows = []
    for b in range(len(truth)):
        for future in (truth[b], generated[b]):
            rows.append(np.concatenate([*past[b], *future], axis=1))
    return np.concatenate(rows, axis=0)


def jitted_loss(objective: Objective, params: Params) -> Callable[[VideoBatch, Key], dict[str, Array]]:
    """The objective as a function of (batch, key), compiled once."""

    @jax.jit
    def loss(objective: Objective, params: Params, batch: VideoBatch, rng: Key) -> dict[str, Array]:
        value, aux = objective(params, batch, rng)
        return {"loss": jnp.asarray(value), **aux}

    return lambda batch, rng: loss(objective, params, batch, rng)


def evaluated_model(model: SlowModel, sampler: Sampler, guidance: float, past: int, future: int) -> EvaluatedModel:
    """The model's next chunk and its loss, compiled once each."""
    config = model.config

    generate = window_sampler(model, sampler, guidance, past, future)

    def next_chunk(batch: VideoBatch, rng: Key) -> Array:
        return generate(batch, video_keys(rng, NOISE_STREAM, 0, np.asarray(batch.sample_id_B)))

    objective = masked_diffusion(
        model.denoiser.embed,
        model.denoiser.predict,
        model.autoencoder.encode,
        config.schedule,
        dataclasses.replace(config.masking, augment_past=0.0),
        DiffusionLoss(config.kind, 0.0, 0.0),
    )
    return EvaluatedModel(next_chunk, jitted_loss(objective, model.params))
