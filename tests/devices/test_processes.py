"""A training over several processes: the same as over one, it ends when one of them does, and goes on with others.

Started by ``launch/local.sh``, the rehearsal of what a pod or a cluster runs.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from vgen_jax.devices.sharding import HEARTBEAT_SECONDS
from vgen_jax.files.log import METRICS_FILE, read_metrics
from vgen_jax.main import LOST_PROCESS_STATUS

STEPS, EVERY = 30, 6
DEVICES = 4  # of all processes together
FLAGS = {
    "autoencoder.block_channels": (8,), "autoencoder.patch": 4, "data.batch_size": 8, "train.steps": STEPS,
    "train.log_every": 1, "train.checkpoint_every": EVERY, "mesh.fsdp": 2, "mesh.min_size": 64,
}  # fmt: skip
ENDLESS = {"train.steps": 1_000_000}


class Trainings:
    """Trainings in folders beside one data set."""

    def __init__(self, folder: Path):
        self._folder = folder
        tiny.write_dataset(folder / "data")

    def start(self, name: str, processes: int, changes: dict[str, object]) -> subprocess.Popen[str]:
        flags = (f"--config.{key}={value}" for key, value in {**FLAGS, **changes}.items())
        command = [
            "bash", str(tiny.ROOT / "launch" / "local.sh"), str(processes), str(DEVICES // processes), "--",
            f"--config={tiny.CONFIG}.autoencoder", f"--workdir={self._folder / name}", *flags,
        ]  # fmt: skip
        env = {**os.environ, "PYTHON": sys.executable}
        return subprocess.Popen(
            command, cwd=tiny.ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def finish(self, name: str, processes: int) -> list[float]:
        """Its losses."""
        process = self.start(name, processes, {})
        errors = process.communicate(timeout=600)[1]
        assert process.returncode == 0, errors
        return self.losses(name)

    def losses(self, name: str) -> list[float]:
        path = self._folder / name / METRICS_FILE
        return [entry["loss"] for entry in read_metrics(path)] if path.is_file() else []

    def position(self, name: str) -> dict[str, int]:
        """The data iterator's, in the newest checkpoint."""
        newest = max((self._folder / name / "checkpoints").iterdir(), key=lambda path: int(path.name))
        return json.loads(next((newest / "data").glob("metadata")).read_text())

    def after(self, step: int, name: str, process: subprocess.Popen[str]) -> None:
        """Returns once that step is logged."""
        while len(self.losses(name)) < step:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)


def member(launcher: subprocess.Popen[str], number: int) -> int:
    """The process id of one of a launcher's processes."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            environment = (path / "environ").read_bytes().split(b"\0")
            command = (path / "cmdline").read_bytes()
        except (OSError, IndexError):  # it has ended, or is another user's
            continue
        if parent == launcher.pid and b"vgen_jax.main" in command and b"SLURM_PROCID=%d" % number in environment:
            return int(path.name)
    raise AssertionError(f"process {number} was not found")


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    yield Trainings(tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="module")
def single(trainings: Trainings) -> list[float]:
    return trainings.finish("single", 1)


@pytest.mark.long  # two processes: also in test_sharding
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_do_not_change_the_losses(trainings: Trainings, single: list[float], processes: int) -> None:
    assert len(single) == STEPS and single[-1] < single[0]
    np.testing.assert_allclose(trainings.finish(f"of_{processes}", processes), single, rtol=1e-4)


@pytest.mark.long  # it waits for a heartbeat that does not come
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the process to kill in /proc")
@pytest.mark.parametrize(("victim", "then"), [(1, 1), (0, 4)])
def test_when_one_is_killed_all_end_and_others_go_on(
    trainings: Trainings, single: list[float], victim: int, then: int
) -> None:
    name = f"killed_{victim}"
    launcher = trainings.start(name, 2, ENDLESS)
    trainings.after(EVERY + 1, name, launcher)
    os.kill(member(launcher, victim), signal.SIGKILL)
    begun = time.monotonic()
    errors = launcher.communicate(timeout=4 * HEARTBEAT_SECONDS)[1]
    assert time.monotonic() - begun < 2 * HEARTBEAT_SECONDS
    told = [line for line in errors.splitlines() if line.startswith(f"{1 - victim}: error: ")]
    # Where all wait for a checkpoint's barrier, JAX's service may end the process before an error reaches Python.
    if "JAX distributed service detected fatal errors" not in errors:
        assert len(told) == 1 and "another process of this run is gone" in told[0], errors
    assert launcher.returncode in (LOST_PROCESS_STATUS, 128 + signal.SIGKILL, 128 + signal.SIGABRT)

    reached = len(trainings.losses(name))
    assert EVERY < reached < STEPS, "it was stopped before its end, or there is nothing to go on with"
    np.testing.assert_allclose(trainings.finish(name, then), single, rtol=1e-4)
    assert trainings.position(name) == {"batch": STEPS}


@pytest.mark.long  # one process alone: test_preemption
def test_when_one_is_asked_to_stop_all_save_and_end(trainings: Trainings, single: list[float]) -> None:
    launcher = trainings.start("stopped", 2, ENDLESS)
    trainings.after(EVERY + 1, "stopped", launcher)
    os.kill(member(launcher, 1), signal.SIGTERM)
    errors = launcher.communicate(timeout=200)[1]
    assert launcher.returncode == 128 + signal.SIGTERM, errors
    reached = trainings.position("stopped")["batch"]
    assert reached == len(trainings.losses("stopped")) >= EVERY + 1
    if reached < STEPS:
        np.testing.assert_allclose(trainings.finish("stopped", 1), single, rtol=1e-4)
