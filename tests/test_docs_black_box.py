"""The code in docs/black_box.md runs as it stands there."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from vgen_jax.data.records import INFO_FILE, EpisodeWriter, write_text
from vgen_jax.files.exports import load_export
from vgen_jax.simulators.procgen import Play, ProcgenConfig, ProcgenRecorder

TEXT = (tiny.ROOT / "docs" / "black_box.md").read_text(encoding="utf-8")


def code(name: str) -> str:
    """The fenced block after ``<!-- name -->``."""
    found = re.search(rf"<!-- {name} -->\n```python\n(.*?)```", TEXT, re.DOTALL)
    assert found, name
    return found.group(1)


class Noise:
    """In the place of the games."""

    version = "1"

    def play(self, game: str, level: int, action_T: np.ndarray) -> Play:
        frames = np.random.default_rng(level).integers(0, 256, (len(action_T) + 1, 16, 16, 3), np.uint8)
        return Play(frames, np.zeros(len(action_T), bool))


def write_coinrun(folder: Path) -> None:
    config = ProcgenConfig("train", ("coinrun",), 0, 4, 20, 0, 0, (16, 16), 4, 0, 1)
    recorder = ProcgenRecorder(config, Noise())
    folder.mkdir(parents=True)
    with EpisodeWriter(folder / "train-00000-of-00001.array_record") as writer:
        for episode in recorder.record(0):
            writer.write(episode)
    write_text(folder / INFO_FILE, dataclasses.replace(recorder.describe(), splits={"train": (writer.info,)}).to_json())


def test_it_is_ten_lines() -> None:
    assert len([line for line in code("train").splitlines() if line.strip()]) <= 10


@pytest.mark.slow
def test_the_code_runs(tmp_path: Path) -> None:
    """As a program of its own, since the suite's eight devices are more than the batch of the smallest variant."""
    write_coinrun(tmp_path / "out" / "coinrun")
    check = "assert video.shape == (1, 8, 16, 16, 3) and np.isfinite(video).all()\n"
    program = tmp_path / "program.py"
    program.write_text(code("train") + code("sample") + check)
    environment = {**tiny.environment(), "PYTHONPATH": str(tiny.ROOT)}
    done = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    params, raw = load_export(tmp_path / "out" / "adapter" / "export")
    assert set(params) == {"network", "head"} and raw["base_sha256"] == ""
