"""Device meshes: where arrays lie, and that it changes nothing."""

import socket
from collections.abc import Callable
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tests import tiny
from vgen_jax.config import section
from vgen_jax.devices import sharding as sh
from vgen_jax.files.log import METRICS_FILE, read_metrics
from vgen_jax.files.run_folder import resolved
from vgen_jax.learning.slow import TrainConfig, train
from vgen_jax.learning.state import OptimizerConfig, TrainState
from vgen_jax.tasks.autoencoder import autoencoder_task
from vgen_jax.types import VgenError
from vgen_jax.worlds.autoencoder import load_autoencoder

STEPS = 20
FLAGS = {
    "autoencoder.block_channels": (8,), "autoencoder.patch": 4, "data.batch_size": 8, "train.steps": STEPS,
    "train.log_every": 1, "train.checkpoint_every": STEPS, "mesh.min_size": 64,
}  # fmt: skip


def test_a_mesh_takes_every_device() -> None:
    assert dict(sh.make_mesh(sh.MeshConfig(fsdp=2)).shape) == {"data": 4, "fsdp": 2}
    for wrong in (sh.MeshConfig(data=3, fsdp=2), sh.MeshConfig(fsdp=16), sh.MeshConfig(fsdp=3)):
        with pytest.raises(VgenError, match="is not the number of devices, 8"):
            sh.make_mesh(wrong)
    with pytest.raises(VgenError, match="mesh.fsdp is 0"):
        sh.make_mesh(sh.MeshConfig(fsdp=0))


def test_the_largest_axis_that_divides_is_split_and_small_arrays_are_not() -> None:
    config = sh.MeshConfig(data=2, fsdp=4, min_size=32)
    shapes = {"kernel": (3, 3, 8, 12), "odd": (9, 7), "bias": (8,), "count": ()}
    tree = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    found = {name: s.spec for name, s in sh.tree_shardings(sh.make_mesh(config), tree, config).items()}
    whole = {"odd": PartitionSpec(None, None), "bias": PartitionSpec(None), "count": PartitionSpec()}
    assert found == {"kernel": PartitionSpec(None, None, None, "fsdp"), **whole}


def test_rules_come_first() -> None:
    tree = {"a": {"kernel": jnp.ones((8, 16))}, "b": {"kernel": jnp.ones((8, 16)), "bias": jnp.ones(16)}}
    mesh = sh.make_mesh(sh.MeshConfig(fsdp=8))

    def specs(*rules: tuple[str, int]) -> list[PartitionSpec]:
        config = sh.MeshConfig(fsdp=8, min_size=1, rules=rules)
        return [s.spec for s in jax.tree.leaves(sh.tree_shardings(mesh, tree, config))]

    split, first = PartitionSpec(None, "fsdp"), PartitionSpec("fsdp", None)
    assert specs(("a/kernel", 0)) == [first, PartitionSpec("fsdp"), split]
    assert specs(("kernel$", -1)) == [PartitionSpec(None, None), PartitionSpec("fsdp"), PartitionSpec(None, None)]
    with pytest.raises(VgenError, match="mesh.rules '\\^b' splits axis 1 of b/bias"):
        specs(("^b", 1))
    with pytest.raises(VgenError, match="splits axis 0 of a/kernel .*which 3 does not divide"):
        sh.tree_shardings(mesh, tree, sh.MeshConfig(fsdp=3, rules=(("a", 0),)))


def test_a_batch_lies_on_all_devices() -> None:
    mesh = sh.make_mesh(sh.MeshConfig(fsdp=4))
    local = {"x": np.arange(48.0).reshape(16, 3), "n": np.arange(16)}
    batch = sh.global_batch(sh.batch_sharding(mesh), local)
    jax.tree.map(np.testing.assert_array_equal, batch, local)
    assert {shard.data.shape for shard in batch["x"].addressable_shards} == {(2, 3)}
    assert len({shard.device for shard in batch["n"].addressable_shards}) == 8
    with pytest.raises(VgenError, match="12 rows .* 8 devices"):
        sh.global_batch(sh.batch_sharding(mesh), {"x": np.ones((12, 3))})


