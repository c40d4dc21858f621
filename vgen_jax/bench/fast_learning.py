"""What a memory that learns costs per chunk, beside the same rollout without one.

Time: rollouts with each memory take turns, chunk by chunk, in one process, so that whatever else the machine does falls
on all of them; a chunk is over when its frames are written and the memory has learnt it, and the median chunk counts.
CPU seconds of the process are given beside the clock's, since other work on the machine stretches only the latter.

Memory: each rollout once more in a process of its own, whose peak counts: of the device where it tells (a GPU), else of
the process's resident memory, twice: since its start, and while it generates, with what tracing has left behind given
back to the system before. A process before it fills the compilation cache, so that no compiler is in the peak. Resident
memory has the host's part in it: Python, the tracer's caches, machine code. So the arrays that are held between chunks
are given as well (parameters, adapters, the optimiser's moments), and what a device needs: these, and the temporaries
and results of the program that has most of them, by the compiler's own account.

Without a ``model_dir`` the network is made: one of the shape in ``config.made``, with random weights, on which neither
time nor memory depends.
"""

import dataclasses
import itertools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vgen_jax.bench.synthetic import synthetic_model
from vgen_jax.config import section
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.files.log import forget_peak, peak_mib
from vgen_jax.files.progress import progress
from vgen_jax.files.videos import Videos
from vgen_jax.types import VgenError
from vgen_jax.worlds.assembly import slow_world
from vgen_jax.worlds.autoencoder import AutoencoderConfig
from vgen_jax.worlds.memories import MemoryConfig
from vgen_jax.worlds.rollout import Generated, rollout
from vgen_jax.worlds.slow import SlowModel, load_slow_model
from vgen_jax.worlds.slow_networks import SlowConfig

PEAK_CHUNKS = 2  # during which the peak of a process is taken
PLAIN = "none"  # what all others are compared with


@dataclasses.dataclass(frozen=True)
class FastBenchmarkConfig:
    """What is timed.

    Attributes:
        past, future: f_p and f_g.
        videos: at once.
        chunks: timed with each memory.
        guidance: scale of classifier-free guidance; 1 for none.
        warm_up: chunks before the clock starts: they compile.
    """

    past: int
    future: int
    videos: int
    chunks: int
    guidance: float
    warm_up: int

    def __post_init__(self) -> None:
        for name in ("past", "future", "videos", "chunks", "warm_up"):
            if getattr(self, name) < 1:
                raise VgenError(f"benchmark.{name} is {getattr(self, name)}: use 1 or more")


class TimedRollout(NamedTuple):
    """A rollout with one memory, the files it writes, and how often its sampler and its update were compiled."""

    chunks: Iterator[Generated]
    videos: Videos
    compilations: Callable[[], tuple[int, int]]


class MemoryCost(NamedTuple):
    """What a memory costs: the median chunk in seconds, and memory in MiB.

    Attributes:
        peak_mib: while it generates.
        process_mib: the peak since the process has started, which loads, traces and compiles.
        held_mib: arrays between chunks.
        device_mib: these, and the temporaries and results of the largest program.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float
    process_mib: float
    held_mib: float
    device_mib: float


def model_of(raw: Mapping[str, Any]) -> SlowModel:
    """The model of ``model_dir``, or one of the shape in ``made``."""
    if raw["model_dir"]:
        return load_slow_model(Path(raw["model_dir"]))
    made = raw["made"]
    slow = section(SlowConfig, made["slow"], "made.slow")
    autoencoder = section(AutoencoderConfig, made["autoencoder"], "made.autoencoder")
    return synthetic_model(slow, autoencoder, made["height"], made["width"], raw["benchmark"]["future"])


def timed_rollout(
    model: SlowModel, settings: FastBenchmarkConfig, sampler: Sampler, memory_config: MemoryConfig, folder: Path
) -> TimedRollout:
    """A rollout from random frames, on which no speed depends, along every command of the model's data in turn."""
    world = slow_world(model, sampler, memory_config, settings.past, settings.future, settings.guidance)
    shape = (settings.videos, settings.past, *world.size, 3)
    frames_BTHWC = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    commands = world.codec.chunks(itertools.cycle(world.commands))
    chunks = rollout(world, world.start(frames_BTHWC), commands)
    videos = Videos(folder, frames_BTHWC[:, -1], world.fps, gif=False, chunk=settings.future)
    return TimedRollout(chunks, videos, world.compilations)


