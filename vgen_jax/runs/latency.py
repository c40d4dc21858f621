"""Run ``latency``: how long an interactive rollout makes one wait for a chunk, by the number of sampling steps.

Rollouts with each number of steps take turns, chunk by chunk, in one process (``fast_benchmark``); a chunk is over when
its frames are decoded and written. The median counts, and the slowest of all, which is what a player notices. What a
chunk shows is as long as it lasts at the data's frame rate: below a ratio of 1 a player outruns the model.
"""

import dataclasses
import os
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.runs.fast_benchmark import FastBenchmarkConfig, Lane, make_lane, play
from vgen_jax.types import VgenError
from vgen_jax.worlds.memories import MemoryConfig
from vgen_jax.worlds.slow import load_slow_model

TABLE_FILE = "latency.md"


class Wait(NamedTuple):
    """Seconds a chunk: the median and the slowest; how often the sampler was compiled after the warm-up."""

    median: float
    slowest: float
    compilations: int


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
            steps: make_lane(
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


def timed(lanes: Mapping[int, Lane], chunks: int, warm_up: int) -> dict[int, Wait]:
    """Every lane's wait; who is first changes from round to round."""
    for lane in lanes.values():
        for _ in range(warm_up):
            play(lane)
    before = {steps: sum(lane.compilations()) for steps, lane in lanes.items()}
    seconds: dict[int, list[float]] = {steps: [] for steps in lanes}
    for number in range(chunks):
        for steps in list(lanes)[:: 1 if number % 2 else -1]:
            seconds[steps].append(play(lanes[steps])[0])
    for lane in lanes.values():
        lane.videos.close()
    return {
        steps: Wait(
            statistics.median(seconds[steps]), max(seconds[steps]), sum(lane.compilations()) - before[steps]
        )
        for steps, lane in lanes.items()
    }  # fmt: skip


def markdown(waits: Mapping[int, Wait], machine: Mapping[str, Any], future: int) -> str:
    """The results as a table."""
    lines = ["| sampling steps | ms a chunk | slowest, ms | frames/s | shown ÷ waited |", "|---" * 5 + "|"]
    for steps, wait in waits.items():
        lines.append(
            f"| {steps} | {wait.median * 1e3:,.0f} | {wait.slowest * 1e3:,.0f} | {future / wait.median:,.1f} | "
            f"{machine['chunk_shows_seconds'] / wait.median:.2f} |"
        )
    note = (
        f"Chunks of {future} frames, median of {machine['chunks']}, on {machine['device']}, {machine['cores']} cores, "
        f"load average {machine['load_average_before']:.1f} before the start."
    )
    return "\n".join(lines) + f"\n\n{note}\n"
