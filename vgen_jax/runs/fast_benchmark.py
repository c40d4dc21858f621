"""Run ``fast_benchmark``: what a memory that learns costs per chunk, beside the same rollout without one
(``bench.fast_learning``).
"""

import os
import tempfile
from pathlib import Path

import jax
from ml_collections import ConfigDict

from vgen_jax.bench.fast_learning import (
    PLAIN,
    FastBenchmarkConfig,
    MemoryCost,
    in_a_process_of_its_own,
    interleaved,
    markdown,
    model_of,
    named,
    timed_rollout,
)
from vgen_jax.config import section
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.types import VgenError
from vgen_jax.worlds.memories import MemoryConfig

TABLE_FILE = "fast_benchmark.md"


def run(config: ConfigDict, workdir: Path) -> None:
    """Prints and writes ``results.json`` and a Markdown table, ``fast_benchmark.md``."""
    keep_config(config, workdir)
    settings = section(FastBenchmarkConfig, config.benchmark, "benchmark")
    sampler = section(Sampler, config.sampler, "sampler")
    values = {key: part.to_dict() for key, part in config.memories.items()}
    memories = {key: section(MemoryConfig, part, f"memories.{key}") for key, part in values.items()}
    if PLAIN not in memories or memories[PLAIN].kind != PLAIN:
        raise VgenError(f"config key memories lacks '{PLAIN}': add it, since all others are compared with it")
    load_average = os.getloadavg()[0]
    raw = config.to_dict()
    peaks = {key: in_a_process_of_its_own(raw, key) for key in memories}  # before this process takes the device
    with tempfile.TemporaryDirectory(dir=workdir) as folder:
        model = model_of(raw)
        lanes = {key: timed_rollout(model, settings, sampler, m, Path(folder) / key) for key, m in memories.items()}
        times = interleaved(lanes, settings.chunks, settings.warm_up)
    costs = {key: MemoryCost(*times[key], *peaks[key]) for key in memories}
    results = {
        **named(costs),
        **{f"compilations/{key}": list(lane.compilations()) for key, lane in lanes.items()},
        "sampler": f"{sampler.kind} {sampler.steps} steps guidance {settings.guidance}",
        "chunks": settings.chunks,
        "videos": settings.videos,
        "device": jax.devices()[0].device_kind,
        "peak_is_of": "the device" if jax.local_devices()[0].memory_stats() else "the process, resident",
        "cores": os.cpu_count(),
        "load_average_before": load_average,
    }
    write_results(workdir, results)
    text = markdown(costs, results)
    (workdir / TABLE_FILE).write_text(text)
    print(text, flush=True)
