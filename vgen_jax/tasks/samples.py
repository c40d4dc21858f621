"""What a slow model makes of a few held-out windows while it is trained, for whoever watches."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vgen_jax.data.batches import BatchesConfig, evaluation_windows, to_batch
from vgen_jax.data.schema import DatasetInfo
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.types import Autoencoder, Key, Params
from vgen_jax.worlds.slow import SlowModel
from vgen_jax.worlds.slow_networks import SlowConfig, denoiser
from vgen_jax.worlds.slow_world import window_sampler

WINDOWS, STEPS = 4, 8  # windows side by side; DDIM's steps
HELD_OUT = "validation"


def next_chunks(
    slow: SlowConfig, autoencoder: Autoencoder, data: BatchesConfig, info: DatasetInfo
) -> Callable[[Params, Key], np.ndarray]:
    """(parameters, key) -> a video, uint8 (T, H, W, 3): above the real windows, below the same past, then the model.

    The windows are of the first length that is trained, of the split ``validation`` if the data have one.

    Raises:
        VgenError: if there are fewer windows than are shown.
    """
    past, future = data.windows[0]
    shown = dataclasses.replace(
        data, split=HELD_OUT if HELD_OUT in info.splits else data.split, windows=((past, future),),
        window_weights=(1.0,), batch_size=WINDOWS, workers=0,
    )  # fmt: skip
    batch = to_batch(next(evaluation_windows(shown, WINDOWS, 0, 1)))
    coder, real_BTHWC = autoencoder, batch.video_BTHWC
    if info.content == "latents":
        coder = _Decoder(autoencoder)
        real_BTHWC = np.asarray(jax.jit(lambda decode, x: decode(x))(autoencoder.decode, jnp.asarray(real_BTHWC)))
    model = SlowModel(slow, denoiser(slow), {}, coder, info, data.windows)
    generate = window_sampler(model, Sampler("ddim", min(STEPS, slow.schedule.steps)), 1.0, past, future)

    def video(params: Params, key: Key) -> np.ndarray:
        new_BTHWC = np.asarray(generate(batch, jax.random.split(key, WINDOWS), params))
        rows = (real_BTHWC, np.concatenate([real_BTHWC[:, :past], new_BTHWC], axis=1))
        return np.concatenate([np.concatenate(list(row), axis=2) for row in rows], axis=1)

    return video


class _Decoder:
    """An autoencoder for data that are latents already."""

    encode = Partial(lambda latents: latents)

    def __init__(self, autoencoder: Autoencoder):
        self.decode, self.folder = autoencoder.decode, autoencoder.folder
        self.channels, self.factor = autoencoder.channels, autoencoder.factor
