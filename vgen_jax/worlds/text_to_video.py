"""A text-to-video model as it was trained, as a World: each step is a clip of its own, of a text alone.

Noise and a text become latents, and latents frames, a few at a time.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.struct
import jax
import numpy as np

from vgen_jax.compose.guidance import classifier_free
from vgen_jax.convert.schedulers import Scheduler
from vgen_jax.diffusion.samplers import normal_like, sample
from vgen_jax.models.autoencoder_kl import AutoencoderKL
from vgen_jax.models.unet_latent import UNet3D
from vgen_jax.nn.pixels import from_unit
from vgen_jax.types import Array, Command, Condition, Key, Params, Prediction, Step, VgenError


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


@flax.struct.dataclass
class ClipState:
    """The clips so far, and what their noise depends on."""

    clips: int
    key: Key


@dataclasses.dataclass(frozen=True)
class ClipWorld:
    """Nothing is carried from clip to clip but the number of the next.

    Attributes:
        sample: (noise_BTHWC, text_BLD, null_BLD, key_B) -> latents.
        decode: latents -> slices of float frames about [-1, 1].
        shape: (1, T, h, w, C) of a clip's latents.
        texts: the embedding of each text that can be told, (L, D).
        null_LD: that of the text that guidance leads away from.
    """

    sample: Callable[..., jax.Array]
    decode: Callable[[Array], Iterator[jax.Array]]
    shape: tuple[int, ...]
    texts: Mapping[str, np.ndarray]
    null_LD: np.ndarray

    def start(
        self,
        frames: np.ndarray | None = None,
        actions: np.ndarray | None = None,
        key: Key | None = None,
        id_B: np.ndarray | None = None,
    ) -> ClipState:
        """See ``World``.

        Raises:
            VgenError: for frames, which a clip of a text alone cannot go on from.
        """
        if frames is not None:
            raise VgenError("this model makes clips of a text alone: start it without frames, or fine-tune it")
        return ClipState(0, jax.random.key(0) if key is None else key)

    def step(self, state: ClipState, command: Command | None = None) -> tuple[ClipState, Step]:
        """See ``World``; the command is a text."""
        if not isinstance(command, str) or command not in self.texts:
            raise VgenError(f"{command!r} is no text that has been embedded: use one of {', '.join(self.texts)}")
        keys = jax.random.split(jax.random.fold_in(state.key, state.clips))
        latents = self.sample(
            normal_like(keys[:1], self.shape), self.texts[command][None], self.null_LD[None], keys[1:]
        )
        frames = np.concatenate([np.asarray(from_unit(part)) for part in self.decode(latents)], axis=1)
        return ClipState(state.clips + 1, state.key), Step(frames, None, command)
