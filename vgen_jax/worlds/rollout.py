"""Long videos, chunk after chunk, in latent space (SlowFast-VGen §3.2 "Generation", algorithm 1a).

Each chunk of f_g frames is sampled given the last f_p frames and the actions of that chunk, which are taken from a
stream one at a time, so that a person may decide on the next one after seeing the last. Latents are never decoded and
encoded again between chunks. Every chunk has the same shapes: one compilation serves them all, and memory does not grow
with the length of the video. What is carried beyond the last frames, and learnt from chunks, is a ``Memory``'s part.

Every random number is a function of (key, chunk, video) alone. So the past frames, the memory and the number of chunks
are all that a rollout has to know to go on where it stands, in another process as well.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vgen_jax.diffusion import samplers
from vgen_jax.diffusion.masking import Masking, clean_past
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.types import Array, Condition, Key, Memory, Past, Predictor, Recalled, VideoBatch

NOISE_STREAM, MEMORY_STREAM, LORA_STREAM = 0, 1, 2


class ChunkAction(NamedTuple):
    """What is done during one generated chunk: the same in all videos, or on a leading axis B in each of them.

    Attributes:
        text: the command.
        token_L: its tokens; ``None`` for a model without text.
        action_TA: (f_g, A) model units, row t leads to the chunk's frame t; ``None`` for a model without actions.
    """

    text: str
    token_L: np.ndarray | None
    action_TA: np.ndarray | None


class Start(NamedTuple):
    """Where the videos of a rollout begin.

    Attributes:
        past_BTHWC: f_p clean latents per video.
        action_BTA: (B, f_p, A) the actions that led to them, model units; row 0 is never read. ``None``: no actions.
        id_B: a number per video; its noise depends on it and not on its place in the batch.
    """

    past_BTHWC: Array
    action_BTA: np.ndarray | None
    id_B: np.ndarray


class Standing(NamedTuple):
    """Where a rollout stands between two chunks.

    Attributes:
        chunks: generated so far.
        past: the last f_p frames.
        memory: the memory's state.
    """

    chunks: int
    past: Past
    memory: Any


class Generated(NamedTuple):
    """One generated chunk.

    Attributes:
        number: counts from 0.
        action: what was done.
        latents_BTHWC: its f_g new frames.
        memory: the memory's state after it, there until the next chunk is asked for.
        view: what ``rollout``'s ``view`` made of the latents.
        past: the last f_p frames, this chunk's included.
    """

    number: int
    action: ChunkAction
    latents_BTHWC: Array
    memory: Any
    view: Any
    past: Past


# (what the memory recalled, the window's conditioning, one key per video) -> the f_g new latents
SampleChunk = Callable[[Recalled, VideoBatch, Key], Array]


def sample_future(
    predictor: Predictor,
    condition: Condition,
    past_BTHWC: Array,
    frames: int,
    schedule: Schedule,
    sampler: samplers.Sampler,
    masking: Masking,
    key_B: Key,
) -> Array:
    """Samples ``frames`` new latents after ``past_BTHWC``; the past is reset to its clean latents at every step.

    Args:
        key_B: one key per video.

    Returns:
        (B, frames, H, W, C), float32.
    """
    b, f_p = past_BTHWC.shape[:2]
    shape = (b, f_p + frames, *past_BTHWC.shape[2:])
    window = jnp.zeros(shape, jnp.float32).at[:, :f_p].set(past_BTHWC)
    past_BT = jnp.broadcast_to(jnp.arange(f_p + frames) < f_p, shape[:2])
    masked = clean_past(predictor, window, past_BT, masking)
    split_B = jax.vmap(jax.random.split)(key_B)
    noise = samplers.normal_like(split_B[:, 0], shape)
    return samplers.sample(masked, schedule, sampler, noise, condition, split_B[:, 1])[:, f_p:]


def video_keys(rng: Key, stream: int, number: int, id_B: np.ndarray) -> Key:
    """A key per video from (stream, chunk, video id) alone."""
    rng = jax.random.fold_in(jax.random.fold_in(rng, stream), number)
    return jax.vmap(jax.random.fold_in, (None, 0))(rng, jnp.asarray(id_B))


def chunk_condition(past: Past, action: ChunkAction, frames: int) -> VideoBatch:
    """The conditioning of a window of ``past`` and ``frames`` new ones; its video is left empty."""
    b, f_p = past.frames_BTHWC.shape[:2]
    empty_BTHWC = np.zeros((b, f_p + frames, 0, 0, 0))
    past_BT = np.broadcast_to(np.arange(f_p + frames) < f_p, (b, f_p + frames))
    token = None if action.token_L is None else np.broadcast_to(action.token_L, (b, action.token_L.shape[-1]))
    future_BTA = coming(action, past)
    if past.action_BTA is None or future_BTA is None:
        return VideoBatch(empty_BTHWC, past_BT, token)
    action_BTA = np.concatenate([past.action_BTA, future_BTA], axis=1).astype(np.float32)
    valid_BT = np.concatenate([past.action_valid_BT, np.ones((b, frames), bool)], axis=1)
    action_BTA[:, 0], valid_BT[:, 0] = 0.0, False
    return VideoBatch(empty_BTHWC, past_BT, token, action_BTA, valid_BT)


def coming(action: ChunkAction, past: Past) -> np.ndarray | None:
    """The actions that lead to a chunk's frames, (B, f_g, A), model units; ``None`` where there are none."""
    if past.action_BTA is None or action.action_TA is None:
        return None
    return np.broadcast_to(action.action_TA, (past.frames_BTHWC.shape[0], *action.action_TA.shape[-2:]))


