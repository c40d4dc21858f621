"""Run ``latency``: how long an interactive rollout makes one wait for a chunk (``bench.latency``)."""

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vgen_jax.bench.fast_learning import FastBenchmarkConfig, timed_rollout
from vgen_jax.bench.latency import markdown, timed
from vgen_jax.config import section
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.types import VgenError
from vgen_jax.worlds.memories import MemoryConfig
from vgen_jax.worlds.slow import load_slow_model

TABLE_FILE = "latency.md"


def run(config: ConfigDict, workdir: Path) -> None:
    """Prints and writes ``results.json`` and a Markdown table, ``latency.md``."""
    settings = section(FastBenchmarkConfig, config.benchmark, "benchmark")
    sampler = section(Sampler, config.sampler, "sampler")
    memory = section(MemoryConfig, config.memory.to_dict(), "memory")
    if not config.steps:
        raise VgenError("config key steps is empty: give at least one number of sampling steps")
    keep_config(config, workdir)
    load_average = os.getloadavg()[0]
    model = load_slow_model(Path(config.model_dir))
    with tempfile.TemporaryDirectory(dir=workdir) as folder:
        lanes = {
            steps: timed_rollout(
                model, settings, dataclasses.replace(sampler, steps=steps), memory, Path(folder) / str(steps)
            )
            for steps in config.steps
        }
        waits = timed(lanes, settings.chunks, settings.warm_up)
    shown = settings.future / model.data.fps
    machine = {
        "device": jax.devices()[0].device_kind, "cores": os.cpu_count(), "load_average_before": load_average,
        "chunks": settings.chunks, "chunk_shows_seconds": shown,
    }  # fmt: skip
    results: dict[str, Any] = {f"{k}/{steps}": v for steps, wait in waits.items() for k, v in wait._asdict().items()}
    write_results(workdir, {**results, **machine})
    text = markdown(waits, machine, settings.future)
    (workdir / TABLE_FILE).write_text(text)
    print(text, flush=True)
