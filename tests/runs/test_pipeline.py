"""Pipelines: stages in order, each once."""

import json
import types
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from vgen_jax import runs
from vgen_jax.runs import pipeline
from vgen_jax.types import VgenError

STAGES = {
    "data": {"run": "collect", "frames": 10, "target": "@slow"},
    "slow": {"run": "train", "data_dir": "@data"},
}


def config(**changes: object) -> ConfigDict:
    raw = {
        "run": "pipeline",
        "title": "Test",
        "command": "none",
        "order": ("data", "slow"),
        "stages": STAGES,
        **changes,
    }
    return ConfigDict(raw, convert_dict=True)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The stages that ran, (run, folder's name); a file ``broken`` beside a stage's folder makes it fail."""
    calls: list[tuple[str, str]] = []

    def run(stage: ConfigDict, workdir: Path) -> None:
        calls.append((stage.run, workdir.name))
        if (workdir.parent / "broken").exists() and stage.run == "train":
            raise VgenError("broken")
        workdir.mkdir(exist_ok=True)
        (workdir / "results.json").write_text(json.dumps({"score": len(calls)}))
        if stage.run == "train":
            assert stage.data_dir == str(workdir.parent / "data")

    fake = types.SimpleNamespace(run=run)
    monkeypatch.setattr(runs.importlib, "import_module", lambda name: fake)
    return calls


def test_stages_run_in_order_and_once(tmp_path: Path, started: list[tuple[str, str]]) -> None:
    pipeline.run(config(), tmp_path)
    assert started == [("collect", "data"), ("train", "slow")]
    assert json.loads((tmp_path / "results.json").read_text()) == {"data": {"score": 1}, "slow": {"score": 2}}
    assert (tmp_path / "report.html").is_file()
    pipeline.run(config(), tmp_path)
    assert len(started) == 2, "finished stages are skipped"


def test_it_goes_on_where_it_stopped(tmp_path: Path, started: list[tuple[str, str]]) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(VgenError, match="broken"):
        pipeline.run(config(), tmp_path)
    (tmp_path / "broken").unlink()
    pipeline.run(config(), tmp_path)
    assert started == [("collect", "data"), ("train", "slow"), ("train", "slow")]


def test_another_config_is_refused(tmp_path: Path, started: list[tuple[str, str]]) -> None:
    pipeline.run(config(), tmp_path)
    other = config(stages={**STAGES, "slow": {"run": "train", "data_dir": "@data", "steps": 3}})
    with pytest.raises(VgenError, match="stages.slow.steps"):
        pipeline.run(other, tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(VgenError, match="slow/finished.json was finished with another config"):
        pipeline.run(other, tmp_path)


def test_an_unknown_stage_is_named(tmp_path: Path, started: list[tuple[str, str]]) -> None:
    with pytest.raises(VgenError, match="order names stage 'fast': stages has data, slow"):
        pipeline.run(config(order=("data", "fast")), tmp_path)
