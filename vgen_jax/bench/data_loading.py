"""How fast episodes are collected and windows loaded, and how fast a training consumes them.

A step that this machine is too slow for may be estimated instead, from the FLOPs that the compiler counts: the result
then says so.
"""

import contextlib
import dataclasses
import math
import os
import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from vgen_jax.bench.synthetic import write_autoencoder, write_latents
from vgen_jax.config import section
from vgen_jax.data.batches import BatchesConfig, make_iterator, to_batch
from vgen_jax.devices.chips import CHIPS
from vgen_jax.devices.sharding import MeshConfig, batch_sharding, global_batch, make_mesh, replicated
from vgen_jax.learning.slow import CompiledUpdate, TrainConfig, abstract_state, make_update
from vgen_jax.learning.state import OptimizerConfig, make_optimizer
from vgen_jax.simulators.collect import CollectConfig, collect
from vgen_jax.tasks.inputs import batches_config
from vgen_jax.tasks.registry import TASKS
from vgen_jax.types import VgenError, VideoBatch
from vgen_jax.worlds.autoencoder import AutoencoderConfig

WARM_UP = 2  # batches or updates before the clock starts
H100_BF16_FLOPS = CHIPS["NVIDIA H100 80GB HBM3"].flops

ASSUMED_UTILISATION = 0.4


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """What is timed, and how long.

    Attributes:
        frames: collected by each process.
        inputs: what is loaded and trained on: ``given``, the folders that the stage names; ``frames``, the episodes
            just collected; ``latents``, random latents of their lengths. The last two come with an autoencoder that is
            all zeros, since no speed depends on what it has learnt.
        batches: loaded while timed, beyond the first few.
        steps: updates timed per window length, beyond the first few.
        estimate_on_cpu: where JAX has only a CPU, estimate what one H100 would consume instead of timing the step.
    """

    frames: int
    inputs: Literal["given", "frames", "latents"]
    batches: int
    steps: int
    estimate_on_cpu: bool

    def __post_init__(self) -> None:
        if self.inputs not in ("given", "frames", "latents"):
            raise VgenError(f"benchmark.inputs '{self.inputs}' is unknown: use given, frames or latents")
        for name in ("frames", "batches", "steps"):
            if getattr(self, name) < 1:
                raise VgenError(f"benchmark.{name} is {getattr(self, name)}: use 1 or more")


class Collecting(NamedTuple):
    """Frames per second of one process alone, of each of several at once; and per second of CPU time of one."""

    alone: float
    together: float
    processes: int
    per_cpu_second: float


class Loading(NamedTuple):
    """What the loader gives."""

    windows_per_second: float
    frames_per_second: float


