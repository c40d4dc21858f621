"""The jitted sampler of one chunk, which hears what a memory recalls."""

from collections.abc import Callable
from typing import Literal

import jax

from vgen_jax.compose.contrast import contrastive
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.nn.lora import Lora, merge, with_lora
from vgen_jax.types import Array, Key, Params, Predictor, Recalled, Reference, VideoBatch
from vgen_jax.worlds.rollout import SampleChunk, sample_future
from vgen_jax.worlds.slow import SlowModel, condition_of, guided_predictor

ADAPTED = "unet"  # the part of a slow model's parameters that adapters are for

Sampling = Literal["merged", "intercepted"]

Seen = tuple[Array, Reference | None]  # the clean past, and frames to be seen again


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
