"""The run ``generate``, on a random model."""

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tests import tiny
from vgen_jax.devices.preemption import Preempted
from vgen_jax.files import media
from vgen_jax.files.run_folder import resolved
from vgen_jax.files.videos import Videos
from vgen_jax.runs import generate
from vgen_jax.types import VgenError
from vgen_jax.worlds.memories import MEMORY_FILE
from vgen_jax.worlds.resume import STATE_FILE, Unfinished

FRAMES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set and an exported model, for work directories beside them."""
    tmp_path = tmp_path_factory.mktemp("generate")
    tiny.write_dataset(tmp_path / "data")
    tiny.write_model(tmp_path / "slow" / "export")
    return tmp_path


CHANGES = {
    "generate.frames": FRAMES, "generate.actions": ("go", "turn"), "generate.gif": False,
    "generate.decode_frames": 1, "generate.save_every": 1,
    "memory.kind": "temp_lora", "memory.temp_lora.lora.rank": 2, "memory.temp_lora.lora.targets": "temp_conv",
    "sampler.steps": 2, "start.episodes": (0, 1),
}  # fmt: skip


def run(workdir: Path, **changes: Any) -> dict[str, Any]:
    """Generates; returns results.json."""
    generate.run(resolved(tiny.config("generate", {**CHANGES, **changes}), workdir), workdir)
    return json.loads((workdir / "results.json").read_text())


def left(workdir: Path) -> dict[str, bytes]:
    """Everything that a rollout leaves but its results, which tell the time."""
    files = [*(workdir / "samples").iterdir(), workdir / MEMORY_FILE]
    return {path.name: path.read_bytes() for path in files}


class Once:
    """Calls a function the first time and gives what it gave ever after."""

    def __init__(self, function: Callable[..., Any]):
        self._function, self._result = function, None

    def __call__(self, *arguments: Any) -> Any:
        if self._result is None:
            self._result = self._function(*arguments)
        return self._result


@pytest.fixture(scope="module", autouse=True)
def compiled_once() -> Iterator[None]:
    """All runs here have one world: what one of them has compiled serves the next."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("slow_world", "starting_point"):
            patch.setattr(generate, name, Once(getattr(generate, name)))
        yield


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, bytes]:
    """What is left by a rollout that nothing interrupts."""
    run(folder / "whole")
    return left(folder / "whole")


@pytest.mark.slow
def test_a_video_with_a_memory_that_learns(folder: Path, whole: dict[str, bytes]) -> None:
    workdir = folder / "whole"
    results = json.loads((workdir / "results.json").read_text())
    assert (results["frames"], results["videos"], results["memory"]) == (FRAMES, 2, "temp_lora")
    assert results["compilations"] == results["memory_compilations"] == 1
    assert len(media.read_video(workdir / "samples" / "video_1.mp4")) == FRAMES + 1
    frames = media.read_video(workdir / "samples" / "video_1.npy")
    assert frames.shape == (FRAMES + 1, tiny.SIZE, tiny.SIZE, 3) and len(np.unique(frames[1:])) > 8
    learnt = safetensors.numpy.load_file(workdir / MEMORY_FILE)
    assert all(np.abs(x).max() > 0 for name, x in learnt.items() if name.endswith("['b']"))
    assert not (workdir / STATE_FILE).exists()


class Stopped(Exception):
    """Stands for whatever may go wrong."""


@pytest.mark.slow
@pytest.mark.parametrize(("at", "every", "saved"), [(3, 1, 2), (2, 2, 0), (3, 2, 2)])
def test_a_rollout_that_failed_goes_on_to_the_same_bits(
    folder: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, at: int, every: int, saved: int
) -> None:
    """The failure comes when chunk ``at`` has been written and not yet saved; the last save was after ``saved``."""
    add, count = Videos.add, itertools.count(1)

    def failing(self: Videos, *arguments: Any) -> None:
        add(self, *arguments)
        if next(count) == at:
            raise Stopped

    workdir = folder / f"failed_{at}_{every}"
    monkeypatch.setattr(Videos, "add", failing)
    changes = {"generate.save_every": every}
    with pytest.raises(Stopped):
        run(workdir, **changes)
    monkeypatch.setattr(Videos, "add", add)
    results = run(workdir, **changes)
    assert results["resumed_at_frame"] == saved * 2 and results["frames"] == FRAMES
    assert left(workdir) == whole


@pytest.mark.slow
def test_asked_to_stop_it_saves_the_chunk_at_hand(
    folder: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    add, count = Videos.add, itertools.count(1)

    def stopped(self: Videos, *arguments: Any) -> None:
        add(self, *arguments)
        if next(count) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Videos, "add", stopped)
    workdir, changes = folder / "stopped", {"generate.save_every": 100}
    with pytest.raises(Preempted) as preempted:
        run(workdir, **changes)
    assert preempted.value.code == 143
    assert len(media.read_video(workdir / "samples" / "video_0.mp4")) == 5, "what is there can be looked at"
    monkeypatch.setattr(Videos, "add", add)
    assert run(workdir, **changes)["resumed_at_frame"] == 4
    assert left(workdir) == whole


@pytest.mark.long
def test_killed_and_started_again_as_a_program(folder: Path) -> None:
    flags = [f"--config.{name}={value}" for name, value in CHANGES.items() if name != "generate.frames"]
    flags += ["--config.generate.frames=40"]

    def started(name: str) -> Any:
        return tiny.start(f"{tiny.CONFIG}.generate", folder / name, *flags)

    done = started("program")
    assert done.wait() == 0, done.stderr.read()
    process = started("killed")
    while not (folder / "killed" / STATE_FILE).is_file():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    again = started("killed")
    assert again.wait() == 0, again.stderr.read()
    assert 0 < json.loads((folder / "killed" / "results.json").read_text())["resumed_at_frame"] < 40
    assert left(folder / "killed") == left(folder / "program")


@pytest.mark.slow
def test_a_state_of_another_model_and_lost_frames_are_named(
    folder: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Unfinished, "forget", lambda self: None)
    workdir = folder / "lost"
    run(workdir)
    frames = workdir / "samples" / "video_1.npy"
    os.truncate(frames, 1000)
    with pytest.raises(VgenError, match="video_1.npy cannot be gone on with .* delete .*lost to generate"):
        run(workdir)
    (workdir / STATE_FILE).write_bytes(whole[MEMORY_FILE])
    with pytest.raises(VgenError, match="rollout.safetensors does not fit .missing "):
        run(workdir)
