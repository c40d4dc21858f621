"""Does a training fit a TPU pod? Asked of the TPU's compiler, before there is a pod.

The step that ``train`` would run is compiled ahead of time for every mesh of a list: state, batch and frozen networks
are shapes with shardings, so a small machine without any accelerator is enough. Needs the package libtpu (extra
``tpu``). The compiler says what memory it assigned, or by how much the program exceeds the chip's; the collectives are
counted in what it compiled (``devices.collectives``), the FLOPs in what it was given (``devices.flops``).

Two times follow, each the least that a step can take: its FLOPs at the chip's published peak, and the bytes that its
collectives send over all of a chip's links at once. MFU, model FLOPs over peak, cannot exceed what the longer one
leaves; memory bandwidth, which nothing here bounds, may well keep it lower. Model FLOPs are those of the same step
without rematerialisation, counted, not compiled.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vgen_jax.bench.footprint import QUICK_CPU
from vgen_jax.config import section
from vgen_jax.data.batches import make_iterator, to_batch
from vgen_jax.devices import sharding as sh
from vgen_jax.devices.chips import Chip
from vgen_jax.devices.collectives import Traffic, traffic
from vgen_jax.devices.flops import jaxpr_flops
from vgen_jax.learning.slow import CompiledUpdate, Task, TrainConfig, abstract_state, make_update
from vgen_jax.learning.state import OptimizerConfig, make_optimizer
from vgen_jax.tasks.inputs import batches_config
from vgen_jax.tasks.registry import TASKS
from vgen_jax.types import VgenError

SIMULATED = "cpu:"  # before a number of devices
GIB = 2**30
EFFORTS = ("", "O0", "O1", "O2", "O3")  # of XLA, "" its own choice


class MeshRow(NamedTuple):
    """A topology, such as ``v5e:8x8``, or ``cpu:8`` for eight simulated devices; the mesh; micro-batches."""

    topology: str
    data: int
    fsdp: int
    accumulate: int


@dataclasses.dataclass(frozen=True)
class CheckConfig:
    """What is compiled.

    Attributes:
        meshes: the rows (topology, data, fsdp, accumulate); the latter three instead of the stage's own.
        effort: of the TPU's compiler, ``O0`` (sooner done, a slower program) to ``O3``; empty for what a training uses.
        steps: updates to run, from zeros, on the rows with simulated devices.
    """

    meshes: tuple[tuple[str, int, int, int], ...]
    effort: str
    steps: int

    def __post_init__(self) -> None:
        if self.effort not in EFFORTS:
            raise VgenError(f"check.effort is '{self.effort}': use {', '.join(EFFORTS[1:])} or an empty text")
        if self.steps < 0:
            raise VgenError(f"check.steps is {self.steps}: use 0 or more")


class Found(NamedTuple):
    """What came out for a row. Bytes and FLOPs are of one device; ``problem`` is empty where it was compiled."""

    argument_bytes: int = 0
    temporary_bytes: int = 0
    total_bytes: int = 0
    executed_flops: float = 0.0
    model_flops: float = 0.0
    collectives: Mapping[str, Traffic] = {}
    problem: str = ""
    loss: float | None = None

    @property
    def sent_bytes(self) -> int:
        """Of all collectives."""
        return sum(kind.sent_bytes for kind in self.collectives.values())

    def least_seconds(self, chip: Chip) -> float:
        """The least that a step can take."""
        return max(self.executed_flops / chip.flops, self.sent_bytes / chip.link if chip.link else 0.0)

    def most_mfu(self, chip: Chip) -> float:
        """The MFU of such a step."""
        return self.model_flops / chip.flops / self.least_seconds(chip)


def topology_mesh(row: MeshRow) -> Mesh:
    """The mesh of a row over devices that need not be there.

    Raises:
        VgenError: if there is no such topology, no compiler for it here, or another number of devices.
    """
    if row.topology.startswith(SIMULATED):
        wanted, have = int(row.topology.removeprefix(SIMULATED)), jax.devices("cpu")
        if len(have) < wanted:
            raise VgenError(f"check.meshes has {row.topology}, but {len(have)} are simulated: set mesh.cpu_devices")
        devices = np.asarray(have[:wanted])
    else:
        # libtpu would ask the cloud what it runs on, and refuse to be loaded twice on a machine.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")
        try:
            found = topologies.get_topology_desc(platform="tpu", topology_name=row.topology)
        except Exception as error:  # the plugin's loader and the plugin raise what they please
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise VgenError(
                f"check.meshes has topology '{row.topology}', which cannot be compiled for ({line:.120}): name one "
                "such as v5p:2x2x1 and install the package libtpu"
            ) from error
        devices = np.asarray(found.devices)
    if row.data * row.fsdp != devices.size:
        raise VgenError(
            f"check.meshes has {row.data}x{row.fsdp} for {row.topology}, which has {devices.size} devices: change one"
        )
    return Mesh(devices.reshape(row.data, row.fsdp), sh.AXES)


class TrainingStep:
    """The training step of a stage, for any mesh."""

    def __init__(self, stage: ConfigDict):
        self._task: Task = TASKS[stage.objective.kind](stage)[0]
        self._plain: Task = TASKS[stage.objective.kind](without_remat(stage))[0]
        self._train = section(TrainConfig, stage.train, "train")
        self._mesh = section(sh.MeshConfig, stage.mesh, "mesh")
        self._optimizer = make_optimizer(section(OptimizerConfig, stage.optimizer, "optimizer"))
        data = batches_config(stage)
        longest = max(data.windows, key=sum)
        one = dataclasses.replace(data, windows=(longest,), window_weights=(1.0,), batch_size=1, workers=0)
        iterator = make_iterator(one, 0, 1)
        shape = lambda x: jax.ShapeDtypeStruct((data.batch_size, *x.shape[1:]), x.dtype)  # noqa: E731
        self._batch = jax.tree.map(shape, to_batch(next(iterator)))
        iterator.close()

    def check(self, row: MeshRow, mesh: Mesh, settings: CheckConfig) -> Found:
        """Compiles for a mesh, and runs it where it is simulated and ``settings.steps`` asks for it."""
        size = self._batch.past_BT.shape[0]
        if size % (mesh.size * row.accumulate):
            return Found(problem=f"a batch of {size} does not divide over {mesh.size} × {row.accumulate}")
        mesh_config = dataclasses.replace(self._mesh, data=row.data, fsdp=row.fsdp)
        train = dataclasses.replace(self._train, accumulate=row.accumulate)
        init, state, shardings = abstract_state(self._task, self._optimizer, mesh, mesh_config, train.seed)
        place = lambda tree, sharding: jax.tree.map(  # noqa: E731
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )
        objective = place(self._task.objective, sh.replicated(mesh))
        batch = place(self._batch, sh.batch_sharding(mesh))
        update = CompiledUpdate(make_update(self._optimizer, train), shardings, mesh)
        traced = update.trace(state, objective, batch)
        flops = Found(
            executed_flops=jaxpr_flops(traced.jaxpr) / mesh.size, model_flops=self._model_flops(state) / mesh.size
        )
        found = compiled(traced, mesh, settings.effort, flops)
        if not settings.steps or mesh.devices.flat[0].platform != "cpu" or found.problem:
            return found
        real = jax.jit(init, out_shardings=shardings)(jax.random.key(train.seed))
        zeros = jax.tree.map(lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), batch)
        frozen = jax.device_put(self._task.objective, sh.replicated(mesh))
        for _ in range(settings.steps):
            real, metrics = update(real, frozen, zeros)
        return found._replace(loss=float(metrics["loss"]))

    def _model_flops(self, state: Any) -> int:
        """FLOPs of the whole step without rematerialisation and without micro-batches, on all devices."""
        plain = make_update(self._optimizer, dataclasses.replace(self._train, accumulate=1))
        bare = lambda tree: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)  # noqa: E731
        traced = jax.jit(plain).trace(bare(state), bare(self._plain.objective), self._batch)
        return jaxpr_flops(traced.jaxpr)


def without_remat(stage: ConfigDict) -> ConfigDict:
    """The stage with its network's rematerialisation switched off, where it has any."""
    out = ConfigDict(stage.to_dict())
    if "finetune" in out:
        out.finetune.remat = "none"
    if "slow" in out:
        out.slow.unet.remat = "none"
    return out.lock()


