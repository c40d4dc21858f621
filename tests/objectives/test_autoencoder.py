"""The objective of the autoencoder."""

import jax.numpy as jnp
import numpy as np

from tests import tiny
from vgen_jax.objectives.autoencoder import autoencoder
from vgen_jax.types import Array


def test_the_loss_is_what_numpy_says(rng: Array) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4, 3), np.uint8)
    batch = tiny.latent_batch().replace(video_BTHWC=jnp.asarray(frames))
    mean, log_variance = np.full((2, 3, 2), 0.5, np.float32), np.full((2, 3, 2), -1.0, np.float32)
    objective = autoencoder(lambda params, x, rng: (params * x, mean, log_variance), kl_weight=0.1)
    value, aux = objective(jnp.asarray(0.5), batch, rng)
    x = frames / 127.5 - 1
    kl = 0.5 * (0.25 + np.exp(-1) - 1 + 1)
    np.testing.assert_allclose(value, np.abs(0.5 * x).mean() + 0.1 * kl, rtol=1e-5)
    np.testing.assert_allclose(aux["psnr"], 10 * np.log10(4 / (0.25 * x**2).mean()), rtol=1e-5)
