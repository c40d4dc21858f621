"""The slow model as a World: chunk after chunk in latent space (SlowFast-VGen §3.2 "Generation", algorithm 1a).

A step is a chunk of f_g frames, sampled given what the memory recalls of the past and the actions of the chunk. Latents
are never decoded and encoded again between chunks; only frames come out, decoded a few at a time. Every chunk has the
same shapes: one compilation serves them all. What is carried beyond the last f_p frames, and learnt from chunks, is a
``Memory``'s part.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vgen_jax.compose.contrast import contrastive
from vgen_jax.diffusion import samplers
from vgen_jax.diffusion.masking import Masking, clean_past
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.nn.lora import Lora, merge, with_lora
from vgen_jax.types import (
    Array,
    Command,
    Condition,
    Key,
    Memory,
    Params,
    Past,
    Predictor,
    Recalled,
    Reference,
    Step,
    VideoBatch,
)
from vgen_jax.worlds.actions import ActionCodec, CommandedWorld
from vgen_jax.worlds.chunks import (
    LORA_STREAM,
    MEMORY_STREAM,
    NOISE_STREAM,
    chunk_condition,
    coming,
    fitting_frames,
    identities,
    opening,
    video_keys,
)
from vgen_jax.worlds.slow import ADAPTED, Sampling, SlowModel, condition_of, guided_predictor

# (what the memory recalled, the window's conditioning, one key per video) -> the f_g new latents
SampleChunk = Callable[[Recalled, VideoBatch, Key], Array]
Seen = tuple[Array, Reference | None]  # the clean past, and frames to be seen again


@flax.struct.dataclass
class SlowState:
    """Where videos stand between two chunks.

    Attributes:
        chunks: generated so far.
        past: the last f_p frames, latents.
        memory: the memory's state.
        key, id_B: what all that is random depends on, besides the number of the chunk.
    """

    chunks: int
    past: Past
    memory: Any
    key: Key
    id_B: np.ndarray


class Watched(NamedTuple):
    """Real frames that take the place of generated ones: uint8 (B, f_g, H, W, 3), and in which videos they do, (B,)."""

    frames_BTHWC: np.ndarray
    videos_B: np.ndarray


@dataclasses.dataclass(frozen=True)
class SlowWorld(CommandedWorld):
    """See the module's docstring; ``worlds.assembly`` builds it.

    Attributes:
        sample_chunk: ``chunk_sampler``'s.
        memory: what is carried beyond the last frames.
        begin: what a fresh state of the memory is replaced by: itself, or one that was saved.
        encode: uint8 frames -> latents, compiled.
        decode: latents of a chunk -> uint8 frames in slices, compiled; dispatched, not waited for.
        codec: how the model wants its actions.
        past: f_p.
        size: (height, width) of a frame.
        compilations: how often the sampler and the memory's update have been compiled.
    """

    sample_chunk: SampleChunk
    memory: Memory
    begin: Callable[[Any], Any]
    encode: Callable[[Array], Array]
    decode: Callable[[Array], list[Array]]
    codec: ActionCodec
    past: int
    size: tuple[int, int]
    compilations: Callable[[], tuple[int, int]]

    def start(
        self,
        frames: np.ndarray,
        actions: np.ndarray | None = None,
        key: Key | None = None,
        id_B: np.ndarray | None = None,
    ) -> SlowState:
        """See ``World``. A single frame is held still for f_p frames; of more than f_p frames the last count.

        Args:
            key: ``None`` for ``jax.random.key(0)``.

        Raises:
            VgenError: for frames of another size, or too few of them.
        """
        frames_BTHWC = fitting_frames(np.asarray(frames), self.size, self.past)
        b, t = frames_BTHWC.shape[:2]
        latents = jnp.asarray(self.encode(frames_BTHWC))
        if t < self.past:
            latents = latents.repeat(self.past, axis=1)
        past = opening(latents, self.codec.past_actions(b, self.past, actions))
        key, id_B = identities(b, key, id_B)
        m = self.begin(self.memory.init(past, video_keys(key, LORA_STREAM, 0, id_B)))
        return SlowState(0, past, m, key, id_B)

    def step(
        self, state: SlowState, command: Command | None = None, watched: Watched | None = None
    ) -> tuple[SlowState, Step]:
        """See ``World``.

        The frames are decoded before the memory is told of the chunk: its update then runs while the host works on
        them.

        Args:
            watched: a chunk that is not generated but seen, in some videos or all.
        """
        action, past, frames = self.codec.chunk(command), state.past, self.future
        recalled = self.memory.recall(state.memory, past, coming(action, past))
        window = chunk_condition(recalled.past, action, frames)
        latents = self._latents(
            recalled, window, video_keys(state.key, NOISE_STREAM, state.chunks, state.id_B), watched
        )
        parts = self.decode(latents)
        shown = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)
        new = Past(latents)
        if window.action_BTA is not None and window.action_valid_BT is not None:
            new = Past(latents, window.action_BTA[:, -frames:], window.action_valid_BT[:, -frames:])
        keys = video_keys(state.key, MEMORY_STREAM, state.chunks, state.id_B)
        m = self.memory.remember(state.memory, past, new, window.token_BL, keys)
        after = SlowState(state.chunks + 1, past.then(new).last(self.past), m, state.key, state.id_B)
        return after, Step(shown, self.codec.raw(new.action_BTA), action.text)

    def with_memory(self, state: SlowState) -> SlowState:
        """The same place of the same video, with a memory of this world that begins there.

        Args:
            state: of a world of the same model and f_p, whatever its memory.
        """
        keys = video_keys(state.key, LORA_STREAM, state.chunks, state.id_B)
        return state.replace(memory=self.begin(self.memory.init(state.past, keys)))  # type: ignore[attr-defined]

    def _latents(self, recalled: Recalled, window: VideoBatch, key_B: Key, watched: Watched | None) -> Array:
        if watched is None or not watched.videos_B.any():
            return self.sample_chunk(recalled, window, key_B)
        real = self.encode(watched.frames_BTHWC)
        if watched.videos_B.all():
            return real
        return jnp.where(watched.videos_B[:, None, None, None, None], real, self.sample_chunk(recalled, window, key_B))


def sample_future(
    predictor: Predictor,
    condition: Condition,
    past_BTHWC: Array,
    frames: int,
    schedule: Schedule,
    sampler: samplers.Sampling,
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


def with_adapter(model: SlowModel, lora: Lora) -> SlowModel:
    """The model with the adapter beside its weights."""
    return model._replace(denoiser=model.denoiser._replace(predict=with_lora(model.denoiser.predict, lora)))


def merged(params: Params, lora: Lora) -> Params:
    """A slow model's parameters with the adapter in its weights."""
    return {**params, ADAPTED: merge(params[ADAPTED], lora)}


