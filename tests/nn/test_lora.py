"""Adapters: what they add, and that nothing else changes."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vgen_jax.nn.lora import Lora, LoraConfig, init_lora, kernel_shapes, merge, unmerge, with_lora
from vgen_jax.nn.temporal import frames_contraction
from vgen_jax.types import Array, VgenError

EVERY = LoraConfig(rank=3, targets="")


class Net(nn.Module):
    """One of each kind of layer: spatial 3×3 (also strided), 1×1, temporal (3, 1), Dense, one of them twice deep."""

    @nn.compact
    def __call__(self, x_FHWC: Array) -> Array:
        x = nn.Conv(6, (3, 3), padding=((1, 1), (1, 1)), name="spatial")(x_FHWC)
        x = nn.Conv(6, (3, 3), (2, 2), ((0, 1), (0, 1)), name="strided")(jax.nn.silu(x))
        x = nn.Conv(6, (1, 1), use_bias=False, name="pointwise")(jax.nn.silu(x))
        x = x.reshape(1, x.shape[0], -1, 6)
        conv = {"padding": ((1, 1), (0, 0)), "conv_general_dilated": frames_contraction}
        x = nn.remat(nn.Conv)(6, (3, 1), **conv, name="temporal")(x)
        return nn.Dense(4, name="head")(jax.nn.silu(x))


NET = Net()
INPUT = np.random.default_rng(1).normal(size=(4, 4, 4, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def params() -> Any:
    return tiny.random_params(NET.init, jnp.asarray(INPUT))["params"]


def apply(params: Any, x: Array) -> Any:
    return NET.apply({"params": params}, x)


def trained(lora: Lora, seed: int = 0) -> Lora:
    """An adapter whose ``b`` is no longer zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.3, jnp.float32), lora)


def test_a_fresh_adapter_changes_nothing(params: Any, rng: Array) -> None:
    lora = init_lora(params, EVERY, rng)
    assert set(lora.weights) == {"spatial", "strided", "pointwise", "temporal", "head"}
    plain = tiny.jit(apply)(params, INPUT)
    np.testing.assert_array_equal(tiny.jit(lambda p, lora, x: with_lora(apply, lora)(p, x))(params, lora, INPUT), plain)
    jax.tree.map(np.testing.assert_array_equal, merge(params, lora), params)


@pytest.mark.parametrize("targets", ["", "temporal", "^s", "head"])
@pytest.mark.parametrize("alpha", [0.0, 6.0])
def test_merged_equals_intercepted(params: Any, rng: Array, targets: str, alpha: float) -> None:
    lora = trained(init_lora(params, LoraConfig(3, alpha, targets), rng))
    assert lora.scale == (2.0 if alpha else 1.0)
    intercepted = tiny.jit(lambda p, lora, x: with_lora(apply, lora)(p, x))(params, lora, INPUT)
    merged = tiny.jit(apply)(merge(params, lora), INPUT)
    np.testing.assert_allclose(intercepted, merged, rtol=1e-5, atol=1e-5)
    assert np.abs(np.asarray(merged) - tiny.jit(apply)(params, INPUT)).max() > 1e-2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), unmerge(merge(params, lora), lora), params)


def test_only_what_is_named_is_adapted(params: Any, rng: Array) -> None:
    lora = trained(init_lora(params, LoraConfig(2, 0.0, "temporal|head"), rng))
    changed = merge(params, lora)
    for path in kernel_shapes(params):
        same = np.array_equal(changed[path]["kernel"], params[path]["kernel"])
        assert same == (path not in ("temporal", "head"))
        assert "bias" not in params[path] or changed[path]["bias"] is params[path]["bias"]


def test_shapes_alone_are_enough_and_other_targets_change_no_layer(params: Any, rng: Array) -> None:
    shapes = jax.eval_shape(lambda: params)
    every, one = init_lora(shapes, EVERY, rng), init_lora(params, LoraConfig(3, 0.0, "temporal"), rng)
    jax.tree.map(np.testing.assert_array_equal, every.weights["temporal"], one.weights["temporal"])
    for path, weights in every.weights.items():
        fan_in = np.prod(params[path]["kernel"].shape[:-1])
        bound = 1 / np.sqrt(fan_in)
        assert 0.5 * bound < np.abs(weights["a"]).max() <= bound and not weights["b"].any()
    assert np.abs(every.weights["spatial"]["a"][..., :5, :] - every.weights["strided"]["a"][..., :5, :]).max() > 1e-3


def test_a_gradient_over_the_adapter_reaches_every_layer(params: Any, rng: Array) -> None:
    lora = trained(init_lora(params, EVERY, rng))
    grads = tiny.jit(jax.grad(lambda lora: (with_lora(apply, lora)(params, INPUT) ** 2).sum()))(lora)
    by_merging = tiny.jit(jax.grad(lambda lora: (apply(merge(params, lora), INPUT) ** 2).sum()))(lora)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), grads, by_merging)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))


def test_a_stack_of_adapters_gives_each_sample_its_own(params: Any, rng: Array) -> None:
    stack = trained(jax.vmap(lambda key: init_lora(params, EVERY, key))(jax.random.split(rng, 2)))
    x = np.stack([INPUT, INPUT[::-1]])
    each = tiny.jit(jax.vmap(lambda lora, x: with_lora(apply, lora)(params, x)))(stack, x)
    for n in range(2):
        alone = jax.tree.map(lambda w, n=n: w[n], stack)
        np.testing.assert_allclose(each[n], tiny.jit(apply)(merge(params, alone), x[n]), rtol=1e-5, atol=1e-5)


def test_a_layer_in_half_precision_stays_in_it(rng: Array) -> None:
    net = nn.Dense(4, dtype=jnp.bfloat16)
    params = {"head": {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros(4)}}
    lora = trained(init_lora(params, EVERY, rng))
    whole = nn.Sequential([net])
    out = with_lora(whole.apply, Lora({"layers_0": lora.weights["head"]}))(
        {"params": {"layers_0": params["head"]}}, jnp.ones((2, 3))
    )
    assert out.dtype == jnp.bfloat16


def test_mistakes_are_named(params: Any, rng: Array) -> None:
    with pytest.raises(VgenError, match="lora.rank is 0"):
        LoraConfig(0)
    with pytest.raises(VgenError, match="is no regular expression"):
        LoraConfig(1, 0.0, "(")
    with pytest.raises(VgenError, match="'attention' matches no layer: the layers are head"):
        init_lora(params, LoraConfig(1, 0.0, "attention"), rng)
    foreign = Lora({"elsewhere": init_lora(params, EVERY, rng).weights["head"]})
    with pytest.raises(VgenError, match="for layer elsewhere, which the network lacks"):
        merge(params, foreign)
    with pytest.raises(VgenError, match="for layer elsewhere, which the network lacks"):
        with_lora(apply, foreign)(params, INPUT)


def test_a_network_compiled_before_is_refused(params: Any, rng: Array) -> None:
    """It would leave the adapter out without a word."""
    compiled = jax.jit(apply)
    compiled(params, INPUT)
    with pytest.raises(VgenError, match="which the network lacks"):
        with_lora(compiled, init_lora(params, EVERY, rng))(params, INPUT)