def compiled(traced: Any, mesh: Mesh, effort: str, flops: Found) -> Found:
    """Compiles what was traced; ``flops`` with memory and collectives filled in, or with the problem."""
    simulated = mesh.devices.flat[0].platform == "cpu"
    before = jax.config.values["jax_optimization_level"]
    jax.config.update("jax_optimization_level", before if simulated or not effort else effort)
    try:
        program = traced.lower().compile(compiler_options=QUICK_CPU if simulated else None)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise VgenError(
                f"this mesh cannot be compiled for ({str(error).splitlines()[0]:.300}): try another"
            ) from error
        return flops._replace(problem=exhausted(str(error)))
    finally:
        jax.config.update("jax_optimization_level", before)
    memory = program.memory_analysis()
    new = memory.output_size_in_bytes - memory.alias_size_in_bytes
    total = memory.argument_size_in_bytes + new + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    return flops._replace(
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        total_bytes=total,
        collectives=traffic(program.as_text(), mesh.size),
    )


def exhausted(message: str) -> str:
    """The compiler's complaint, shortened to what it needs and what there is, where it says so."""
    number = r"([\d.]+[KMGT]?)"
    numbers = re.search(rf"Used {number} of {number} hbm", message) or re.search(
        rf"\({number}\) exceeds available HBM \({number}\)", message
    )
    return f"needs {numbers[1]} of {numbers[2]}" if numbers else f"does not fit: {message.splitlines()[0]:.200}"


