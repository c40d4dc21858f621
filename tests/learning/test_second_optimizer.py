"""Two optimisers, on a generator and a discriminator of one number each axis."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vgen_jax.config import section
from vgen_jax.devices.sharding import MeshConfig
from vgen_jax.learning.slow import Task, TrainConfig, train
from vgen_jax.learning.state import OptimizerConfig, SecondOptimizer, TrainState, make_optimizer
from vgen_jax.types import Array, Key, Params, VgenError

FIRST, SECOND = 0.1, 0.02
CONFIG = TrainConfig(steps=6, log_every=2, checkpoint_every=2)


class Numbers:
    """Batches that are a function of their number."""

    position = 0

    def __next__(self) -> dict[str, np.ndarray]:
        self.position += 1
        return {"x": np.random.default_rng(self.position).normal(2.0, 1.0, (8, 3)).astype(np.float32)}

    def get_state(self) -> dict[str, Any]:
        return {"position": self.position}

    def set_state(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


def init(rng: Key) -> Params:
    generator, discriminator = jax.random.normal(rng, (2, 3))
    return {"generator": {"shift": generator}, "discriminator": {"kernel": discriminator}}


def adversarial(params: Params, batch: dict[str, Array], rng: Key) -> tuple[Array, dict[str, Array]]:
    """Each loss has a gradient into its own part alone."""
    fake = jax.random.normal(rng, (8, 3)) + params["generator"]["shift"]
    judge = lambda kernel, x: jax.nn.sigmoid(x @ kernel).mean()  # noqa: E731
    kernel, frozen = params["discriminator"]["kernel"], jax.lax.stop_gradient(params["discriminator"]["kernel"])
    fooled = -judge(frozen, fake)
    told_apart = judge(kernel, jax.lax.stop_gradient(fake)) - judge(kernel, batch["x"])
    return fooled + told_apart, {"fooled": fooled, "told_apart": told_apart}


def optimizer(second: float = SECOND, pattern: str = "^discriminator/", **changes: Any) -> OptimizerConfig:
    return OptimizerConfig(
        learning_rate=FIRST, clip=0.0, second=SecondOptimizer(pattern, OptimizerConfig(learning_rate=second, **changes))
    )


def run(workdir: Path, steps: int = CONFIG.steps, of: OptimizerConfig | None = None) -> TrainState:
    config = dataclasses.replace(CONFIG, steps=steps)
    return train(Task(init, Partial(adversarial), Numbers()), config, of or optimizer(), MeshConfig(), workdir)


def moved(state: TrainState) -> dict[str, np.ndarray]:
    """How far the first step has moved each part."""
    before = init(jax.random.key(CONFIG.seed))
    return {part: np.abs(jax.tree.leaves(state.params[part])[0] - jax.tree.leaves(before[part])[0]) for part in before}


def test_each_part_moves_at_its_own_rate(tmp_path: Path) -> None:
    """Adam's first step is as long as the rate, whatever the gradient."""
    found = moved(run(tmp_path / "both", 1))
    np.testing.assert_allclose(found["generator"], FIRST, rtol=1e-3)
    np.testing.assert_allclose(found["discriminator"], SECOND, rtol=1e-3)
    single = moved(run(tmp_path / "one", 1, OptimizerConfig(learning_rate=FIRST, clip=0.0)))
    np.testing.assert_allclose(single["discriminator"], FIRST, rtol=1e-3)


def test_a_part_is_clipped_by_its_own_norm() -> None:
    """Adam forgets a gradient's scale but for eps, which is therefore large here."""
    grads = {"generator": {"shift": jnp.asarray([300.0])}, "discriminator": {"kernel": jnp.asarray([30.0, 40.0])}}
    updates = []
    for clip in (0.0, 1.0):
        both = make_optimizer(optimizer(1.0, eps=1e6, clip=clip))
        updates.append(both.update(grads, both.init(grads), grads)[0]["discriminator"]["kernel"])
    np.testing.assert_allclose(updates[1], updates[0] / 50, rtol=1e-4)


def test_muon_has_the_kernels_of_its_part_alone() -> None:
    params = {
        "generator": {"kernel": jnp.ones((4, 4))},
        "discriminator": {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)},
    }
    second = OptimizerConfig("muon", learning_rate=SECOND, clip=0.0, muon_kernels="kernel$")
    both, alone = make_optimizer(OptimizerConfig(second=SecondOptimizer("^disc", second))), make_optimizer(second)
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(1), p.shape), params)
    found, _ = both.update(grads, both.init(params), params)
    part = params["discriminator"]
    wanted, _ = alone.update(grads["discriminator"], alone.init(part), part)
    jax.tree.map(np.testing.assert_array_equal, found["discriminator"], wanted)


def test_a_resumed_training_is_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    run(tmp_path / "stopped", 2)
    found = run(tmp_path / "stopped")
    assert jax.tree.structure(found) == jax.tree.structure(whole)
    jax.tree.map(np.testing.assert_array_equal, found, whole)


def test_a_checkpoint_of_one_optimiser_is_refused(tmp_path: Path) -> None:
    run(tmp_path, 2, OptimizerConfig(learning_rate=FIRST, clip=0.0))
    with pytest.raises(VgenError, match="does not fit this configuration"):
        run(tmp_path)


def test_it_is_a_section_of_the_config() -> None:
    plain = {name: value for name, value in dataclasses.asdict(OptimizerConfig()).items() if name != "second"}
    second = {"parameters": "^discriminator/", "optimizer": {**plain, "learning_rate": SECOND}}
    found = section(OptimizerConfig, {**plain, "second": second}, "optimizer")
    assert found.second == SecondOptimizer("^discriminator/", OptimizerConfig(learning_rate=SECOND))
    assert section(OptimizerConfig, plain, "optimizer").second is None
    with pytest.raises(VgenError, match="optimizer.second.optimizer.second is set"):
        section(OptimizerConfig, {**plain, "second": {**second, "optimizer": {**plain, "second": second}}}, "optimizer")


@pytest.mark.parametrize(("pattern", "named"), [("no_such", "none"), ("", "all")])
def test_a_part_that_is_none_is_refused(pattern: str, named: str) -> None:
    with pytest.raises(VgenError, match=f"optimizer.second.parameters '{pattern}' finds {named} of the parameters"):
        make_optimizer(optimizer(pattern=pattern)).init(init(jax.random.key(0)))
