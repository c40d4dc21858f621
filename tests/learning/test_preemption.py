"""A training that is killed, however and whenever, and started again equals one that was left alone, bit for bit."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests import tiny
from vgen_jax.files.log import METRICS_FILE, read_metrics

STEPS, EVERY = 60, 10
FLAGS = (f"--config.train.steps={STEPS}", "--config.train.log_every=1", f"--config.train.checkpoint_every={EVERY}")
CONFIGS = {
    "autoencoder": (
        "--config.autoencoder.block_channels=(8,)", "--config.autoencoder.patch=4", "--config.data.batch_size=8",
    ),
    "slow": (
        "--config.slow.unet.block_channels=(8,)", "--config.slow.unet.attention_levels=(False,)",
        "--config.slow.unet.transformer_in_heads=1", "--config.data.windows=((2,2),)",
        "--config.data.window_weights=(1.0,)", "--config.data.data_dir=@data", "--config.data.batch_size=4",
        "--config.slow.text.width=0", "--config.data.token_length=0",
    ),
}  # fmt: skip


class Trainings:
    """Runs of one config, each in its own folder beside one data set."""

    def __init__(self, folder: Path, stage: str):
        self.folder, self._stage = folder, stage

    def start(self, name: str) -> subprocess.Popen[str]:
        return tiny.start(f"{tiny.CONFIG}.{self._stage}", self.folder / name, *CONFIGS[self._stage], *FLAGS)

    def finish(self, name: str) -> None:
        process = self.start(name)
        errors = process.communicate()[1]
        assert process.returncode == 0, errors

    def stop(self, name: str, ready: Callable[[Path], bool], number: int) -> int:
        """Sends a signal as soon as ``ready(workdir)``; returns the exit status."""
        process = self.start(name)
        while not ready(self.folder / name):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.001)
        process.send_signal(number)
        process.communicate()
        return process.returncode

    def result(self, name: str) -> tuple[dict[str, np.ndarray], bytes, str]:
        """The last checkpoint's arrays by name, the metrics and the data position."""
        step = self.folder / name / "checkpoints" / str(STEPS)
        arrays = {}
        for item in ("params", "ema", "optimizer"):
            tree = ocp.StandardCheckpointer().restore(step / item)
            arrays |= {f"{item}/{k}": np.asarray(v) for k, v in ocp.tree.to_flat_dict(tree, sep="/").items()}
        position = next((step / "data").glob("metadata")).read_text()
        return arrays, (self.folder / name / METRICS_FILE).read_bytes(), position


def after(step: int) -> Callable[[Path], bool]:
    """True once that step is logged."""

    def ready(workdir: Path) -> bool:
        path = workdir / METRICS_FILE
        return path.is_file() and path.read_bytes().count(b"\n") >= step

    return ready


def while_saving(workdir: Path) -> bool:
    """True while a checkpoint is being written, beside one that is complete."""
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    return any("tmp" in name for name in names) and any(name.isdigit() for name in names)


def assert_same(trainings: Trainings, name: str) -> None:
    (arrays, metrics, position), (whole, whole_metrics, whole_position) = map(trainings.result, (name, "whole"))
    assert arrays.keys() == whole.keys() and position == whole_position
    for key in whole:
        np.testing.assert_array_equal(arrays[key], whole[key], err_msg=key)
    assert metrics == whole_metrics


@pytest.fixture(scope="module")
def autoencoders(tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    trainings = Trainings(tmp_path_factory.mktemp("autoencoders"), "autoencoder")
    tiny.write_dataset(trainings.folder / "data")
    trainings.finish("whole")
    return trainings


@pytest.mark.slow
def test_the_whole_training(autoencoders: Trainings) -> None:
    logged = read_metrics(autoencoders.folder / "whole" / METRICS_FILE)
    assert [entry["step"] for entry in logged] == list(range(1, STEPS + 1))
    assert logged[-1]["loss"] < logged[0]["loss"]
    position = json.loads(autoencoders.result("whole")[2])
    assert position == {"batch": STEPS}


@pytest.mark.slow
def test_killed_in_the_middle(autoencoders: Trainings) -> None:
    assert autoencoders.stop("killed", after(25), signal.SIGKILL) == -signal.SIGKILL
    assert not (autoencoders.folder / "killed" / "checkpoints" / str(STEPS)).exists()
    autoencoders.finish("killed")
    assert_same(autoencoders, "killed")


@pytest.mark.slow
def test_asked_to_stop(autoencoders: Trainings) -> None:
    assert autoencoders.stop("stopped", after(23), signal.SIGTERM) == 143
    steps = [int(path.name) for path in (autoencoders.folder / "stopped" / "checkpoints").glob("*")]
    assert 23 <= max(steps) < STEPS, "the state was saved where it was asked to stop"
    autoencoders.finish("stopped")
    assert_same(autoencoders, "stopped")


@pytest.mark.long
def test_killed_while_saving(autoencoders: Trainings) -> None:
    for _ in range(5):
        shutil.rmtree(autoencoders.folder / "saving", ignore_errors=True)
        assert autoencoders.stop("saving", while_saving, signal.SIGKILL) == -signal.SIGKILL
        left = list((autoencoders.folder / "saving" / "checkpoints").glob("*tmp*"))
        if left:  # else the save ended between the look and the signal
            break
    assert left
    autoencoders.finish("saving")
    assert_same(autoencoders, "saving")
    assert not list((autoencoders.folder / "saving" / "checkpoints").glob("*tmp*"))


@pytest.mark.long  # the same loop with another objective
def test_a_diffusion_model_killed_in_the_middle(autoencoders: Trainings) -> None:
    trainings = Trainings(autoencoders.folder / "slow", "slow")
    trainings.folder.mkdir()
    (trainings.folder / "data").symlink_to(autoencoders.folder / "data")
    (trainings.folder / "autoencoder").symlink_to(autoencoders.folder / "whole")
    trainings.finish("whole")
    assert trainings.stop("killed", after(25), signal.SIGKILL) == -signal.SIGKILL
    trainings.finish("killed")
    assert_same(trainings, "killed")