def test_gathering_gives_the_whole_array() -> None:
    mesh = sh.make_mesh(sh.MeshConfig(fsdp=8))
    config = sh.MeshConfig(fsdp=8, min_size=1)
    tree = {"a": np.arange(64.0, dtype=np.float32).reshape(8, 8)}
    found = sh.gathered(jax.device_put(tree, sh.tree_shardings(mesh, tree, config)), mesh)
    assert isinstance(found["a"], np.ndarray)
    np.testing.assert_array_equal(found["a"], tree["a"])


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        (
            "UNKNOWN: Gloo AllGather failed: [pair.cc:538] Read error [127.0.0.1]:50381: Connection reset by peer\n1",
            True,
        ),
        ("UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n/job:jax_worker/task:1", True),
        ("RESOURCE_EXHAUSTED: Out of memory", False),
        ("", False),
    ],
)
def test_the_end_of_another_process_is_told_from_other_errors(message: str, lost: bool) -> None:
    line = sh.lost_process(ValueError(message))
    assert bool(line) == lost and "\n" not in line
    assert not lost or "start all of them again" in line


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], tuple[TrainState, list[float]]]:
    """(data, fsdp) -> the final state and the loss curve of an autoencoder trained on that mesh."""
    folder = tmp_path_factory.mktemp("sharding")
    tiny.write_dataset(folder / "data")

    def run(data: int, fsdp: int) -> tuple[TrainState, list[float]]:
        config = tiny.config("autoencoder", FLAGS)
        workdir = folder / f"{data}x{fsdp}"
        config = resolved(config, workdir)
        task, _ = autoencoder_task(config)
        mesh = section(sh.MeshConfig, {**config.mesh.to_dict(), "data": data, "fsdp": fsdp}, "mesh")
        optimizer = section(OptimizerConfig, config.optimizer, "optimizer")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sh.jax, "devices", lambda: jax.local_devices()[: data * fsdp])
            state = train(task, section(TrainConfig, config.train, "train"), optimizer, mesh, workdir)
        return state, [entry["loss"] for entry in read_metrics(workdir / METRICS_FILE)]

    return cache(run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "fsdp"), [pytest.param(8, 1, marks=pytest.mark.long), (2, 4), pytest.param(1, 8, marks=pytest.mark.long)]
)
def test_the_mesh_does_not_change_the_loss(trained: Callable, data: int, fsdp: int) -> None:
    (_, single), (state, curve) = trained(1, 1), trained(data, fsdp)
    assert len(single) == STEPS and single[-1] < single[0]
    np.testing.assert_allclose(curve, single, rtol=1e-4)
    kernels = [leaf for leaf in jax.tree.leaves((state.params, state.ema)) if leaf.ndim == 4 and leaf.shape[-1] == 8]
    assert kernels
    for kernel in kernels:
        assert {shard.data.size for shard in kernel.addressable_shards} == {kernel.size // fsdp}


@pytest.mark.long
def test_two_processes_do_not_change_the_loss(trained: Callable, tmp_path: Path) -> None:
    """Four devices each, parameters split over all eight."""
    tiny.write_dataset(tmp_path / "data")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = {
        **FLAGS, "mesh.fsdp": 8, "mesh.min_size": 1024, "mesh.distributed": True, "mesh.num_processes": 2,
        "mesh.coordinator_address": f"localhost:{port}",
    }  # fmt: skip
    processes = [
        tiny.start(
            f"{tiny.CONFIG}.autoencoder", tmp_path / "autoencoder",
            *(f"--config.{key}={value}" for key, value in {**flags, "mesh.process_id": number}.items()), devices=4,
        )
        for number in range(2)
    ]  # fmt: skip
    try:
        errors = [process.communicate(timeout=500)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    found = read_metrics(tmp_path / "autoencoder" / METRICS_FILE)
    np.testing.assert_allclose([entry["loss"] for entry in found], trained(1, 1)[1], rtol=1e-4)
    assert load_autoencoder(tmp_path / "autoencoder" / "export").channels == 4
