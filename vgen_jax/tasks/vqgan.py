"""The VQGAN as a task (``objectives.vqgan``); ``worlds.autoencoder`` reads its export.

With ``objective.loss.adversarial`` above 0 a discriminator is trained beside it: give it an optimiser of its own,
``optimizer.second`` for the parameters ``^discriminator/``.

Keys:
    weights_dir: where LPIPS's VGG-16 is; empty for the environment variable VGEN_WEIGHTS, or where it is not used.
    unit_latents: divide latents by their standard deviation over the data; the published ones are as they come.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.convert.feature_nets import feature_net
from vgen_jax.data.batches import BatchesConfig
from vgen_jax.data.records import read_info
from vgen_jax.files.exports import export
from vgen_jax.learning.slow import Task
from vgen_jax.learning.state import MODEL_STATE, divided, joined
from vgen_jax.models.autoencoder_kl import BEFORE_LAST
from vgen_jax.models.vqgan import CODEBOOK, PatchConfig, PatchDiscriminator, Vqgan, VqganConfig
from vgen_jax.objectives.vqgan import DISCRIMINATOR, UPDATES, Coded, VqganLoss, vqgan
from vgen_jax.tasks.autoencoder import latent_scale
from vgen_jax.tasks.inputs import Batches, Finish, batches_config
from vgen_jax.types import Array, Key, Params, VgenError
from vgen_jax.worlds.autoencoder import VQGAN

SECTIONS: Sections = {
    "vqgan": VqganConfig, "discriminator": PatchConfig, "objective.loss": VqganLoss, "data": BatchesConfig,
}  # fmt: skip


def vqgan_task(config: ConfigDict) -> tuple[Task, Finish]:
    """Trains a VQGAN on frames; its export is an autoencoder's, without the discriminator.

    Raises:
        VgenError: for latents, frames that the levels do not divide, or weights of LPIPS that are not there.
    """
    shape = section(VqganConfig, config.vqgan.to_dict(), "vqgan")
    loss = section(VqganLoss, config.objective.loss, "objective.loss")
    patches = section(PatchConfig, config.discriminator, "discriminator")
    data = batches_config(config)
    info = read_info(data.data_dir)
    if info.content != "frames":
        raise VgenError(f"{data.data_dir} holds latents: an autoencoder is trained on frames")
    if any(side % shape.factor for side in info.frame_shape[:2]):
        raise VgenError(
            f"{data.data_dir} holds frames of {info.frame_shape[:2]}: {shape.levels} levels need multiples of "
            f"{shape.factor} pixels"
        )
    network, judge = Vqgan(shape), PatchDiscriminator(patches)

    def init(rng: Key) -> Params:
        frame = jnp.zeros((1, *info.frame_shape))
        variables = network.init(rng, frame)
        params = {"vqgan": variables["params"]}
        state = {"vqgan": variables[CODEBOOK] if CODEBOOK in variables else {}, UPDATES: jnp.zeros((), jnp.int32)}
        if loss.adversarial:
            judged = judge.init(jax.random.fold_in(rng, 1), frame, False)
            params[DISCRIMINATOR], state[DISCRIMINATOR] = judged["params"], judged["batch_stats"]
        return {**params, MODEL_STATE: state}

    def finish(tree: Params, folder: Path) -> None:
        params, state = divided(tree)
        variables = variables_of(params["vqgan"], state["vqgan"] if "vqgan" in state else {})
        encode = jax.jit(lambda variables, x: network.apply(variables, x, method="encode"))
        scale = latent_scale(partial(encode, variables), data) if config.unit_latents else 1.0
        kept = joined(params["vqgan"], state["vqgan"] if "vqgan" in state else {})
        export(folder, kept, {VQGAN: dataclasses.asdict(shape), "scale": scale})

    objective = vqgan(
        partial(reconstruct, network), partial(judged_by, judge),
        perceptual_distance(config.weights_dir) if loss.perceptual else None, shape.codebook == "ema", loss,
    )  # fmt: skip
    return Task(init, objective, Batches(data)), finish


def variables_of(params: Params, state: Any) -> dict[str, Any]:
    """A VQGAN's variables: its codebook is among the state where it follows the latents."""
    return {"params": params, **({CODEBOOK: state} if jax.tree.leaves(state) else {})}


def reconstruct(network: Vqgan, params: Params, state: Any, x_FHWC: Array) -> Coded:
    """See ``objectives.vqgan.Reconstruct``."""
    (frames, found), after = network.apply(
        variables_of(params, state), x_FHWC, True, mutable=[CODEBOOK, "intermediates"]
    )  # fmt: skip
    last: Any = after["intermediates"]["decoder"][BEFORE_LAST][0]
    return Coded(
        frames, found.latents, found.codes, last.astype(jnp.float32), params["decoder"]["conv_out"]["kernel"],
        found.entry, after[CODEBOOK] if CODEBOOK in after else {},
    )  # fmt: skip


def judged_by(network: PatchDiscriminator, params: Params, state: Any, x_FHWC: Array) -> tuple[Array, Any]:
    """See ``objectives.vqgan.Judge``."""
    variables = {"params": params, "batch_stats": state}
    logits, after = network.apply(variables, x_FHWC, True, mutable=["batch_stats"])
    return logits, after["batch_stats"]


def perceptual_distance(weights_dir: str) -> Partial:
    """LPIPS of frames in [-1, 1], with its frozen network.

    Raises:
        VgenError: if its weights are not there.
    """
    net = feature_net("lpips_vgg", weights_dir)

    def distance(params: Params, x_FHWC: Array, y_FHWC: Array) -> Array:
        return net.apply(params, jnp.stack([x_FHWC, y_FHWC], axis=1) * 0.5 + 0.5)

    return Partial(distance, jax.tree.map(np.asarray, net.params))
