"""What a training will take on this machine, before it is started: a few of its steps, timed.

Batches of a training may have several shapes (windows of other lengths); each is compiled and timed by itself, and
counts as often as it was drawn. The memory is the peak of this process, or of the device where that tells, so it holds
everything that a training holds; the disk is that of the checkpoints and the export.
"""

import dataclasses
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vgen_jax.devices import sharding as sh
from vgen_jax.files.log import peak_mib
from vgen_jax.files.progress import progress
from vgen_jax.learning.slow import CompiledUpdate, Task, TrainConfig, abstract_state, make_update, started
from vgen_jax.learning.state import OptimizerConfig, TrainState, make_optimizer
from vgen_jax.types import VideoBatch

TIMED, DRAWN = 3, 16  # steps of each shape; batches that are drawn to see how often each shape comes
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class TrainingEstimate:
    """What was measured and what follows from it.

    Attributes:
        parameters: how many are learnt.
        samples: of a batch.
        frames: that a step learns to generate, on average; 0 where the data are no windows.
        compile_seconds: once, all shapes together; less where compiled programs have been kept.
        step_seconds: of a step, on average, without loading.
        load_seconds: to load a batch.
        steps: of the whole training.
        memory_mib, memory_limit_mib: peak, and what there is; 0 for unknown.
        state_mib: a checkpoint.
        disk_mib, disk_free_mib: what the training leaves, and what is free.
    """

    parameters: int
    samples: int
    frames: float
    compile_seconds: float
    step_seconds: float
    load_seconds: float
    steps: int
    memory_mib: float
    memory_limit_mib: float
    state_mib: float
    disk_mib: float
    disk_free_mib: float

    @property
    def hours(self) -> float:
        """Of the whole training: a batch is loaded, then computed."""
        return (self.compile_seconds + self.steps * (self.step_seconds + self.load_seconds)) / 3600

    def hours_to(self, frames: float) -> float:
        """Hours until so many frames have been learnt to be generated, those seen again counted again."""
        return frames / self.frames * (self.step_seconds + self.load_seconds) / 3600

    @property
    def fits(self) -> bool:
        """Whether memory and disk suffice, as far as they are known."""
        memory = not self.memory_limit_mib or self.memory_mib < 0.95 * self.memory_limit_mib
        return memory and self.disk_mib < self.disk_free_mib


def estimate(
    task: Task, config: TrainConfig, optimizer_config: OptimizerConfig, mesh_config: sh.MeshConfig, workdir: Path
) -> TrainingEstimate:
    """Takes a few steps from fresh parameters and forgets them.

    Args:
        workdir: where the training will write.
    """
    mesh, optimizer = sh.make_mesh(mesh_config), make_optimizer(optimizer_config)
    init, _, shardings = abstract_state(task, optimizer, mesh, mesh_config, config.seed)
    state = init(jax.random.key(config.seed))
    if task.start is not None:
        state = started(state, task.start, shardings, mesh)
    state_mib, export_mib = _mib(state), _mib(state.ema)
    parameters = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(state.params))
    drawn, load_seconds = _drawn(task)
    update = CompiledUpdate(make_update(optimizer, config), shardings, mesh)
    objective = jax.device_put(task.objective, sh.replicated(mesh))
    compile_seconds = step_seconds = 0.0
    with progress(total=len(drawn) * (1 + TIMED), desc="estimate", unit="step") as bar:
        for batch, share in drawn:
            rows = sh.global_batch(sh.batch_sharding(mesh), batch)
            taken = []
            for _ in range(1 + TIMED):
                since = time.perf_counter()
                state, metrics = update(state, objective, rows)
                jax.block_until_ready(metrics)
                taken.append(time.perf_counter() - since)
                bar.update()
            step = float(np.median(taken[1:]))
            compile_seconds += max(0.0, taken[0] - step)
            step_seconds += share * step
    # One more checkpoint than are kept is on disk while it is written.
    disk_mib = (config.keep + 1) * state_mib + export_mib
    workdir.mkdir(parents=True, exist_ok=True)
    return TrainingEstimate(
        parameters, jax.tree.leaves(drawn[0][0])[0].shape[0], sum(share * _frames(batch) for batch, share in drawn),
        compile_seconds, step_seconds, load_seconds, config.steps, peak_mib(), memory_limit_mib(), state_mib, disk_mib,
        shutil.disk_usage(workdir).free / MIB,
    )  # fmt: skip


def _drawn(task: Task) -> tuple[list[tuple[Any, float]], float]:
    """A batch of each shape with its share among the first ones, and seconds to load one."""
    next(task.data)  # opens files
    since = time.perf_counter()
    batches = [next(task.data) for _ in range(DRAWN)]
    seconds = (time.perf_counter() - since) / DRAWN
    found: dict[Any, list[Any]] = {}
    for batch in batches:
        found.setdefault(tuple(leaf.shape for leaf in jax.tree.leaves(batch)), []).append(batch)
    return [(some[0], len(some) / DRAWN) for some in found.values()], seconds


def _frames(batch: Any) -> int:
    """Frames of a batch that are generated."""
    return int((~np.asarray(batch.past_BT)).sum()) if isinstance(batch, VideoBatch) else 0


def _mib(tree: TrainState | Any) -> float:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) / MIB


def memory_limit_mib() -> float:
    """What a training may have: the device's memory where it tells, else this machine's, within its container."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] / MIB
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    group = Path("/sys/fs/cgroup/memory.max")
    if group.is_file() and (text := group.read_text().strip()).isdecimal():
        limits.append(int(text))
    return min(limits) / MIB


def lines(found: TrainingEstimate, more_frames: tuple[float, ...] = (1e6, 1e7)) -> list[str]:
    """The estimate in words, a line each."""
    step = found.step_seconds + found.load_seconds
    seen = found.frames * found.steps
    out = [
        f"network   {found.parameters / 1e6:,.2f} M parameters, {found.samples} samples a step",
        f"step      {step:.3g} s, of which loading {found.load_seconds:.2g} s; compiled once in "
        f"{found.compile_seconds:.0f} s",
        f"time      {_duration(found.hours)} for {found.steps:,} steps" + (f" ({seen:,.0f} frames)" if seen else ""),
    ]
    if found.frames:
        out += [f"          {_duration(found.hours_to(frames))} to {frames:,.0f} frames" for frames in more_frames]
    limit = f" of {found.memory_limit_mib / 1024:.1f} GiB" if found.memory_limit_mib else ""
    return [
        *out,
        f"memory    {found.memory_mib / 1024:.2f} GiB at its peak{limit}",
        f"disk      {found.disk_mib / 1024:.2f} GiB (a checkpoint has {found.state_mib:,.1f} MiB), "
        f"{found.disk_free_mib / 1024:.0f} GiB are free",
        "fits      yes" if found.fits else "fits      no: a smaller network, data.batch_size or train.keep, or remat",
    ]


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h"


def as_results(found: TrainingEstimate) -> Mapping[str, Any]:
    """For ``estimate.json``."""
    return {**dataclasses.asdict(found), "hours": found.hours, "fits": found.fits}