def named(found: Found, chip: Chip | None) -> dict[str, Any]:
    """The flat results of a row."""
    out: dict[str, Any] = {k: v for k, v in found._asdict().items() if k != "collectives"}
    out["fits"] = not found.problem
    for kind, sum_ in found.collectives.items():
        out |= {f"{kind} count": sum_.count, f"{kind} sent_bytes": sum_.sent_bytes}
    if chip is not None and not found.problem:
        out |= {"least_seconds": found.least_seconds(chip), "most_mfu": found.most_mfu(chip)}
    return out


COLUMNS = (
    "topology", "data × fsdp", "micro-batches", "arguments, GiB", "temporaries, GiB", "in all, GiB", "HBM, GiB", "fits",
    "model TFLOP", "executed TFLOP", "collectives: GiB sent (count)", "a step, s, at least", "MFU, at most",
)  # fmt: skip


def header() -> str:
    """The table's first two lines."""
    return f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def table_line(row: MeshRow, found: Found, chip: Chip | None) -> str:
    """A row of the Markdown table; numbers are of one device and one step."""
    memory = (found.argument_bytes, found.temporary_bytes, found.total_bytes)
    sent = ", ".join(f"{kind} {t.sent_bytes / GIB:.3g} ({t.count})" for kind, t in sorted(found.collectives.items()))
    fits = found.problem or ("yes" if found.loss is None else f"yes, ran: loss {found.loss:.4g}")
    known = chip is not None and not found.problem
    cells = [
        row.topology, f"{row.data} × {row.fsdp}", str(row.accumulate),
        *("–" if found.problem else f"{n / GIB:.2f}" for n in memory),
        str(chip.memory) if chip else "–", fits if not found.problem else f"**no**: {fits}",
        f"{found.model_flops / 1e12:.3g}", f"{found.executed_flops / 1e12:.3g}", sent or "–",
        f"{found.least_seconds(chip):.3g}" if known and chip else "–",
        f"{found.most_mfu(chip):.0%}" if known and chip else "–",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"
