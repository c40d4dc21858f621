"""Run ``benchmark``: how fast episodes are collected and windows loaded, and how fast a training consumes them.

Everything is timed on this machine, one thing after the other (``bench.data_loading``).
"""

import os
import tempfile
from pathlib import Path

import jax
from ml_collections import ConfigDict

from vgen_jax.bench.data_loading import (
    BenchmarkConfig,
    estimate_step,
    markdown,
    named,
    stage_on_synthetic_data,
    time_collecting,
    time_loading,
    time_step,
)
from vgen_jax.config import section
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.tasks.inputs import batches_config
from vgen_jax.tasks.registry import TASKS
from vgen_jax.types import VgenError

TABLE_FILE = "bench.md"


def run(config: ConfigDict, workdir: Path) -> None:
    """Prints and writes ``results.json`` and a Markdown table, ``bench.md``."""
    settings = section(BenchmarkConfig, config.benchmark, "benchmark")
    if config.stage.objective.kind not in TASKS:
        raise VgenError(f"config key stage.objective.kind is '{config.stage.objective.kind}': use {', '.join(TASKS)}")
    keep_config(config, workdir)
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=workdir) as folder:
        collecting = time_collecting(config.collect.to_dict(), settings.frames, Path(folder))
        stage = config.stage
        if settings.inputs != "given":
            stage = stage_on_synthetic_data(
                config, Path(folder) / "together", Path(folder), settings.inputs == "latents"
            )
        loading = time_loading(batches_config(stage), settings.batches)
        print(f"loading: {loading.windows_per_second:,.1f} windows/s; now the training step", flush=True)
        estimate = settings.estimate_on_cpu and jax.default_backend() == "cpu"
        step = estimate_step(stage) if estimate else time_step(stage, settings.steps)
    # The load says whether something else took the cores while they were measured.
    machine = {"device": jax.devices()[0].device_kind, "cores": os.cpu_count(), "load_average_before": load_average}
    results = {**named(collecting, loading, step), **machine}
    write_results(workdir, results)
    table = markdown(collecting, loading, step, machine)
    (workdir / TABLE_FILE).write_text(table)
    print(table, flush=True)
