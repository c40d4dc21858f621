"""The benchmark: what it counts, on a toy training and a clock that only the test moves."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from ml_collections import ConfigDict

from configs.bench import data as bench
from tests import tiny
from vgen_jax.bench import data_loading
from vgen_jax.bench.data_loading import (
    ASSUMED_UTILISATION,
    H100_BF16_FLOPS,
    WARM_UP,
    Collecting,
    Loading,
    StepSpeed,
    estimate_step,
    markdown,
    stage_on_synthetic_data,
    time_collecting,
    time_loading,
    time_step,
)
from vgen_jax.data.records import read_info
from vgen_jax.learning.slow import Task
from vgen_jax.runs import benchmark
from vgen_jax.tasks.inputs import Batches, batches_config
from vgen_jax.tasks.registry import TASKS
from vgen_jax.types import VgenError

WIDTH = 32
COLLECTING = Collecting(1200.0, 1100.0, 2, 1300.0)


class Clock:
    """Stands still but for ``advance``."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(data_loading, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objective ``toy``: one matrix product a frame, compiled at once."""

    def loss(params, batch, rng):
        frames = batch.video_BTHWC.reshape(-1, WIDTH, batch.video_BTHWC[0, 0].size // WIDTH).astype(jnp.float32)
        value = ((params["w"] @ frames) ** 2).mean()
        return value, {"loss_again": value}

    def task(stage):
        return Task(lambda rng: {"w": jnp.ones((WIDTH, WIDTH))}, Partial(loss), Batches(batches_config(stage))), None

    monkeypatch.setitem(TASKS, "toy", task)


@pytest.fixture
def config(tmp_path: Path) -> ConfigDict:
    """``:tiny`` with the toy objective, on a data set that no simulator made."""
    config = ConfigDict(bench.get_config("tiny").to_dict())
    config.stage.objective.kind = "toy"
    config.stage.data.data_dir = str(tiny.write_dataset(tmp_path / "data"))
    config.benchmark.inputs = "given"
    config.stage.mesh.data = 8
    return config


def test_the_loader_is_timed_after_its_warm_up(
    config: ConfigDict, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_iterator, seconds = data_loading.make_iterator, iter([100.0] * WARM_UP + [0.5] * 4)

    def slow_iterator(*args):
        iterator = make_iterator(*args)
        load = iterator.__class__.__next__
        monkeypatch.setattr(iterator.__class__, "__next__", lambda self: (clock.advance(next(seconds)), load(self))[1])
        return iterator

    monkeypatch.setattr(data_loading, "make_iterator", slow_iterator)
    config.stage.data.windows, config.stage.data.window_weights = ((2, 2),), (1.0,)
    data = batches_config(config.stage)
    loading = time_loading(data, 4)
    assert loading == (data.batch_size / 0.5, 4 * data.batch_size / 0.5)


def test_steps_are_weighted_by_how_often_their_length_is_drawn(
    config: ConfigDict, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_update = data_loading.CompiledUpdate.__call__

    def slow_update(self, state, objective, batch):
        clock.advance(float(batch.video_BTHWC.shape[1]))
        return run_update(self, state, objective, batch)

    monkeypatch.setattr(data_loading.CompiledUpdate, "__call__", slow_update)
    config.stage.data.windows, config.stage.data.window_weights = ((2, 2), (1, 2)), (3.0, 1.0)
    step = time_step(config.stage, steps=2)
    assert not step.estimated
    assert math.isclose(step.windows_per_second, config.stage.data.batch_size / (0.75 * 4 + 0.25 * 3))


def test_an_estimate_follows_from_the_flops_of_a_window(config: ConfigDict) -> None:
    config.stage.data.windows, config.stage.data.window_weights = ((2, 2),), (1.0,)
    step = estimate_step(config.stage)
    product = 2 * WIDTH * tiny.SIZE**2 * 3 * 4  # of the four frames; its gradient takes another
    assert step.estimated
    assert 2 * product < step.tflop_per_window * 1e12 < 3 * product
    peak = step.windows_per_second * step.tflop_per_window * 1e12 / ASSUMED_UTILISATION
    assert math.isclose(peak, H100_BF16_FLOPS)


@pytest.mark.parametrize("stored", [False, True])
def test_made_inputs_can_be_trained_on(config: ConfigDict, tmp_path: Path, stored: bool) -> None:
    config.stage.objective.kind = "masked_diffusion"
    made = tmp_path / "made"
    made.mkdir()
    stage = stage_on_synthetic_data(config, Path(config.stage.data.data_dir), made, stored)
    task, _ = TASKS["masked_diffusion"](stage)
    batch = next(task.data)
    info = read_info(stage.data.data_dir)
    assert info.content == ("latents" if stored else "frames")
    assert batch.video_BTHWC.shape[2:] == info.frame_shape
    latents_BTHWC = jax.eval_shape(task.objective.args[0], batch.video_BTHWC)
    assert latents_BTHWC.shape[-1] == config.autoencoder.latent_channels


def test_a_run_writes_what_it_prints(
    config: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "time_collecting", lambda *args: COLLECTING)
    config.benchmark.estimate_on_cpu = True
    benchmark.run(config.lock(), tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["load_over_step"] == results["load_windows_per_second"] / results["step_windows_per_second"]
    assert results["step_is_an_estimate"]
    table = (tmp_path / "run" / benchmark.TABLE_FILE).read_text()
    assert table in capsys.readouterr().out
    assert "1,200 frames/s" in table and "estimated: 40% of one H100" in table
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "results.json", benchmark.TABLE_FILE}


def test_a_timed_step_is_not_called_an_estimate() -> None:
    step = StepSpeed(10.0, 0.1, estimated=False)
    table = markdown(COLLECTING, Loading(30.0, 240.0), step, {
        "device": "cpu", "cores": 2, "load_average_before": 0.0,
    })  # fmt: skip
    assert "estimated" not in table and "timed on cpu" in table and "| 3.0 |" in table


@pytest.mark.parametrize(("key", "value"), [("inputs", "none"), ("frames", 0), ("batches", 0), ("steps", 0)])
def test_what_cannot_be_timed_is_refused(config: ConfigDict, tmp_path: Path, key: str, value: object) -> None:
    config.benchmark[key] = value
    with pytest.raises(VgenError, match=f"benchmark.{key}"):
        benchmark.run(config, tmp_path / "run")


@pytest.mark.simulator
@pytest.mark.slow
def test_collecting_is_timed_on_the_simulator(config: ConfigDict, tmp_path: Path) -> None:
    collecting = time_collecting({**config.collect.to_dict(), "workers": 2}, 66, tmp_path / "made")
    assert collecting.processes == 2
    assert min(collecting.alone, collecting.together) > 0
    # A difference of two runs' CPU times, NaN where so few frames leave nothing after the start-up is taken off.
    assert not collecting.per_cpu_second <= 0
    info = read_info(tmp_path / "made" / "together")
    assert info.frames("train") == 132 and len(info.splits["train"]) == 2
    assert np.isfinite([collecting.alone, collecting.together]).all()
