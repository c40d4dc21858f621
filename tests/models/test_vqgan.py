"""VQGAN: the published size, the straight-through gradient, both codebooks, the discriminator's map of patches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.rafi.robot import VARIANTS
from tests import tiny
from vgen_jax.config import section
from vgen_jax.models.vqgan import CODEBOOK, PatchConfig, PatchDiscriminator, Quantiser, Vqgan, VqganConfig
from vgen_jax.types import Array, VgenError

PAPER = section(VqganConfig, VARIANTS["paper"]["vqgan"], "vqgan")
SMALL = section(VqganConfig, VARIANTS["tiny"]["vqgan"], "vqgan")
EMA = dataclasses.replace(SMALL, codebook="ema", decay=0.75)


def test_the_published_size() -> None:
    params = jax.eval_shape(Vqgan(PAPER).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)) == 69_593_371


def table(codes: int = 16) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(codes, 4)).astype(np.float32)


def latents(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, 3, 3, 4)).astype(np.float32)


def test_latents_become_the_nearest_codes_and_the_gradient_goes_straight_through() -> None:
    variables = {"params": {"codes": table()}}

    def out(z: Array) -> Array:
        return Quantiser(SMALL).apply(variables, z).straight

    z = latents()
    nearest = ((z[..., None, :] - table()) ** 2).sum(-1).argmin(-1)
    np.testing.assert_allclose(out(z), table()[nearest], atol=1e-6)
    weight = latents(2)
    np.testing.assert_allclose(jax.grad(lambda z: (weight * out(z)).sum())(z), weight, atol=1e-6)
    # A loss on the codes moves the chosen entries alone, and no latent.
    of_table = jax.grad(lambda t: Quantiser(SMALL).apply({"params": {"codes": t}}, z).codes.sum())(jnp.asarray(table()))
    chosen = np.isin(np.arange(16), nearest)
    assert (np.asarray(of_table)[~chosen] == 0).all() and (np.asarray(of_table)[chosen] > 0).all()


def test_a_codebook_that_follows_becomes_the_means_of_its_latents() -> None:
    z = latents()
    state = {"sums": table(), "counts": np.ones(16, np.float32)}
    nearest = ((z[..., None, :] - table() / (1 + 1e-5)) ** 2).sum(-1).argmin(-1)
    kept = Quantiser(EMA).apply({CODEBOOK: state}, z, False, mutable=[CODEBOOK])[1][CODEBOOK]
    jax.tree.map(np.testing.assert_array_equal, kept, state)
    after = Quantiser(EMA).apply({CODEBOOK: state}, z, True, mutable=[CODEBOOK])[1][CODEBOOK]
    counts = np.bincount(nearest.reshape(-1), minlength=16)
    np.testing.assert_allclose(after["counts"], 0.75 + 0.25 * counts, rtol=1e-5)
    for code in np.flatnonzero(counts):
        mean = z[nearest == code].sum(0)
        np.testing.assert_allclose(after["sums"][code], 0.75 * table()[code] + 0.25 * mean, rtol=1e-4, atol=1e-5)


def test_frames_are_coded_one_by_one() -> None:
    network = Vqgan(SMALL)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    params = tiny.random_params(network.init, x)
    found = tiny.jit(lambda x: network.apply(params, x, method="encode"))(x)
    assert found.shape == (2, 4, 4, 4)
    decoded = tiny.jit(lambda z: network.apply(params, z, method="decode"))(found)
    whole, _ = tiny.jit(lambda x: network.apply(params, x))(x)
    np.testing.assert_allclose(decoded, whole, rtol=1e-4, atol=1e-5)
    with pytest.raises(VgenError, match="multiples of 4"):
        jax.eval_shape(lambda: network.apply(params, x[:, :10], method="encode"))
    with pytest.raises(VgenError, match="the levels are 0 to 2"):
        dataclasses.replace(SMALL, attention_levels=(3,))


def test_the_discriminator_judges_patches() -> None:
    network = PatchDiscriminator(PatchConfig(4, 2))
    x = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    variables = tiny.random_params(network.init, x, False)
    variables = {**variables, "batch_stats": jax.tree.map(lambda v: np.abs(v) + 0.5, variables["batch_stats"])}
    judge = tiny.jit(lambda x: network.apply(variables, x, False))
    found = judge(x)
    assert found.shape == (2, 6, 6, 1)
    far = x.copy()
    far[0, -4:, -4:] = 1.0
    changed = np.abs(judge(far) - found)[0, ..., 0] > 1e-6
    assert changed[-1, -1] and not changed[:2, :2].any()
