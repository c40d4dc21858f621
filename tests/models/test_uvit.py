"""The U-ViT of RIVER and RAFI: its published size, what its inputs do, and where time is turned round."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.rafi.robot import VARIANTS
from tests import tiny
from vgen_jax.config import section
from vgen_jax.models.uvit import UViT, UViTConfig
from vgen_jax.types import VgenError

PAPER = section(UViTConfig, VARIANTS["paper"]["uvit"], "uvit")
SMALL = section(UViTConfig, VARIANTS["tiny"]["uvit"], "uvit")
NETWORK = UViT(SMALL, 3)


def inputs(b: int = 2, channels: int = 3, side: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    x, reference, context = rng.normal(size=(3, b, side, side, channels)).astype(np.float32)
    return [x, np.linspace(0.2, 0.8, b).astype(np.float32), reference, context, np.full(b, 2.0, np.float32)]


PARAMS = tiny.random_params(NETWORK.init, *inputs(), False)["params"]
apply = tiny.jit(lambda params, *x: NETWORK.apply({"params": params}, *x, False))


def test_the_published_size() -> None:
    state = inputs(1, 10, 4)
    params = jax.eval_shape(lambda: UViT(PAPER, 10).init(jax.random.key(0), *state, False))["params"]
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)) == 98_140_170


def test_every_input_counts_and_samples_do_not_mix() -> None:
    given = inputs()
    found = apply(PARAMS, *given)
    assert found.shape == given[0].shape and found.dtype == jnp.float32
    for n in range(len(given)):
        changed = list(given)
        changed[n] = given[n].copy()
        changed[n][0] = given[n][0] * 1.5 + 0.1
        other = apply(PARAMS, *changed)
        assert np.abs(other[0] - found[0]).max() > 1e-4
        np.testing.assert_allclose(other[1], found[1], rtol=1e-5, atol=1e-6)


def test_dropout_is_of_training_alone() -> None:
    given = inputs()
    train = jax.jit(
        lambda key: UViT(dataclasses.replace(SMALL, dropout=0.5), 3).apply(
            {"params": PARAMS}, *given, True, rngs={"dropout": key}
        )
    )
    one, again, other = train(jax.random.key(0)), train(jax.random.key(0)), train(jax.random.key(1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-4


def test_states_that_do_not_fit_are_refused() -> None:
    with pytest.raises(VgenError, match="25 places"):
        jax.eval_shape(lambda: NETWORK.init(jax.random.key(0), *inputs(1, 3, 5), False))
    with pytest.raises(VgenError, match="no even multiple"):
        dataclasses.replace(SMALL, heads=3)