def play(lane: TimedRollout) -> tuple[float, float]:
    """One chunk to its very end; its seconds by the clock and of CPU time.

    The frames are fetched and written while the memory learns, as in a rollout.
    """
    started, cpu_started = time.perf_counter(), time.process_time()
    chunk = next(lane.chunks)
    lane.videos.add([chunk.step.frames_BTHWC], chunk.step.text)
    jax.block_until_ready(chunk.state)
    return time.perf_counter() - started, time.process_time() - cpu_started


def interleaved(lanes: Mapping[str, TimedRollout], chunks: int, warm_up: int) -> dict[str, tuple[float, float]]:
    """The median seconds and CPU seconds of a chunk of each lane; who is first changes from round to round."""
    for lane in lanes.values():
        for _ in range(warm_up):
            play(lane)
    played: dict[str, list[tuple[float, float]]] = {key: [] for key in lanes}
    for number in progress(range(chunks), desc="fast_benchmark", unit="chunk"):
        for key in list(lanes)[:: 1 if number % 2 else -1]:
            played[key].append(play(lanes[key]))
    for lane in lanes.values():
        lane.videos.close()
    medians = {key: [statistics.median(column) for column in zip(*rows, strict=True)] for key, rows in played.items()}
    return {key: (clock, cpu) for key, (clock, cpu) in medians.items()}


def in_a_process_of_its_own(raw: Mapping[str, Any], key: str) -> tuple[float, float, float, float]:
    """``peak_of`` a rollout with the memory ``key``."""
    cache = str(jax.config.values["jax_compilation_cache_dir"] or "")
    found = (0.0, 0.0, 0.0, 0.0)
    for chunks in (0, PEAK_CHUNKS):  # the first one fills the compilation cache
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found = pool.submit(peak_of, dict(raw), key, cache, chunks).result()
    return found


def peak_of(raw: Mapping[str, Any], key: str, cache: str, chunks: int) -> tuple[float, float, float, float]:
    """In a new process: plays a chunk and then ``chunks`` more.

    Returns:
        Peak memory during the latter, the peak since the start, what the arrays hold after them, and what a device has
        to hold, MiB: the memory fields of ``Cost``.
    """
    if cache:
        jax.config.update("jax_compilation_cache_dir", cache)
    settings = section(FastBenchmarkConfig, raw["benchmark"], "benchmark")
    sampler = section(Sampler, raw["sampler"], "sampler")
    memory_config = section(MemoryConfig, raw["memories"][key], f"memories.{key}")
    model = model_of(raw)
    with tempfile.TemporaryDirectory() as folder:
        lane = timed_rollout(model, settings, sampler, memory_config, Path(folder))
        play(lane)
        since_start = peak_mib()
        forget_peak()
        for _ in range(chunks):
            play(lane)
        lane.videos.close()
    held = sum(x.nbytes for x in jax.live_arrays()) / 2**20
    return peak_mib(), max(since_start, peak_mib()), held, held + largest_program_mib()


def largest_program_mib() -> float:
    """Temporaries and new results of the compiled program that has most of them, of all that this process keeps."""
    programs = jax.local_devices()[0].client.live_executables()
    stats = [program.get_compiled_memory_stats() for program in programs]
    most = max(s.temp_size_in_bytes + s.output_size_in_bytes - s.alias_size_in_bytes for s in stats)
    return most / 2**20


def named(costs: Mapping[str, MemoryCost]) -> dict[str, float]:
    """The flat results; ratios are to ``none``."""
    results: dict[str, float] = {}
    for key, cost in costs.items():
        for field, value in cost._asdict().items():
            results[f"{field}/{key}"] = value
            if key != PLAIN:
                results[f"{field}_ratio/{key}"] = value / getattr(costs[PLAIN], field)
    return results


def markdown(costs: Mapping[str, MemoryCost], results: Mapping[str, Any]) -> str:
    """The results as a table."""
    columns = ("s a chunk", "CPU s a chunk", "peak MiB", "peak since start, MiB", "arrays held, MiB", "device, MiB")
    lines = [
        f"| memory | {' | '.join(f'{name} | ÷ none' for name in columns)} |",
        "|---" * (1 + 2 * len(columns)) + "|",
    ]
    for key, cost in costs.items():
        cells = [f"{x:,.3f} | {x / y:.3f}" for x, y in zip(cost, costs[PLAIN], strict=True)]
        lines.append(f"| {key} | {' | '.join(cells)} |")
    note = (
        f"Peak memory is of {results['peak_is_of']}; device: arrays and the largest program's temporaries. "
        f"{results['sampler']}, {results['videos']} videos, median of {results['chunks']} chunks on "
        f"{results['device']}, {results['cores']} cores, load average {results['load_average_before']:.1f} before."
    )
    return "\n".join(lines) + f"\n\n{note}\n"
