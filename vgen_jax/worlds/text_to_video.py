"""A text-to-video model as it was trained: noise and a text to latents, latents to frames a few at a time."""

from collections.abc import Callable, Iterator
from typing import Any

import jax

from vgen_jax.compose.guidance import classifier_free
from vgen_jax.convert.schedulers import Scheduler
from vgen_jax.diffusion.samplers import sample
from vgen_jax.models.autoencoder_kl import AutoencoderKL
from vgen_jax.models.unet_latent import UNet3D
from vgen_jax.types import Array, Condition, Key, Params, Prediction


def to_device(params: Any) -> None:
    """Moves parameters to the device, in place and one by one, so that they never stand in memory twice."""
    for name, value in params.items():
        if isinstance(value, dict):
            to_device(value)
        else:
            params[name] = jax.device_put(value)


def latent_sampler(network: UNet3D, scheduler: Scheduler, guidance: float) -> Callable[..., jax.Array]:
    """A compiled function (params, noise_BTHWC, text_BLD, null_BLD, key_B) -> latents, float32.

    Args:
        guidance: scale of classifier-free guidance; 1 leaves ``null_BLD`` unread.
    """

    def generate(params: Params, noise_BTHWC: Array, text_BLD: Array, null_BLD: Array, key_B: Key) -> jax.Array:
        def predict(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
            value: Any = network.apply({"params": params}, x_t_BTHWC, t_B, condition.text_BLD)
            return Prediction(value, scheduler.kind)

        guided = classifier_free(predict, Condition(null_BLD), guidance)
        latents: Any = sample(guided, scheduler.schedule, scheduler.sampler, noise_BTHWC, Condition(text_BLD), key_B)
        return latents

    return jax.jit(generate)


def frame_decoder(
    network: AutoencoderKL, scaling_factor: float, frames: int
) -> Callable[[Params, Array], Iterator[jax.Array]]:
    """A function (params, latents_BTHWC) -> slices of ``frames`` frames, float32 about [-1, 1], when asked for."""

    @jax.jit
    def decode(params: Params, latents_BTHWC: Array) -> jax.Array:
        found: Any = network.apply({"params": params}, latents_BTHWC / scaling_factor, method="decode")
        return found

    def slices(params: Params, latents_BTHWC: Array) -> Iterator[jax.Array]:
        for at in range(0, latents_BTHWC.shape[1], frames):
            yield decode(params, latents_BTHWC[:, at : at + frames])

    return slices
