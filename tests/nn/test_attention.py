"""Attention and transformer blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vgen_jax.nn.attention import Attention, FeedForward
from vgen_jax.types import Array


def test_attention_is_what_numpy_says(rng: Array) -> None:
    x = np.asarray(jax.random.normal(rng, (1, 3, 4)))
    module = Attention(heads=2, head_dim=2)
    variables = tiny.random_params(module.init, x)
    p = jax.tree.map(np.asarray, variables["params"])
    q, k, v = (x[0] @ p[name]["kernel"] for name in ("to_q", "to_k", "to_v"))
    heads = []
    for h in (slice(0, 2), slice(2, 4)):
        weight = np.exp(q[:, h] @ k[:, h].T / 2**0.5)
        heads.append(weight / weight.sum(1, keepdims=True) @ v[:, h])
    expected = np.concatenate(heads, 1) @ p["to_out"]["kernel"] + p["to_out"]["bias"]
    np.testing.assert_allclose(module.apply(variables, x)[0], expected, atol=1e-5)


def test_masked_tokens_say_nothing(rng: Array) -> None:
    x, context = jax.random.normal(rng, (2, 2, 5, 4))
    module = Attention(2, 2)
    variables = tiny.random_params(module.init, x, context)
    mask = jnp.arange(5)[None] < jnp.asarray([[3], [5]])
    out = module.apply(variables, x, context, mask)
    np.testing.assert_allclose(out[0], module.apply(variables, x[:1], context[:1, :3])[0], atol=1e-6)
    np.testing.assert_allclose(out[1], module.apply(variables, x[1:], context[1:])[0], atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_parameters_are_float32_and_the_output_has_the_compute_dtype(dtype: jnp.dtype) -> None:
    x = jnp.ones((1, 3, 8), dtype)
    for module in (Attention(2, 4, dtype), FeedForward(dtype)):
        variables = module.init(jax.random.key(0), x)
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
        assert module.apply(variables, x).dtype == dtype
