"""Training of the KL autoencoder (Rombach et al. 2022, without the adversarial and perceptual terms).

loss = mean |x - x̂| + kl_weight · mean over latents of KL(N(mean, variance) || N(0, 1))
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax.tree_util import Partial

from vgen_jax.nn.pixels import to_unit
from vgen_jax.types import Array, Key, Objective, Params, VideoBatch

Reconstruct = Callable[[Params, Array, Key], tuple[Array, Array, Array]]


def autoencoder(reconstruct: Reconstruct, kl_weight: float) -> Objective:
    """The objective; ``reconstruct(params, x, rng)`` gives (x̂ from a sample of the latents, mean, log-variance)."""

    def objective(params: Params, batch: VideoBatch, rng: Key) -> tuple[Array, dict[str, Array]]:
        x = to_unit(batch.video_BTHWC)
        decoded, mean, log_variance = reconstruct(params, x, rng)
        l1 = jnp.abs(decoded - x).mean()
        kl = 0.5 * (mean**2 + jnp.exp(log_variance) - 1.0 - log_variance).mean()
        mse = ((decoded - x) ** 2).mean()
        psnr = 10.0 * jnp.log10(4.0 / mse)
        return l1 + kl_weight * kl, {"l1": l1, "kl": kl, "psnr": psnr, "latent_std": mean.std()}

    return Partial(objective)
