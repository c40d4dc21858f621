"""The training loop, on a linear regression that compiles at once."""

import dataclasses
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vgen_jax.devices.preemption import Preempted
from vgen_jax.devices.sharding import MeshConfig
from vgen_jax.files.log import METRICS_FILE, read_metrics
from vgen_jax.learning.checkpoint import Checkpoints
from vgen_jax.learning.slow import Task, TrainConfig, train
from vgen_jax.learning.state import OptimizerConfig, TrainState
from vgen_jax.types import Array, Key, Params, VgenError

CONFIG = TrainConfig(steps=12, log_every=3, checkpoint_every=4, keep=3, ema_decay=0.5)
OPTIMIZER = OptimizerConfig(learning_rate=0.05, warmup_steps=3)
BATCH = 16


class Crash(Exception):
    """Stands for whatever ends a process."""


class Numbers:
    """Batches that are a function of their number; ``at`` calls a function before the batch of that number."""

    def __init__(self, at: dict[int, Callable[[np.ndarray], np.ndarray]] | None = None):
        self.position, self._at = 0, at or {}

    def __next__(self) -> dict[str, np.ndarray]:
        x = np.random.default_rng(self.position).normal(size=(BATCH, 3)).astype(np.float32)
        self.position += 1
        if self.position in self._at:
            x = self._at[self.position](x)
        return {"x": x}

    def get_state(self) -> dict[str, Any]:
        return {"position": self.position}

    def set_state(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


def loss(noise: float, target: Array, params: Params, batch: dict[str, Array], rng: Key):
    wanted = batch["x"] @ target + noise * jax.random.normal(rng, (batch["x"].shape[0],))
    error = ((batch["x"] @ params["w"] - wanted) ** 2).mean()
    return error, {"double": 2 * error}


def task(data: Numbers, noise: float = 0.1, objective: Callable = loss) -> Task:
    init = lambda rng: {"w": jax.random.normal(rng, (3,))}  # noqa: E731
    return Task(init, Partial(partial(objective, noise), jnp.asarray([1.0, -2.0, 3.0])), data)


def run(workdir: Path, config: TrainConfig = CONFIG, at: dict | None = None, **changes: Any) -> TrainState:
    return train(task(Numbers(at), **changes), config, OPTIMIZER, MeshConfig(), workdir)


def crash(x: np.ndarray) -> np.ndarray:
    raise Crash


def terminate(x: np.ndarray) -> np.ndarray:
    os.kill(os.getpid(), signal.SIGTERM)
    return x


def assert_same(a: TrainState, b: TrainState) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_it_learns_and_logs(tmp_path: Path) -> None:
    state = run(tmp_path, dataclasses.replace(CONFIG, steps=300, log_every=100, checkpoint_every=300), noise=0.0)
    np.testing.assert_allclose(state.params["w"], [1, -2, 3], atol=0.05)
    logged = read_metrics(tmp_path / METRICS_FILE)
    assert [entry["step"] for entry in logged] == [1, 100, 200, 300]
    assert set(logged[0]) == {"step", "loss", "double", "grad_norm"}
    assert logged[-1]["loss"] < 1e-2 < logged[0]["loss"]


def test_known_parameters_are_started_from_once(tmp_path: Path) -> None:
    calls = []

    def start(params: Params) -> Params:
        calls.append(params["w"])
        return {"w": np.asarray([1.0, -2.0, 3.0], np.float32)}

    def go(steps: int) -> TrainState:
        known = dataclasses.replace(task(Numbers(), noise=0.0), start=start)
        return train(known, dataclasses.replace(CONFIG, steps=steps), OPTIMIZER, MeshConfig(), tmp_path)

    for state in (go(4), go(12)):
        for found in (state.params["w"], state.ema["w"]):
            np.testing.assert_allclose(found, [1, -2, 3], atol=1e-4)
    assert len(calls) == 1 and calls[0].shape == (3,), "a restored state is not started again"


@pytest.mark.parametrize("place", [3, 5, 9, 12])
def test_a_crash_changes_nothing(tmp_path: Path, place: int) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(Crash):
        run(tmp_path / "crashed", at={place: crash})
    assert_same(run(tmp_path / "crashed"), whole)
    logs = [(tmp_path / name / METRICS_FILE).read_bytes() for name in ("whole", "crashed")]
    assert logs[0] == logs[1]


def test_sigterm_saves_and_changes_nothing(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(Preempted) as stopped:
        run(tmp_path / "stopped", at={6: terminate})
    assert stopped.value.code == 143 and stopped.value.step == 6
    assert Checkpoints(tmp_path / "stopped" / "checkpoints").latest_step() == 6
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert_same(run(tmp_path / "stopped"), whole)
    logs = [(tmp_path / name / METRICS_FILE).read_bytes() for name in ("whole", "stopped")]
    assert logs[0] == logs[1]


def test_a_finished_training_stays_as_it_is(tmp_path: Path) -> None:
    first = run(tmp_path)
    assert_same(run(tmp_path, at={1: crash}), first)


def test_a_training_can_be_made_longer(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    run(tmp_path / "longer", dataclasses.replace(CONFIG, steps=7))
    assert_same(run(tmp_path / "longer"), whole)


def test_a_loss_that_is_not_finite_stops_it(tmp_path: Path) -> None:
    good = "the last good checkpoint is .*/checkpoints/4: "
    with pytest.raises(VgenError, match=f"loss is nan at step 6; {good}") as error:
        run(tmp_path, at={6: lambda x: x * np.nan})
    assert "\n" not in str(error.value)
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 4


def test_a_gradient_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    def objective(noise: float, target: Array, params: Params, batch: dict[str, Array], rng: Key):
        return jnp.sqrt((params["w"] * 0.0).sum() ** 2), {}

    with pytest.raises(VgenError, match="grad_norm is nan at step 1; none was saved"):
        run(tmp_path, dataclasses.replace(CONFIG, checkpoint_every=1), objective=objective)


def test_accumulation_is_the_mean_over_the_parts(tmp_path: Path) -> None:
    whole = run(tmp_path / "1", noise=0.0)
    for parts in (2, 16):
        state = run(tmp_path / str(parts), dataclasses.replace(CONFIG, accumulate=parts), noise=0.0)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), state, whole)


def test_steps_and_parts_do_not_share_their_noise(tmp_path: Path) -> None:
    def objective(noise: float, target: Array, params: Params, batch: dict[str, Array], rng: Key):
        return params["w"].sum() * 0.0, {"draw": jax.random.normal(rng), "square": jax.random.normal(rng) ** 2}

    run(tmp_path, dataclasses.replace(CONFIG, log_every=1, accumulate=4), objective=objective)
    logged = read_metrics(tmp_path / METRICS_FILE)
    assert len({entry["draw"] for entry in logged}) == CONFIG.steps
    assert abs(logged[0]["square"] - logged[0]["draw"] ** 2) > 1e-3


def test_what_does_not_divide_is_named(tmp_path: Path) -> None:
    with pytest.raises(VgenError, match="train.accumulate 3 does not divide the batch of 16"):
        run(tmp_path, dataclasses.replace(CONFIG, accumulate=3))
    with pytest.raises(VgenError, match="9 rows of a batch do not divide over 8 devices: change data.batch_size"):
        run(tmp_path, at={1: lambda x: x[:9]})


@pytest.mark.parametrize("name", ["steps", "log_every", "checkpoint_every", "keep", "accumulate"])
def test_what_is_no_loop_is_refused(name: str) -> None:
    with pytest.raises(VgenError, match=f"train.{name} is 0"):
        TrainConfig(**{name: 0})
    with pytest.raises(VgenError, match="train.ema_decay is 1"):
        TrainConfig(ema_decay=1.0)


def test_samples_are_left_and_change_nothing(tmp_path: Path) -> None:
    def sample(params: Params, key: Key) -> np.ndarray:
        return np.full((3, 8, 8, 3), min(255, int(100 + 10 * abs(params["w"][0]))), np.uint8)

    plain = run(tmp_path / "plain")
    for name, minutes, count in (("every", 1e-9, 12), ("last", 60.0, 1), ("none", 0.0, 0)):
        config = dataclasses.replace(CONFIG, sample_minutes=minutes)
        shown = dataclasses.replace(task(Numbers()), sample=sample)
        state = train(shown, config, OPTIMIZER, MeshConfig(), tmp_path / name)
        assert_same(state, plain)
        assert (tmp_path / name / METRICS_FILE).read_bytes() == (tmp_path / "plain" / METRICS_FILE).read_bytes()
        assert len(list((tmp_path / name).glob("samples/step_*.mp4"))) == count
    assert (tmp_path / "last" / "samples" / "step_000012.mp4").is_file()
    assert (tmp_path / "last" / "samples" / "latest.png").is_file()
