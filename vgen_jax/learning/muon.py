"""Muon (Jordan et al. 2024) with optax's momentum and scales, its matrix iteration over stacks of equal kernels.

The iteration of a kernel X, inputs × outputs with the shorter side first, is X <- (a I + b A + c A²) X with A = X Xᵀ,
five times. Each factor is a polynomial in the first A, so that the factors and the next A follow from n × n matrices
alone, and the long side is met twice in all instead of ten times. One stack of all kernels of a shape is a few batched
products where one by one would be thousands of small operations to compile and to run.
"""

from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from vgen_jax.types import Array

STEPS = 5
BETA = 0.95  # of the momentum
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan et al. 2024
EPS = 1e-8
WIDE = 2  # from how many times as long as wide the way over n × n matrices pays


def scale_by_muon() -> optax.GradientTransformation:
    """``optax.contrib.scale_by_muon``, its Nesterov momentum and its state, with ``orthogonalized``."""

    def init(params: Any) -> optax.contrib.MuonState:
        return optax.contrib.MuonState(
            jnp.zeros((), jnp.int32), optax.tree.zeros_like(params), jnp.asarray(COEFFICIENTS)
        )

    def update(updates: Any, state: optax.contrib.MuonState, params: Any = None) -> tuple[Any, Any]:
        del params
        count = optax.safe_increment(state.count)
        mu = optax.tree.update_moment(updates, state.mu, BETA, 1)
        ahead = optax.tree.bias_correction(mu, BETA, optax.safe_increment(count))
        now = optax.tree.bias_correction(updates, BETA, count)
        momentum = jax.tree.map(lambda m, g: BETA * m + (1 - BETA) * g, ahead, now)
        return orthogonalized(momentum), optax.contrib.MuonState(count, mu, state.ns_coeffs)

    return optax.GradientTransformation(init, update)


def scale_by_shape(rms: float) -> optax.GradientTransformation:
    """Updates of orthogonal kernels with a root mean square of ``rms`` whatever their shape (Liu et al. 2025)."""

    def scaled(x: Array) -> Array:
        return jnp.sqrt(jnp.maximum(x.size / x.shape[-1], x.shape[-1])) * rms * x

    return optax.stateless(lambda updates, _: jax.tree.map(scaled, updates))


def orthogonalized(kernels: Any) -> Any:
    """Each kernel, (…, outputs), with its singular values brought near 1; the axes before the last are its inputs."""
    leaves, tree = jax.tree.flatten(kernels)
    same: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, leaf in enumerate(leaves):
        same[(leaf.size // leaf.shape[-1], leaf.shape[-1])].append(number)
    found = list(leaves)
    for (inputs, outputs), numbers in same.items():
        stack_NIO = jnp.stack([leaves[n].reshape(inputs, outputs) for n in numbers])
        tall = inputs > outputs
        done = iteration(stack_NIO.mT if tall else stack_NIO)
        done = done.mT if tall else done
        for k, n in enumerate(numbers):
            found[n] = done[k].reshape(leaves[n].shape)
    return jax.tree.unflatten(tree, found)


def iteration(x_NIO: Array) -> Array:
    """The Newton-Schulz iteration of a stack of matrices, (N, n, m) with n <= m; float32."""
    x = x_NIO / (jnp.linalg.norm(x_NIO, axis=(-2, -1), keepdims=True) + EPS)
    a, b, c = COEFFICIENTS
    unit = jnp.eye(x.shape[-2], dtype=x.dtype)
    wide = x.shape[-1] >= WIDE * x.shape[-2]
    gram, product = x @ x.mT, unit
    for _ in range(STEPS):
        factor = a * unit + b * gram + c * (gram @ gram)
        if wide:
            product, gram = factor @ product, factor @ gram @ factor
        else:
            x = factor @ x
            gram = x @ x.mT
    return product @ x if wide else x
