"""Device meshes, parameter shardings and multi-host start-up.

A mesh has two axes: ``data`` (replicated parameters) and ``fsdp`` (parameters split). Batches are split over both.
Which axis of a parameter is split is decided here, by regular expressions over its path, never inside a model.
"""

import dataclasses
import re
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vgen_jax.types import VgenError

AXES = ("data", "fsdp")
HEARTBEAT_SECONDS = 30  # of silence after which a process is given up
# In what Gloo (CPU), NCCL (GPU) and JAX's coordination service say when a process has ended.
LOST = r"(?i)connection (reset|closed|refused)|broken pipe|socket closed|heartbeat|nccl.*(remote|abort)|task.*unhealthy"


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Shape of the device mesh.

    Attributes:
        data: devices along ``data``; -1 takes all that ``fsdp`` leaves.
        fsdp: devices along ``fsdp``; 1 does not split parameters.
        rules: (regex over the parameter's path, axis to split or -1 for none); the first match wins. A parameter
            that none matches is split along its largest axis that the mesh divides, if it has at least ``min_size``
            elements.
        min_size: smaller parameters are replicated.
        distributed: call ``jax.distributed.initialize()`` before anything touches a device (pods find their peers by
            themselves; elsewhere set coordinator_address, num_processes and process_id).
        coordinator_address: host:port of process 0; empty lets JAX find it.
        num_processes, process_id: used with ``coordinator_address``.
        cpu_devices: without an accelerator, split the host into that many devices; 0 leaves it one. Small networks do
            not keep all cores of one device busy.
    """

    data: int = -1
    fsdp: int = 1
    rules: tuple[tuple[str, int], ...] = ()
    min_size: int = 16_384
    distributed: bool = False
    coordinator_address: str = ""
    num_processes: int = 1
    process_id: int = 0
    cpu_devices: int = 0

    def __post_init__(self) -> None:
        if self.cpu_devices < 0:
            raise VgenError(f"mesh.cpu_devices is {self.cpu_devices}: use 0 or more")


def split_host(config: MeshConfig) -> None:
    """Splits the host into ``config.cpu_devices`` devices; call before JAX touches a device."""
    if config.cpu_devices:
        jax.config.update("jax_num_cpu_devices", config.cpu_devices)


def initialize_distributed(config: MeshConfig) -> None:
    """Joins the other processes where ``config.distributed`` asks for it; call before any other JAX function."""
    if not config.distributed:
        return
    where: dict[str, Any] = {}
    if config.coordinator_address:
        where = {
            "coordinator_address": config.coordinator_address,
            "num_processes": config.num_processes,
            "process_id": config.process_id,
        }
    jax.distributed.initialize(**where, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)


def lost_process(error: BaseException | None) -> str:
    """What to tell of an error that another process's end has caused in this one; empty for any other error.

    A collective whose connection breaks raises at once. A machine that falls silent is found missing after
    ``HEARTBEAT_SECONDS``; JAX itself then ends the others.
    """
    told, seen = "", error
    while seen is not None and not told:  # what a broken connection leads to hides it: a barrier of a checkpoint, say
        first = next(iter(str(seen).strip().splitlines()), "")
        told, seen = first if re.search(LOST, first) else "", seen.__cause__ or seen.__context__
    if not told:
        return ""
    return (
        f"another process of this run is gone ({told:.120}): start all of them again, as many as there are now; "
        "the run goes on from its last checkpoint"
    )


def make_mesh(config: MeshConfig) -> Mesh:
    """The mesh over all devices of all processes.

    Raises:
        VgenError: if data × fsdp is not the number of devices.
    """
    devices = jax.devices()
    if config.fsdp < 1:
        raise VgenError(f"mesh.fsdp is {config.fsdp}: use 1 or more devices")
    data = len(devices) // config.fsdp if config.data == -1 else config.data
    if data * config.fsdp != len(devices):
        raise VgenError(
            f"mesh.data {data} × mesh.fsdp {config.fsdp} is not the number of devices, {len(devices)}: change one"
        )
    return Mesh(np.asarray(devices).reshape(data, config.fsdp), AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis split over every device."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def tree_shardings(mesh: Mesh, tree: Any, config: MeshConfig) -> Any:
    """A NamedSharding for every leaf of ``tree`` (arrays or ShapeDtypeStructs)."""

    def of(path: tuple, leaf: Any) -> NamedSharding:
        axis = _split_axis(jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape, config)
        spec: list[str | None] = [None] * len(leaf.shape)
        if axis is not None:
            spec[axis] = "fsdp"
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(of, tree)


def _split_axis(path: str, shape: tuple[int, ...], config: MeshConfig) -> int | None:
    if config.fsdp == 1 or not shape:
        return None
    for pattern, axis in config.rules:
        if re.search(pattern, path):
            if axis == -1:
                return None
            if not 0 <= axis < len(shape):
                raise VgenError(f"mesh.rules '{pattern}' splits axis {axis} of {path}, of shape {shape}: change it")
            if shape[axis] % config.fsdp:
                raise VgenError(
                    f"mesh.rules '{pattern}' splits axis {axis} of {path} {shape}, which {config.fsdp} does not divide"
                )
            return axis
    if int(np.prod(shape)) < config.min_size:
        return None
    candidates = [i for i, size in enumerate(shape) if size % config.fsdp == 0]
    return max(candidates, key=lambda i: shape[i]) if candidates else None


def global_batch(sharding: NamedSharding, local: Any) -> Any:
    """Global arrays from this process's rows of a batch (a pytree of NumPy arrays).

    Raises:
        VgenError: if the rows do not divide over this process's devices.
    """
    devices = len(sharding.mesh.local_devices)
    for rows in {len(leaf) for leaf in jax.tree.leaves(local)}:
        if rows % devices:
            raise VgenError(f"{rows} rows of a batch do not divide over {devices} devices: change data.batch_size")
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), local)


def gathered(tree: Any, mesh: Mesh) -> Any:
    """The whole tree as NumPy arrays on every process, whatever its sharding; a collective with several processes."""
    return jax.device_get(jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree))
