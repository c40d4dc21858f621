"""Counted work against XLA's own count, and where XLA's falls short."""

import jax
import jax.numpy as jnp
import pytest

from vgen_jax.devices.flops import matmul_flops

X = jax.ShapeDtypeStruct((4, 8, 8, 6), jnp.float32)


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: str = "VALID") -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("kernel", [(3, 3, 6, 10), (1, 1, 6, 10)])
def test_products_and_convolutions_as_the_compiler_counts_them(kernel: tuple[int, ...]) -> None:
    k, w = jax.ShapeDtypeStruct(kernel, jnp.float32), jax.ShapeDtypeStruct((10, 5), jnp.float32)
    program = lambda x, k, w: conv(x, k) @ w  # noqa: E731
    cost = jax.jit(program).lower(X, k, w).cost_analysis()
    assert matmul_flops(program, X, k, w) == cost["flops"]


def test_a_loop_counts_as_often_as_it_runs() -> None:
    w = jax.ShapeDtypeStruct((16, 16), jnp.float32)
    xs = jax.ShapeDtypeStruct((7, 4, 16), jnp.float32)
    once = 2 * 4 * 16 * 16
    assert matmul_flops(lambda w, xs: jax.lax.scan(lambda c, x: (c, x @ w), 0.0, xs)[1], w, xs) == 7 * once
    assert matmul_flops(lambda w, xs: jax.lax.map(lambda x: x @ w, xs), w, xs) == 7 * once
    both = lambda w, x: jax.lax.cond(x.sum() > 0, lambda: x @ w @ w, lambda: x @ w)  # noqa: E731
    assert matmul_flops(both, w, jax.ShapeDtypeStruct((4, 16), jnp.float32)) == 2 * once


@pytest.mark.parametrize("stride", [1, 2])
def test_a_gradient_is_twice_the_work_and_recomputation_once_more(stride: int) -> None:
    k, w = jax.ShapeDtypeStruct((3, 3, 6, 8), jnp.float32), jax.ShapeDtypeStruct((8, 8), jnp.float32)

    def block(x: jax.Array, k: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.tanh(jnp.tanh(conv(x, k, stride, "SAME")) @ w)

    def gradient(function):
        return jax.grad(lambda x, k, w: function(x, k, w).sum(), argnums=(0, 1, 2))

    forward = matmul_flops(block, X, k, w)
    assert matmul_flops(gradient(block), X, k, w) == pytest.approx(3 * forward, rel=0.01)
    remat = jax.checkpoint(block, policy=jax.checkpoint_policies.nothing_saveable)
    assert matmul_flops(gradient(remat), X, k, w) == pytest.approx(4 * forward, rel=0.01)
    assert forward == 2 * 4 * (8 // stride) ** 2 * (9 * 6 * 8 + 8 * 8)
