"""Muon over stacks of equal kernels, beside optax's own, one kernel after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib

from vgen_jax.learning.state import MUON_RMS, OptimizerConfig, make_optimizer

SHAPES = {
    "wide": (3, 3, 4, 32), "tall": (3, 3, 16, 8), "same": (144, 8), "square": (16, 16), "near": (12, 16), "bias": (8,),
}  # fmt: skip
CONFIG = OptimizerConfig("muon", learning_rate=0.1, clip=0.0, weight_decay=0.01, muon_kernels="^(?!bias)")


def gradients(seed: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}


def test_its_updates_and_its_state_are_those_of_optax() -> None:
    def dimensions(params: dict[str, jax.Array]) -> dict[str, optax.contrib.MuonDimensionNumbers | None]:
        axes = lambda p: optax.contrib.MuonDimensionNumbers(tuple(range(p.ndim - 1)), p.ndim - 1)  # noqa: E731
        return {name: None if name == "bias" else axes(p) for name, p in params.items()}

    reference = optax.contrib.muon(
        optax.constant_schedule(0.1), weight_decay=0.01, adam_weight_decay=0.01, consistent_rms=MUON_RMS,
        muon_weight_dimension_numbers=dimensions,
        weight_decay_mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
    )  # fmt: skip
    ours = make_optimizer(CONFIG)
    params = gradients(0)
    states = [reference.init(params), ours.init(params)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    for seed in (1, 2, 3):
        wanted, states[0] = reference.update(gradients(seed), states[0], params)
        found, states[1] = ours.update(gradients(seed), states[1], params)
        for name in SHAPES:
            np.testing.assert_allclose(found[name], wanted[name], atol=2e-5, err_msg=name)
    for one, two in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)


def test_kernels_of_one_shape_do_not_mix() -> None:
    ours, first, second = make_optimizer(CONFIG), gradients(1), gradients(2)
    both = {"a": first["tall"], "b": second["tall"]}
    updates, _ = ours.update(both, ours.init(both), both)
    for name, kernel in both.items():
        alone = {"a": kernel}
        np.testing.assert_allclose(updates[name], ours.update(alone, ours.init(alone), alone)[0]["a"], atol=1e-6)
