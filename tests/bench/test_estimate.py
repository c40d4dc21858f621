"""The estimate of a training: from a few of its steps, leaving nothing behind that the training minds."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.learning.test_slow import CONFIG, OPTIMIZER, Numbers, task
from vgen_jax.bench.estimate import DRAWN, TIMED, TrainingEstimate, estimate, lines
from vgen_jax.devices.sharding import MeshConfig
from vgen_jax.files.run_folder import resolved
from vgen_jax.runs import estimate as run_estimate
from vgen_jax.runs import train

GIVEN = TrainingEstimate(
    parameters=5_000_000, samples=8, frames=32.0, compile_seconds=36.0, step_seconds=0.9, load_seconds=0.1, steps=3564,
    memory_mib=1024.0, memory_limit_mib=16384.0, state_mib=80.0, disk_mib=260.0, disk_free_mib=1000.0,
)  # fmt: skip


def test_hours_follow_from_the_steps() -> None:
    assert GIVEN.hours == pytest.approx(1.0) and GIVEN.hours_to(32 * 3600) == pytest.approx(1.0)
    assert GIVEN.fits
    assert not dataclasses.replace(GIVEN, memory_mib=16000.0).fits
    assert not dataclasses.replace(GIVEN, disk_mib=1001.0).fits
    assert dataclasses.replace(GIVEN, memory_limit_mib=0.0, memory_mib=1e9).fits, "nobody knows"
    text = "\n".join(lines(GIVEN, (1e6,)))
    assert "60 min for 3,564 steps (114,048 frames)" in text and "8.7 h to 1,000,000 frames" in text
    assert lines(dataclasses.replace(GIVEN, disk_mib=1001.0))[-1].startswith("fits      no")


class Two(Numbers):
    """Every fourth batch is twice as long."""

    def __next__(self) -> dict[str, np.ndarray]:
        batch = super().__next__()
        return batch if self.position % 4 else {"x": np.concatenate([batch["x"]] * 2)}


def test_every_shape_counts_as_often_as_it_comes(tmp_path: Path) -> None:
    data = Two()
    found = estimate(task(data), CONFIG, OPTIMIZER, MeshConfig(), tmp_path / "run")
    assert data.position == 1 + DRAWN, "batches are only drawn to be timed"
    assert found.parameters == 3 and found.frames == 0 and found.steps == CONFIG.steps
    assert found.step_seconds > 0 and found.load_seconds > 0 and found.memory_mib > 0 and TIMED == 3
    # Parameters, their moving average, Adam's two moments, and a few counters.
    assert 4 * 3 * 4 <= found.state_mib * 2**20 <= 4 * 3 * 4 + 40
    assert found.disk_mib == pytest.approx((CONFIG.keep + 1) * found.state_mib + 12 / 2**20)


@pytest.mark.slow
def test_the_training_starts_in_the_same_folder_afterwards(tmp_path: Path) -> None:
    tiny.write_dataset(tmp_path / "data")
    config = tiny.config("autoencoder", {"data.data_dir": "@data", "train.steps": 2, "train.checkpoint_every": 2})
    workdir = tmp_path / "autoencoder"
    with config.unlocked():
        config.run = "estimate"
    run_estimate.run(resolved(config, workdir), workdir)
    found = json.loads((workdir / "estimate.json").read_text())
    assert found["fits"] and found["frames"] == 8.0 and found["steps"] == 2
    assert [path.name for path in workdir.iterdir()] == ["estimate.json"]
    with config.unlocked():
        config.run = "train"
    train.run(resolved(config, workdir), workdir)
    assert (workdir / "export").is_dir()