class StepSpeed(NamedTuple):
    """What the training step takes; ``estimated`` for one H100 if it was not timed."""

    windows_per_second: float
    tflop_per_window: float
    estimated: bool


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keeps the processes started within on one core, where the system offers that (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def time_collecting(shared: Mapping[str, Any], frames: int, folder: Path) -> Collecting:
    """Collects into ``folder``: one episode to warm up, then with one process on one core, then with every process.

    The warm-up has the same start of a process as the run on one core: what the latter takes beyond it, in CPU time,
    is the collecting alone.
    """
    length = shared["episode_steps"] + 1
    per_process = {**shared, "split": "train", "episodes_per_shard": math.ceil(frames / length)}

    def run_with(name: str, total: int, workers: int) -> tuple[float, int, float]:
        before = cpu_seconds_of_children()
        amount = {"frames": total, "workers": workers}
        report = collect(folder / name, section(CollectConfig, {**per_process, **amount}, "collect"))
        return report.frames_per_second, report.new_frames, cpu_seconds_of_children() - before

    with one_core():
        _, warm_frames, warm_seconds = run_with("warm_up", 1, 1)
        alone, one_frames, one_seconds = run_with("alone", frames, 1)
    together, _, _ = run_with("together", frames * shared["workers"], shared["workers"])
    extra = one_seconds - warm_seconds
    per_cpu_second = (one_frames - warm_frames) / extra if extra > 0 else math.nan
    return Collecting(alone, together, shared["workers"], per_cpu_second)


def cpu_seconds_of_children() -> float:
    """CPU time of all ended processes that this one and its children started."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def stage_on_synthetic_data(config: ConfigDict, frames: Path, folder: Path, latents: bool) -> ConfigDict:
    """``config.stage`` on the data set ``frames``, or random latents of its lengths, with an autoencoder of zeros."""
    write_autoencoder(folder / "autoencoder", section(AutoencoderConfig, config.autoencoder, "autoencoder"))
    data = frames
    if latents:
        data = folder / "latents"
        write_latents(frames, data, folder / "autoencoder")
    stage = config.stage.to_dict()
    made = {"autoencoder_dir": str(folder / "autoencoder"), "data": {**stage["data"], "data_dir": str(data)}}
    return ConfigDict({**stage, **made}).lock()


def time_loading(data: BatchesConfig, batches: int) -> Loading:
    """The loader at full speed: nothing is done with what it gives."""
    iterator = make_iterator(data, 0, 1)
    for _ in range(WARM_UP):
        next(iterator)
    frames, start = 0, time.perf_counter()
    for _ in range(batches):
        past = next(iterator)["past"]
        frames += past.size
    seconds = time.perf_counter() - start
    iterator.close()
    return Loading(batches * data.batch_size / seconds, frames / seconds)


class _Training:
    """A training's update with its arguments: the state as shapes, and a batch of every window length."""

    def __init__(self, stage: ConfigDict):
        task, _ = TASKS[stage.objective.kind](stage)
        config = section(TrainConfig, stage.train, "train")
        optimizer = make_optimizer(section(OptimizerConfig, stage.optimizer, "optimizer"))
        mesh_config = section(MeshConfig, stage.mesh, "mesh")
        self.mesh = make_mesh(mesh_config)
        self.seed = config.seed
        self.init, self.abstract, self.shardings = abstract_state(task, optimizer, self.mesh, mesh_config, config.seed)
        self.update = make_update(optimizer, config)
        self.objective = jax.device_put(task.objective, replicated(self.mesh))
        self.data = batches_config(stage)

    def batches(self) -> Iterator[VideoBatch]:
        """One batch per window length."""
        for window in self.data.windows:
            data = dataclasses.replace(self.data, windows=(window,), window_weights=(1.0,))
            iterator = make_iterator(data, 0, 1)
            yield global_batch(batch_sharding(self.mesh), to_batch(next(iterator)))
            iterator.close()

    def mean_per_window(self, per_batch: list[float]) -> float:
        """The mean over window lengths as often as they are drawn, per window of a batch."""
        return float(np.average(per_batch, weights=self.data.window_weights)) / self.data.batch_size


def time_step(stage: ConfigDict, steps: int) -> StepSpeed:
    """Times the compiled update on a fixed batch of every window length."""
    training = _Training(stage)
    update = CompiledUpdate(training.update, training.shardings, training.mesh)
    state = training.init(jax.random.key(training.seed))
    seconds, flops = [], []
    for batch in training.batches():
        for _ in range(WARM_UP):
            state, _ = update(state, training.objective, batch)
        jax.block_until_ready(state)
        start = time.perf_counter()
        for _ in range(steps):
            state, _ = update(state, training.objective, batch)
        jax.block_until_ready(state)
        seconds.append((time.perf_counter() - start) / steps)
        flops.append(update.flops_per_device * training.mesh.size)
    return StepSpeed(1.0 / training.mean_per_window(seconds), training.mean_per_window(flops) / 1e12, estimated=False)


def estimate_step(stage: ConfigDict) -> StepSpeed:
    """What one H100 would consume at 40 % of its peak: the FLOPs of the update as it is given to the compiler."""
    training = _Training(stage)
    jitted = jax.jit(training.update)
    counts = []
    for batch in training.batches():
        cost = jitted.lower(training.abstract, training.objective, batch).cost_analysis()
        if not cost or "flops" not in cost:
            raise VgenError("this JAX backend counts no FLOPs: set benchmark.estimate_on_cpu=False")
        counts.append(cost["flops"])
    flops = training.mean_per_window(counts)
    return StepSpeed(ASSUMED_UTILISATION * H100_BF16_FLOPS / flops, flops / 1e12, estimated=True)


def named(collecting: Collecting, loading: Loading, step: StepSpeed) -> dict[str, Any]:
    """The flat results."""
    return {
        "collect_frames_per_second_one_process": collecting.alone,
        "collect_frames_per_second_each_of_all": collecting.together,
        "collect_frames_per_cpu_second": collecting.per_cpu_second,
        "collect_processes": collecting.processes,
        "load_windows_per_second": loading.windows_per_second,
        "load_frames_per_second": loading.frames_per_second,
        "step_windows_per_second": step.windows_per_second,
        "step_tflop_per_window": step.tflop_per_window,
        "step_is_an_estimate": step.estimated,
        "load_over_step": loading.windows_per_second / step.windows_per_second,
    }


def markdown(collecting: Collecting, loading: Loading, step: StepSpeed, machine: Mapping[str, Any]) -> str:
    """The results as a table."""
    utilisation = f"{ASSUMED_UTILISATION:.0%} of one H100's {H100_BF16_FLOPS / 1e12:.0f} TFLOP/s"
    how = f"estimated: {utilisation}; not timed" if step.estimated else f"timed on {machine['device']}"
    rows = (
        ("collecting, one process on one core", f"{collecting.alone:,.0f} frames/s"),
        (f"collecting, each of {collecting.processes} processes at once", f"{collecting.together:,.0f} frames/s"),
        ("collecting, per second of CPU time", f"{collecting.per_cpu_second:,.0f} frames/s"),
        ("loading", f"{loading.windows_per_second:,.1f} windows/s ({loading.frames_per_second:,.0f} frames/s)"),
        (f"training step ({how})", f"{step.windows_per_second:,.1f} windows/s"),
        ("loading ÷ training step", f"{loading.windows_per_second / step.windows_per_second:,.1f}"),
        ("training step, work", f"{step.tflop_per_window:.4g} TFLOP a window"),
        ("machine", f"{machine['cores']} cores, load average {machine['load_average_before']:.1f} before the start"),
    )
    return "\n".join(["| what | result |", "|---|---|", *(f"| {what} | {result} |" for what, result in rows)]) + "\n"
