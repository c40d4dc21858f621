"""Training of a VQGAN (Esser et al. 2021, §3.1): reconstruction, codebook, and a discriminator of patches.

    loss = mean |x - x̂| + perceptual · LPIPS(x, x̂)
           + codebook · |codes - sg(z)|² + commitment · |sg(codes) - z|²
           + adversarial · lambda · (-mean D(x̂))
           + (mean max(0, 1 - D(x)) + mean max(0, 1 + D(sg(x̂)))) / 2

``sg`` stops gradients: the last line moves the discriminator alone, the others all but it, so that one sum serves both
optimisers (``learning.state.SecondOptimizer``). lambda is the norm of the gradient of the reconstruction's error in the
decoder's last kernel, over that of the discriminator's term, at most 1e4. Both adversarial terms are 0 before ``start``
updates, which are counted in the model state. A codebook that follows the latents has no loss of its own.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vgen_jax.nn.pixels import to_unit
from vgen_jax.types import Array, Key, Params, StatefulObjective, VgenError, VideoBatch

LARGEST_WEIGHT, EPSILON = 1e4, 1e-4
DISCRIMINATOR = "discriminator"  # its part of the parameters and of the model state
UPDATES = "updates"  # of the model state: how many there were


@dataclasses.dataclass(frozen=True)
class VqganLoss:
    """The weights; see the module's docstring. Published: 1, 0.25, 1, 0.8, 10000.

    Attributes:
        codebook, commitment: of the two sides of the latents' distance from their codes.
        perceptual: of LPIPS, whose VGG-16 has to be there (``weights_dir``); 0 for none.
        adversarial: of the discriminator's judgement; 0 trains without a discriminator.
        start: updates before the discriminator begins.
    """

    codebook: float
    commitment: float
    perceptual: float
    adversarial: float
    start: int

    def __post_init__(self) -> None:
        for name in ("codebook", "commitment", "perceptual", "adversarial", "start"):
            if getattr(self, name) < 0:
                raise VgenError(f"objective.loss.{name} is {getattr(self, name)}: use 0 or more")


class Coded(NamedTuple):
    """What an autoencoder made of frames.

    Attributes:
        frames: x̂.
        latents, codes: before and after the codebook.
        last: what the decoder's last convolution was given.
        kernel: that convolution's, (3, 3, C, 3).
        entry: of the codebook, for each latent.
        state: the autoencoder's model state afterwards.
    """

    frames: Array
    latents: Array
    codes: Array
    last: Array
    kernel: Array
    entry: Array
    state: Any


# (params, model state, frames in [-1, 1]) -> Coded, while training
Reconstruct = Callable[[Params, Any, Array], Coded]
# (params, model state, frames) -> (logits, model state)
Judge = Callable[[Params, Any, Array], tuple[Array, Any]]


def kernel_gradient(last_FHWC: Array, kernel: Array, cotangent_FHWC: Array) -> jax.Array:
    """The gradient of a loss in the last kernel, from that in the frames."""

    def frames(kernel: jax.Array) -> jax.Array:
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(jnp.asarray(last_FHWC), kernel, (1, 1), "SAME", dimension_numbers=layout)

    found: jax.Array = jax.vjp(frames, jnp.asarray(kernel))[1](cotangent_FHWC)[0]
    return found


def adaptive_weight(coded: Coded, of_error: Array, of_judgement: Array) -> Array:
    """lambda, from the gradients of both terms in the frames."""
    norms = [
        jnp.linalg.norm(kernel_gradient(coded.last, coded.kernel, gradient)) for gradient in (of_error, of_judgement)
    ]
    return jax.lax.stop_gradient(jnp.minimum(norms[0] / (norms[1] + EPSILON), LARGEST_WEIGHT))


def vqgan(
    reconstruct: Reconstruct, judge: Judge, perceptual: Partial | None, follows: bool, loss: VqganLoss
) -> StatefulObjective:  # fmt: skip
    """The objective. Parameters are ``{"vqgan": …, "discriminator": …}``, the latter with ``loss.adversarial``.

    Args:
        perceptual: (x, x̂) in [-1, 1] -> a distance per frame; a pytree that holds its network. ``None`` for none.
        follows: the codebook follows the latents and has no loss.
    """

    def objective(
        perceptual: Partial | None, params: Params, model_state: Any, batch: VideoBatch, rng: Key
    ) -> tuple[Array, dict[str, Array], Any]:  # fmt: skip
        x = to_unit(batch.video_BTHWC.reshape(-1, *batch.video_BTHWC.shape[2:]))
        coded = reconstruct(params["vqgan"], model_state["vqgan"], x)
        state = {**model_state, "vqgan": coded.state, UPDATES: model_state[UPDATES] + 1}

        def error_of(frames: Array) -> Array:
            value = jnp.abs(frames - x).mean()
            return value if perceptual is None else value + loss.perceptual * perceptual(x, frames).mean()

        error, of_error = jax.value_and_grad(error_of)(jax.lax.stop_gradient(coded.frames))
        sg = jax.lax.stop_gradient
        codebook = 0.0 if follows else ((coded.codes - sg(coded.latents)) ** 2).mean()
        commitment = ((sg(coded.codes) - coded.latents) ** 2).mean()
        value = error_of(coded.frames) + loss.codebook * codebook + loss.commitment * commitment
        aux = {
            "error": error, "commitment": commitment, "codes_used": distinct(coded.entry).astype(jnp.float32),
            "psnr": 10.0 * jnp.log10(4.0 / ((coded.frames - x) ** 2).mean()),
        }  # fmt: skip
        if loss.adversarial:
            fixed, judged = sg(params[DISCRIMINATOR]), state[DISCRIMINATOR]
            fooled = lambda frames: -judge(fixed, judged, frames)[0].mean()  # noqa: E731
            weight = adaptive_weight(sg(coded), sg(of_error), jax.grad(fooled)(sg(coded.frames)))
            on = (model_state[UPDATES] >= loss.start).astype(jnp.float32)
            value = value + on * loss.adversarial * weight * fooled(coded.frames)
            real, judged = judge(params[DISCRIMINATOR], judged, x)
            made, judged = judge(params[DISCRIMINATOR], judged, sg(coded.frames))
            hinge = 0.5 * (jax.nn.relu(1.0 - real).mean() + jax.nn.relu(1.0 + made).mean())
            value = value + on * hinge
            state = {**state, DISCRIMINATOR: judged}
            aux |= {"discriminator": hinge, "weight": weight, "logit_real": real.mean(), "logit_made": made.mean()}
        return value, aux, state

    return Partial(objective, perceptual)


def distinct(index: Array) -> Array:
    """How many different entries of the codebook there are among ``index``."""
    ordered = jnp.sort(index.reshape(-1))
    return 1 + (ordered[1:] != ordered[:-1]).sum()
