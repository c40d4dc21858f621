"""Checkpoints and exports."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.flax

from vgen_jax.devices import sharding as sh
from vgen_jax.files.exports import export
from vgen_jax.learning.checkpoint import Checkpoints
from vgen_jax.learning.state import OptimizerConfig, TrainState, init_state, make_optimizer
from vgen_jax.types import Key, Params, VgenError

OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=0.1))


def init(rng: Key) -> Params:
    return {"layer": {"kernel": jax.random.normal(rng, (8, 16)), "bias": jnp.arange(3.0)}}


def state(step: int = 3) -> TrainState:
    """A state in which no two parts are equal."""
    fresh = init_state(init, OPTIMIZER, jax.random.key(0))
    _, opt_state = OPTIMIZER.update(fresh.params, fresh.opt_state, fresh.params)
    return TrainState(jnp.asarray(step), fresh.params, jax.tree.map(lambda p: p + 1, fresh.params), opt_state)


WHOLE = sh.MeshConfig()


def abstract(of: TrainState, mesh: sh.MeshConfig = WHOLE) -> TrainState:
    shardings = sh.tree_shardings(sh.make_mesh(mesh), of, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), of, shardings)


def saved(folder: Path, *steps: int, keep: int = 2) -> Path:
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(state(step), {"batch": step})
    checkpoints.close()
    return folder


def assert_same(a: object, b: object) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_state_and_position_come_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(saved(tmp_path / "checkpoints", 3))
    found, position = checkpoints.restore(abstract(state()))
    assert_same(found, state(3))
    assert position == {"batch": 3} and checkpoints.latest_step() == 3


def test_the_newest_are_kept(tmp_path: Path) -> None:
    folder = saved(tmp_path / "checkpoints", 1, 2, 3, 3, keep=2)
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]
    found, position = Checkpoints(folder).restore(abstract(state()), step=2)
    assert int(found.step) == position["batch"] == 2


def test_what_was_being_written_is_ignored(tmp_path: Path) -> None:
    folder = saved(tmp_path / "checkpoints", 1)
    shutil.copytree(folder / "1", folder / "2.orbax-checkpoint-tmp")
    assert Checkpoints(folder).latest_step() == 1


@pytest.mark.parametrize("fsdp", [2, 8])
def test_a_checkpoint_restores_on_another_mesh(tmp_path: Path, fsdp: int) -> None:
    config = sh.MeshConfig(fsdp=fsdp, min_size=1)
    on_mesh = jax.device_put(state(), jax.tree.map(lambda s: s.sharding, abstract(state(), config)))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(on_mesh, {})
    checkpoints.wait()
    other = sh.MeshConfig(fsdp=4, min_size=1)
    found, _ = checkpoints.restore(abstract(state(), other))
    assert_same(found, state())
    for tree in (found.params, found.ema, found.opt_state[1][0].mu):
        assert tree["layer"]["kernel"].addressable_shards[0].data.shape == (8, 4)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"layer": {"kernel": jnp.ones((8, 16))}}, "unexpected layer/bias"),
        ({"layer": {"kernel": jnp.ones((8, 16)), "scale": jnp.ones(3)}}, "missing layer/scale; unexpected layer/bias"),
        ({"layer": {"kernel": jnp.ones((8, 4)), "bias": jnp.ones(3)}}, r"layer/kernel is \(8, 16\), not \(8, 4\)"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_by_name(tmp_path: Path, other: Params, named: str) -> None:
    checkpoints = Checkpoints(saved(tmp_path, 3))
    with pytest.raises(VgenError, match=named) as error:
        checkpoints.restore(abstract(init_state(lambda rng: other, OPTIMIZER, jax.random.key(0))))
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_optimiser_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(saved(tmp_path, 3))
    other = make_optimizer(OptimizerConfig(clip=0.0))
    with pytest.raises(VgenError, match="does not fit this configuration") as error:
        checkpoints.restore(abstract(init_state(init, other, jax.random.key(0))))
    assert "\n" not in str(error.value)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]).returncode:
        pytest.skip("only root may make a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_named(full_disk: Path) -> None:
    big = {"layer": {"kernel": jax.random.normal(jax.random.key(0), (256, 256))}}
    with pytest.raises(VgenError, match=f"no space left to write under {full_disk}/export: free space"):
        export(full_disk / "export", big, {})
    shutil.rmtree(full_disk / "export")
    checkpoints = Checkpoints(full_disk / "checkpoints")
    checkpoints.save(init_state(lambda rng: big, OPTIMIZER, jax.random.key(0)), {})
    with pytest.raises(VgenError, match=f"no space left to write under {full_disk}/checkpoints: free space"):
        checkpoints.close()
    assert Checkpoints(full_disk / "checkpoints").latest_step() is None


def test_a_failing_write_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where no small disk can be made."""

    def fail(flat: object, path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(safetensors.flax, "save_file", fail)
    with pytest.raises(VgenError, match=f"no space left to write under {tmp_path}"):
        export(tmp_path, {"a": jnp.ones(2)}, {})
