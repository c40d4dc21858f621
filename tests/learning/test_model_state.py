"""What updates change without a gradient, on batch normalisation before a linear layer."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vgen_jax.devices import sharding
from vgen_jax.files.exports import export, load_export
from vgen_jax.learning.slow import Task, TrainConfig, train
from vgen_jax.learning.state import MODEL_STATE, OptimizerConfig, TrainState, divided, joined, learnt
from vgen_jax.types import Array, Key, Params, VgenError

CONFIG = TrainConfig(steps=6, log_every=2, checkpoint_every=2, ema_decay=0.5)
MOMENTUM, EPSILON, BATCH = 0.75, 1e-5, 16


class Crash(Exception):
    """Stands for whatever ends a process."""


class Numbers:
    """Batches that are a function of their number, of another mean than 0; that numbered ``end`` crashes."""

    def __init__(self, end: int | None = None):
        self.position, self._end = 0, end

    def __next__(self) -> dict[str, np.ndarray]:
        self.position += 1
        if self.position == self._end:
            raise Crash
        return {"x": rows(self.position)}

    def get_state(self) -> dict[str, Any]:
        return {"position": self.position}

    def set_state(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


def rows(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal([1.0, -2.0, number], [1.0, 2.0, 0.5], (BATCH, 3)).astype(np.float32)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        return nn.Dense(1)(nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM, epsilon=EPSILON)(x))


def init(rng: Key) -> Params:
    variables = Net().init(rng, jnp.zeros((1, 3)), train=False)
    return {**variables["params"], MODEL_STATE: variables["batch_stats"]}


def loss(params: Params, model_state: Any, batch: dict[str, Array], rng: Key) -> tuple[Array, dict[str, Array], Any]:
    variables = {"params": params, "batch_stats": model_state}
    out, after = Net().apply(variables, batch["x"], train=True, mutable=["batch_stats"])
    return ((out[:, 0] - batch["x"].sum(1)) ** 2).mean(), {}, after["batch_stats"]


def stateless(params: Params, batch: dict[str, Array], rng: Key) -> tuple[Array, dict[str, Array]]:
    return loss(params, {"BatchNorm_0": {"mean": jnp.zeros(3), "var": jnp.ones(3)}}, batch, rng)[:2]


def run(workdir: Path, config: TrainConfig = CONFIG, end: int | None = None, mesh: Any = None, **changes: Any) -> Any:
    task = dataclasses.replace(Task(init, Partial(loss), Numbers(end)), **changes)
    return train(task, config, OptimizerConfig(learning_rate=0.05), mesh or sharding.MeshConfig(), workdir)


def averages(parts: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Running mean and variance after the whole training, each batch cut in ``parts``."""
    mean, variance = np.zeros(3), np.ones(3)
    for number in range(1, CONFIG.steps + 1):
        for part in range(parts):
            x = rows(number)[part::parts].astype(np.float64)
            mean = MOMENTUM * mean + (1 - MOMENTUM) * x.mean(0)
            variance = MOMENTUM * variance + (1 - MOMENTUM) * x.var(0)
    return mean, variance


def assert_same(a: TrainState, b: TrainState) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("parts", [1, 4])
def test_running_averages_are_what_numpy_says(tmp_path: Path, parts: int) -> None:
    """Micro-batches are batches of their own, one after the other."""
    found = run(tmp_path, dataclasses.replace(CONFIG, accumulate=parts)).model_state["BatchNorm_0"]
    mean, variance = averages(parts)
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-4)
    np.testing.assert_allclose(found["var"], variance, rtol=1e-4)


def test_an_export_is_evaluated_with_the_running_averages(tmp_path: Path) -> None:
    state = run(tmp_path)
    export(tmp_path / "export", sharding.gathered(learnt(state), sharding.make_mesh(sharding.MeshConfig())), {})
    params, model_state = divided(load_export(tmp_path / "export")[0])
    jax.tree.map(np.testing.assert_array_equal, params, state.ema)
    found = Net().apply({"params": params, "batch_stats": model_state}, rows(0), train=False)
    mean, variance = averages()
    normal = (rows(0) - mean) / np.sqrt(variance + EPSILON)
    scaled = normal * params["BatchNorm_0"]["scale"] + params["BatchNorm_0"]["bias"]
    wanted = scaled @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("end", [2, 4])
def test_a_crash_changes_nothing(tmp_path: Path, end: int) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(Crash):
        run(tmp_path / "crashed", end=end)
    assert_same(run(tmp_path / "crashed"), whole)


def test_the_mesh_does_not_change_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean is over the whole batch, not over a device's rows; statistics are split where parameters would be."""
    mesh = sharding.MeshConfig(fsdp=2, rules=(("model_state/.*mean", -1), (".*kernel", -1)), min_size=1)
    wide = {"init": widened, "objective": Partial(wide_loss)}
    found = run(tmp_path / "many", mesh=mesh, **wide)
    assert {shard.data.size for shard in found.model_state["centre"].addressable_shards} == {2}
    monkeypatch.setattr(sharding.jax, "devices", lambda: jax.local_devices()[:1])
    single = run(tmp_path / "one", **wide)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, single)


def widened(rng: Key) -> Params:
    """With model state whose size two devices divide."""
    params, model_state = divided(init(rng))
    return joined(params, {**model_state, "centre": jnp.zeros(4)})


def wide_loss(params: Params, model_state: Any, batch: dict[str, Array], rng: Key) -> Any:
    norm = {"BatchNorm_0": model_state["BatchNorm_0"]}
    value, aux, after = loss(params, norm, batch, rng)
    return value, aux, {**after, "centre": 0.5 * model_state["centre"] + batch["x"][:, :1].mean()}


def test_a_start_may_know_the_model_state(tmp_path: Path) -> None:
    def start(params: Params) -> Params:
        return {**params, MODEL_STATE: jax.tree.map(lambda x: x + 100, params[MODEL_STATE])}

    one = dataclasses.replace(CONFIG, steps=1)
    found = [
        run(tmp_path / str(i), one, start=s).model_state["BatchNorm_0"]["mean"] for i, s in enumerate((None, start))
    ]
    np.testing.assert_allclose(found[1] - found[0], 100 * MOMENTUM, rtol=1e-5)


@pytest.mark.parametrize(
    ("first", "named"), [(True, "has model state, which this network has not"), (False, MODEL_STATE)]
)
def test_a_checkpoint_of_the_other_kind_is_refused(tmp_path: Path, first: bool, named: str) -> None:
    plain: dict[str, Callable] = {"init": lambda rng: divided(init(rng))[0], "objective": Partial(stateless)}
    run(tmp_path, dataclasses.replace(CONFIG, steps=2), **({} if first else plain))
    assert (tmp_path / "checkpoints" / "2" / MODEL_STATE).is_dir() == first
    with pytest.raises(VgenError, match=f"checkpoint {tmp_path}.*{named}") as error:
        run(tmp_path, **(plain if first else {}))
    assert "\n" not in str(error.value)
