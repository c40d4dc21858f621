"""Run ``pipeline``: named stages, each a run of its own in its own folder; finished ones are skipped on a second start.

``config.stages`` maps a stage's name to its run's config; ``config.order`` says in which order. A finished stage leaves
``finished.json`` in its folder, with the config that it ran with; a changed config is refused.

Keys:
    title: of the report.
    command: what the report says made it.
    order: the stages, in the order in which they run.
"""

import json
import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vgen_jax import runs
from vgen_jax.config import Sections
from vgen_jax.files import report
from vgen_jax.files.log import METRICS_FILE
from vgen_jax.files.run_folder import RESULTS_FILE, as_json, keep_config, resolved, write_results
from vgen_jax.types import VgenError

FINISHED_FILE = "finished.json"

SECTIONS: Sections = {}


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs every stage that is not finished, then gathers the results in one report."""
    keep_config(config, workdir)
    seconds: dict[str, float] = {}
    for name in config.order:
        if name not in config.stages:
            raise VgenError(f"config key order names stage '{name}': stages has {', '.join(config.stages)}")
        folder = workdir / name
        stage = resolved(config.stages[name], folder)
        before = finished_seconds(stage, folder)
        if before is None:
            print(f"stage {name}: {stage.run}", flush=True)
            start = time.monotonic()
            runs.start(stage, folder)
            seconds[name] = time.monotonic() - start
            folder.mkdir(parents=True, exist_ok=True)
            done = {"seconds": round(seconds[name], 1), "config": json.loads(as_json(stage))}
            (folder / FINISHED_FILE).write_text(json.dumps(done, indent=2) + "\n")
        else:
            seconds[name] = before
            print(f"stage {name}: finished before, skipped", flush=True)
    gather(config, workdir, seconds)


def finished_seconds(stage: ConfigDict, folder: Path) -> float | None:
    """How long a finished stage took; ``None`` if it has to run.

    Raises:
        VgenError: if it finished with another config.
    """
    path = folder / FINISHED_FILE
    if not path.is_file():
        return None
    done = json.loads(path.read_text())
    if done["config"] != json.loads(as_json(stage)):
        raise VgenError(f"{path} was finished with another config: use another --workdir, or delete {folder}")
    return done["seconds"]


def gather(config: ConfigDict, workdir: Path, seconds: dict[str, float]) -> None:
    """Copies the stages' results.json into one, and writes report.html over all of them."""
    results: dict[str, Any] = {}
    sections: list[report.Section] = []
    rows = [(name, config.stages[name].run, round(seconds[name], 1)) for name in config.order]
    for name in config.order:
        folder = workdir / name
        if (folder / RESULTS_FILE).is_file():
            found = json.loads((folder / RESULTS_FILE).read_text())
            results[name] = found
            scalars = [(k, v) for k, v in found.items() if isinstance(v, (int, float, str))]
            sections.append(report.Table(("result", "value"), scalars, title=name))
        if (folder / METRICS_FILE).is_file():
            sections.append(report.metric_curves(folder / METRICS_FILE, ["loss"], title=f"{name}: loss", log_y=True))
        samples = sorted((folder / "samples").glob("*")) if (folder / "samples").is_dir() else []
        sections += [report.Video(path, title=path.stem) for path in samples if path.suffix == ".mp4"]
        sections += [report.Image(path, title=path.stem) for path in samples if path.suffix == ".png"]
    write_results(workdir, results)
    sections.append(report.Table(("stage", "run", "seconds"), rows, title="Stages"))
    page = report.write_report(workdir, config.title, sections, command=config.command, config=config.to_dict())
    print(f"report: {page}", flush=True)
