"""Optimiser, learning rate and moving average."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vgen_jax.learning.state import OptimizerConfig, ema_update, init_state, learning_rate, make_optimizer
from vgen_jax.types import VgenError


def test_the_rate_warms_up_and_decays() -> None:
    rate = learning_rate(OptimizerConfig(learning_rate=2.0, warmup_steps=10, decay="cosine", decay_steps=110))
    values = np.asarray([rate(step) for step in (0, 5, 10, 60, 110, 500)])
    np.testing.assert_allclose(values, [0.0, 1.0, 2.0, 1.1, 0.2, 0.2], atol=1e-6)
    constant = learning_rate(OptimizerConfig(learning_rate=2.0, warmup_steps=4))
    np.testing.assert_allclose([constant(step) for step in (0, 2, 4, 1000)], [0, 1, 2, 2])


def test_adam_is_what_numpy_says() -> None:
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.1, b1=0.8, b2=0.9, eps=1e-3, clip=0.0))
    params, m, v = jnp.asarray([1.0, -2.0]), 0.0, 0.0
    expected, state = np.asarray(params), optimizer.init(params)
    for step in range(1, 6):
        grad = 2 * np.asarray(expected) + step
        m, v = 0.8 * m + 0.2 * grad, 0.9 * v + 0.1 * grad**2
        updates, state = optimizer.update(jnp.asarray(grad, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
        expected = expected - 0.1 * (m / (1 - 0.8**step)) / (np.sqrt(v / (1 - 0.9**step)) + 1e-3)
        np.testing.assert_allclose(params, expected, rtol=1e-5)


def test_the_gradient_is_clipped_by_its_global_norm() -> None:
    """Adam forgets a gradient's scale but for eps, which is therefore large here."""
    grads = {"a": jnp.asarray([30.0]), "b": jnp.asarray([40.0])}
    steps = {}
    for clip in (0.0, 1.0):
        optimizer = make_optimizer(OptimizerConfig(learning_rate=1.0, eps=1e6, clip=clip))
        steps[clip], _ = optimizer.update(grads, optimizer.init(grads), grads)
    np.testing.assert_allclose(steps[1.0]["b"], steps[0.0]["b"] / 50, rtol=1e-4)


def test_weight_decay_spares_biases() -> None:
    optimizer = make_optimizer(OptimizerConfig("adamw", learning_rate=0.5, weight_decay=0.1))
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05)
    np.testing.assert_array_equal(updates["bias"], 0.0)


def test_muon_makes_updates_of_named_kernels_nearly_orthogonal_and_leaves_the_rest_to_adam() -> None:
    shapes = {"body": {"kernel": (3, 3, 4, 8), "bias": (8,)}, "conv_out": {"kernel": (3, 3, 8, 4)}}
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32), shapes, is_leaf=is_shape)
    muon = make_optimizer(OptimizerConfig("muon", learning_rate=0.1, clip=0.0, muon_kernels="body/kernel$"))
    adam = optax.nadam(0.1)
    updates, _ = muon.update(grads, muon.init(grads), grads)
    plain, _ = adam.update(grads, adam.init(grads), grads)
    for other in (("body", "bias"), ("conv_out", "kernel")):
        np.testing.assert_allclose(updates[other[0]][other[1]], plain[other[0]][other[1]], rtol=1e-5)
    kernel = updates["body"]["kernel"].reshape(-1, 8)
    singular = np.linalg.svd(kernel, compute_uv=False)
    assert singular.min() > 0.5 * singular.max()  # of the gradient: 0.3 or less
    gradient = np.linalg.svd(grads["body"]["kernel"].reshape(-1, 8), compute_uv=False)
    assert singular.min() / singular.max() > gradient.min() / gradient.max()
    assert 0.5 < np.sqrt(np.mean(np.square(kernel))) / (0.1 * 0.4) < 1.5
    assert float(jnp.vdot(kernel, grads["body"]["kernel"].reshape(-1, 8))) < 0


def test_the_moving_average_starts_at_the_parameters_and_slows_down() -> None:
    state = init_state(lambda rng: {"w": jnp.ones(2)}, make_optimizer(OptimizerConfig()), jax.random.key(0))
    assert int(state.step) == 0
    np.testing.assert_array_equal(state.ema["w"], state.params["w"])
    ema, expected = {"w": jnp.zeros(1)}, 0.0
    for step in range(40):
        decay = min(0.7, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        ema = ema_update(ema, {"w": jnp.full(1, float(step))}, 0.7, jnp.asarray(step))
        np.testing.assert_allclose(ema["w"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (OptimizerConfig("sgd"), "optimizer.kind 'sgd'"),
        (OptimizerConfig("muon"), "optimizer.muon_kernels is empty"),
        (OptimizerConfig("muon", muon_kernels="no_such"), "optimizer.muon_kernels 'no_such' finds none"),
        (OptimizerConfig("muon", muon_kernels="bias"), "finds bias, which has 1 axis"),
        (OptimizerConfig(decay="linear"), "optimizer.decay 'linear'"),
        (OptimizerConfig(decay="cosine", decay_steps=5, warmup_steps=5), "optimizer.decay_steps 5 must exceed"),
    ],
)
def test_what_is_no_optimiser_is_refused(config: OptimizerConfig, named: str) -> None:
    with pytest.raises(VgenError, match=named):
        make_optimizer(config).init({"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)})