def opening(start: Start) -> Past:
    """The start's frames; all of their actions are known but the first."""
    frames_BTHWC = jnp.asarray(start.past_BTHWC)
    if start.action_BTA is None:
        return Past(frames_BTHWC)
    action_BTA = np.asarray(start.action_BTA)
    valid_BT = np.broadcast_to(np.arange(action_BTA.shape[1]) > 0, action_BTA.shape[:2])
    return Past(frames_BTHWC, action_BTA, valid_BT)


def fresh_memory(memory: Memory, start: Start, rng: Key) -> Any:
    """What ``memory`` holds before the first chunk of a rollout with this start and key."""
    return memory.init(opening(start), video_keys(rng, LORA_STREAM, 0, start.id_B))


def rollout(
    sample_chunk: SampleChunk,
    memory: Memory,
    start: Start,
    actions: Iterable[ChunkAction],
    frames: int,
    rng: Key,
    m: Any = None,
    view: Callable[[Array], Any] = lambda latents_BTHWC: None,
    since: Standing | None = None,
) -> Iterator[Generated]:
    """Generates a chunk of ``frames`` per action, for as long as ``actions`` goes on.

    The next action is asked for only when the chunk before it has been handed out.

    Args:
        sample_chunk: see ``sample_future``; compiled by the caller, once.
        memory: what is carried beyond the past frames.
        frames: f_g.
        m: a state of ``memory`` to begin with, which stays as it is; ``None`` for a fresh one.
        view: called with a chunk's latents before the memory is told of them. What it dispatches to the device (a
            decoder) is done before the memory's update, which then runs while the host works on the result.
        since: where an earlier rollout with this start and key stood, to go on there; ``actions`` are those that
            follow, ``m`` is not used.
    """
    first, past = 0, opening(start)
    if since is not None:
        first, past, m = since
    m = fresh_memory(memory, start, rng) if m is None else jax.tree.map(jnp.array, m)
    for number, action in enumerate(actions, first):
        recalled = memory.recall(m, past, coming(action, past))
        window = chunk_condition(recalled.past, action, frames)
        latents = sample_chunk(recalled, window, video_keys(rng, NOISE_STREAM, number, start.id_B))
        viewed = view(latents)
        new = Past(latents)
        if window.action_BTA is not None and window.action_valid_BT is not None:
            new = Past(latents, window.action_BTA[:, -frames:], window.action_valid_BT[:, -frames:])
        m = memory.remember(m, past, new, window.token_BL, video_keys(rng, MEMORY_STREAM, number, start.id_B))
        past = past.then(new).last(past.frames_BTHWC.shape[1])
        yield Generated(number, action, latents, m, viewed, past)
