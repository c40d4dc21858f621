"""Waits for a chunk, on rollouts that take as long as the test says; and the bundled world, once."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from configs.bench import latency as configs
from vgen_jax.bench import latency as bench
from vgen_jax.bench.fast_learning import TimedRollout
from vgen_jax.bench.latency import Wait, markdown, timed
from vgen_jax.files.run_folder import resolved
from vgen_jax.runs import latency
from vgen_jax.types import VgenError


def test_the_median_and_the_slowest_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {4: iter([90.0, 80.0, 1.0, 7.0, 2.0]), 25: iter([90.0, 80.0, 5.0, 6.0, 9.0])}
    monkeypatch.setattr(bench, "play", lambda lane: (next(lane.chunks), 0.0))
    closed = []
    lanes = {
        steps: TimedRollout(times, SimpleNamespace(close=lambda: closed.append(1)), lambda: (1, 0))
        for steps, times in seconds.items()
    }
    assert timed(lanes, 3, 2) == {4: Wait(2.0, 7.0, 0), 25: Wait(6.0, 9.0, 0)}
    assert len(closed) == 2


def test_what_a_player_notices() -> None:
    machine = {
        "device": "cpu", "cores": 2, "load_average_before": 0.1, "chunks": 3, "chunk_shows_seconds": 0.5,
    }  # fmt: skip
    table = markdown({10: Wait(0.25, 0.4, 0)}, machine, future=4)
    assert "| 10 | 250 | 400 | 16.0 | 2.00 |" in table


@pytest.mark.long
def test_the_bundled_world(tmp_path: Path) -> None:
    config = configs.get_config("cpu")
    config.update({"steps": (1, 2), "benchmark": {"chunks": 2}})
    latency.run(resolved(config, tmp_path / "run"), tmp_path / "run")
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found["median/1"] > 0 and found["compilations/2"] == 0
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.json", "latency.md", "results.json"]


def test_no_steps_are_refused(tmp_path: Path) -> None:
    config = configs.get_config("cpu")
    config.steps = ()
    with pytest.raises(VgenError, match="config key steps is empty"):
        latency.run(resolved(config, tmp_path / "run"), tmp_path / "run")