def chunk_sampler(
    model: SlowModel,
    sampler: Sampler,
    guidance: float,
    frames: int,
    sampling: Sampling = "merged",
    contrast: float = 1.0,
) -> tuple[SampleChunk, Callable[[], int]]:
    """The jitted sampler of one chunk, with a function that tells how often it was compiled.

    Args:
        guidance: scale of classifier-free guidance.
        contrast: ``MemoryConfig.guidance``.
    """
    config = model.config

    def windows(predictor: Predictor, params: Params, seen: Seen, window: VideoBatch, key_B: Key) -> Array:
        condition = condition_of(model, params, window, seen[1])
        return sample_future(predictor, condition, seen[0], frames, config.schedule, sampler, config.masking, key_B)

    @jax.jit
    def sample(params: Params, adapters: Lora | None, seen: Seen, window: VideoBatch, key_B: Key) -> Array:
        if adapters is None:
            return windows(guided_predictor(model, params, window, guidance, seen[1]), params, seen, window, key_B)

        def one(inputs: tuple[Lora, Seen, VideoBatch, Key]) -> Array:
            lora, (seen, window, key) = inputs[0], jax.tree.map(lambda x: x[None], inputs[1:])
            if sampling == "merged":
                remembered = guided_predictor(model, merged(params, lora), window, guidance, seen[1])
            else:
                remembered = guided_predictor(with_adapter(model, lora), params, window, guidance, seen[1])
            plain = guided_predictor(model, params, window, guidance, seen[1])
            return windows(contrastive(plain, remembered, contrast), params, seen, window, key)[0]

        each = jax.lax.map if sampling == "merged" else lambda f, xs: jax.vmap(f)(xs)
        return each(one, (adapters, seen, window, key_B))

    params = jax.device_put(model.params)

    def sample_chunk(recalled: Recalled, window: VideoBatch, key_B: Key) -> Array:
        return sample(params, recalled.adapter, (recalled.past.frames_BTHWC, recalled.reference), window, key_B)

    return sample_chunk, sample._cache_size  # type: ignore[attr-defined]


def window_sampler(model: SlowModel, sampler: Sampler, guidance: float, past: int, future: int) -> Callable[..., Array]:
    """A compiled function (windows of real frames, one key each) -> the next f_g frames, uint8, after the first f_p.

    It takes other parameters than the model's as a third argument.
    """
    config = model.config

    @jax.jit
    def generate(params: Params, autoencoder: tuple[Partial, Partial], batch: VideoBatch, key_B: Key) -> Array:
        latents = autoencoder[0](batch.video_BTHWC[:, :past])
        predictor = guided_predictor(model, params, batch, guidance)
        condition = model.denoiser.embed(params, batch)
        new = sample_future(predictor, condition, latents, future, config.schedule, sampler, config.masking, key_B)
        frames: Array = autoencoder[1](new)
        return frames

    frozen = (model.autoencoder.encode, model.autoencoder.decode)
    return lambda batch, key_B, params=model.params: generate(params, frozen, batch, key_B)
