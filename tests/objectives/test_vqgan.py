"""The adversarial training of a VQGAN: one sum whose parts move one network each."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tests.models.test_vqgan import EMA, SMALL
from vgen_jax.models.vqgan import PatchConfig, PatchDiscriminator, Vqgan, VqganConfig
from vgen_jax.objectives.vqgan import DISCRIMINATOR, UPDATES, VqganLoss, kernel_gradient, vqgan
from vgen_jax.tasks.vqgan import judged_by, reconstruct, variables_of
from vgen_jax.types import Array, VgenError, VideoBatch

LOSS = VqganLoss(codebook=1.0, commitment=0.25, perceptual=0.0, adversarial=0.8, start=0)
PATCHES = PatchConfig(4, 1)
X = np.random.default_rng(0).integers(0, 256, (2, 1, 16, 16, 3), np.uint8)


def tree(config: VqganConfig) -> tuple[Any, Any]:
    frame = jnp.zeros((1, 16, 16, 3))
    variables = tiny.random_params(Vqgan(config).init, frame)
    judged = tiny.random_params(PatchDiscriminator(PATCHES).init, frame, False)
    state = {"vqgan": variables["codebook"] if "codebook" in variables else {}, UPDATES: np.zeros((), np.int32)}
    state[DISCRIMINATOR] = jax.tree.map(lambda v: np.abs(v) + 0.5, judged["batch_stats"])
    return {"vqgan": variables["params"], DISCRIMINATOR: judged["params"]}, state


def objective(config: VqganConfig, loss: VqganLoss) -> Any:
    network, judge = Vqgan(config), PatchDiscriminator(PATCHES)
    return vqgan(partial(reconstruct, network), partial(judged_by, judge), None, config.codebook == "ema", loss)


BATCH = VideoBatch(X, np.zeros((2, 1), bool))


@pytest.mark.slow
def test_each_network_learns_from_its_own_terms() -> None:
    """Before the discriminator begins it has no gradient; the autoencoder's changes when it does."""
    params, state = tree(SMALL)
    loss = objective(SMALL, dataclasses.replace(LOSS, start=5))

    def of(params: Any, state: Any) -> tuple[Array, tuple[Any, Any]]:
        value, aux, after = loss(params, state, BATCH, jax.random.key(0))
        return value, (aux, after)

    gradient = tiny.jit(jax.value_and_grad(of, has_aux=True))
    (value, (aux, after)), before = gradient(params, state)
    assert int(after[UPDATES]) == 1 and np.isfinite(value)
    assert max(float(np.abs(g).max()) for g in jax.tree.leaves(before[DISCRIMINATOR])) == 0.0
    _, begun = gradient(params, {**state, UPDATES: np.asarray(5, np.int32)})
    assert min(float(np.abs(g).max()) for g in jax.tree.leaves(begun[DISCRIMINATOR]["logit"])) > 0.0
    last = [g["vqgan"]["decoder"]["conv_out"]["kernel"] for g in (before, begun)]
    assert np.abs(last[0] - last[1]).max() > 1e-5
    codes = [g["vqgan"]["quantiser"]["codes"] for g in (before, begun)]
    np.testing.assert_allclose(codes[0], codes[1], rtol=1e-5, atol=1e-8)
    assert aux["weight"] > 0


def test_the_last_kernels_gradient_is_that_of_the_whole_network() -> None:
    params, state = tree(SMALL)
    x = jnp.asarray(X[:, 0], jnp.float32) / 127.5 - 1

    def error(kernel: Array) -> Array:
        decoder = {
            **params["vqgan"]["decoder"],
            "conv_out": {**params["vqgan"]["decoder"]["conv_out"], "kernel": kernel},
        }
        return jnp.abs(Vqgan(SMALL).apply(variables_of({**params["vqgan"], "decoder": decoder}, {}), x)[0] - x).mean()

    coded = tiny.jit(partial(reconstruct, Vqgan(SMALL)))(params["vqgan"], {}, x)
    of_frames = jax.grad(lambda frames: jnp.abs(frames - x).mean())(coded.frames)
    found = kernel_gradient(coded.last, coded.kernel, of_frames)
    np.testing.assert_allclose(found, tiny.jit(jax.grad(error))(coded.kernel), rtol=1e-3, atol=1e-6)


def test_a_codebook_that_follows_moves_without_a_gradient() -> None:
    params, state = tree(EMA)
    counts = {**state["vqgan"]["quantiser"], "counts": np.ones(16, np.float32)}
    state = {**state, "vqgan": {"quantiser": counts}}
    loss = dataclasses.replace(LOSS, adversarial=0.0)
    value, aux, after = tiny.jit(objective(EMA, loss))(params, state, BATCH, jax.random.key(0))
    np.testing.assert_allclose(value, aux["error"] + 0.25 * aux["commitment"], rtol=1e-5)
    assert np.abs(after["vqgan"]["quantiser"]["counts"] - 1).max() > 0 and 1 <= aux["codes_used"] <= 16
    assert "quantiser" not in params["vqgan"]


def test_weights_below_zero_are_refused() -> None:
    with pytest.raises(VgenError, match="objective.loss.commitment is -1"):
        dataclasses.replace(LOSS, commitment=-1.0)
