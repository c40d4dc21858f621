"""Does a training fit a pod: the table's numbers, made-up inputs, and the TPU's own compiler on a small step."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import jax
import pytest
from ml_collections import ConfigDict

from configs.bench import topology as configs
from configs.slow import modelscope
from vgen_jax.bench.topology import CheckConfig, Found, MeshRow, exhausted, table_line, topology_mesh
from vgen_jax.devices.chips import CHIPS, Chip
from vgen_jax.devices.collectives import Traffic
from vgen_jax.runs import check_topology
from vgen_jax.types import VgenError

# A UNet of one level, as the TPU's compiler takes its time.
SMALL = {
    "stage.data.windows": ((2, 2),), "stage.data.window_weights": (1.0,), "stage.data.batch_size": 8,
    "stage.mesh.min_size": 64, "made.height": 16, "made.width": 16,
}  # fmt: skip
SMALL_SLOW = {
    "stage.slow.unet.block_channels": (8,), "stage.slow.unet.attention_levels": (False,),
    "stage.slow.unet.norm_groups": 4, "stage.slow.unet.transformer_in_heads": 1, "stage.slow.text.width": 0,
    "stage.data.token_length": 0, "autoencoder.block_channels": (8,), "autoencoder.patch": 4,
}  # fmt: skip


def small(meshes: tuple, **changes: Any) -> ConfigDict:
    config = configs.get_config("slow/vizdoom:tiny")
    config.update_from_flattened_dict({**SMALL, **SMALL_SLOW, "check.meshes": meshes, **changes})
    return config.lock()


def results(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    check_topology.run(config, workdir)
    return json.loads((workdir / "results.json").read_text())


@pytest.mark.long
def test_simulated_devices_compile_and_run(tmp_path: Path) -> None:
    meshes = (("cpu:2", 2, 1, 1), ("cpu:2", 1, 2, 2), ("cpu:8", 8, 1, 2))
    found = results(small(meshes, **{"check.steps": 1}), tmp_path)
    whole, split = ("cpu:2 2x1 accumulate 1: ", "cpu:2 1x2 accumulate 2: ")
    assert found[whole + "fits"] and found[whole + "loss"] > 0
    # The state is nearly all of the arguments, and fsdp splits it.
    assert found[split + "argument_bytes"] < 0.75 * found[whole + "argument_bytes"]
    assert found[whole + "all-reduce sent_bytes"] > 0
    assert found[whole + "model_flops"] == pytest.approx(found[whole + "executed_flops"], rel=0.01)
    assert found[split + "model_flops"] == found[whole + "model_flops"]
    assert not found["cpu:8 8x1 accumulate 2: fits"]
    lines = (tmp_path / check_topology.TABLE_FILE).read_text().splitlines()
    assert len(lines) == 5 and "does not divide" in lines[-1]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install libtpu")
def test_the_real_tpu_compiler_compiles_a_small_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jax.devices()  # the CPU's flags have been read then; libtpu ends the process over some that it does not know
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    found = results(small((("v5e:2x2", 2, 2, 1),), **{"check.effort": "O0"}), tmp_path)
    name = "v5e:2x2 2x2 accumulate 1: "
    assert found[name + "fits"] and 0 < found[name + "total_bytes"] < CHIPS["TPU v5 lite"].memory * 2**30
    assert 0 < found[name + "most_mfu"] < 1 and found[name + "least_seconds"] > 0
    assert sum(value for key, value in found.items() if key.endswith("sent_bytes")) > 0


@pytest.mark.long
def test_a_fine_tuning_is_checked_without_its_model(tmp_path: Path) -> None:
    slow, autoencoder = modelscope.TINY
    config = configs.get_config("slow/modelscope:finetune")
    changes = {**SMALL, "check.meshes": (("cpu:1", 1, 1, 1),), "made.latents": True}
    config.update_from_flattened_dict({key: value for key, value in changes.items()})
    config.slow, config.autoencoder = ConfigDict(slow), ConfigDict(autoencoder)
    found = results(config.lock(), tmp_path)
    name = "cpu:1 1x1 accumulate 1: "
    assert found[name + "fits"]
    # Its rematerialisation recomputes a part of the forward pass.
    assert 1.02 < found[name + "executed_flops"] / found[name + "model_flops"] < 4 / 3


def test_the_bound_is_the_longer_of_computing_and_sending() -> None:
    chip = Chip(flops=100.0, memory=1, link=10.0)
    found = Found(executed_flops=400.0, model_flops=300.0, collectives={"all-reduce": Traffic(1, 20)})
    assert (found.least_seconds(chip), found.most_mfu(chip)) == (4.0, 0.75)
    sending = found._replace(collectives={"all-reduce": Traffic(1, 40), "all-gather": Traffic(2, 20)})
    assert (sending.sent_bytes, sending.least_seconds(chip), sending.most_mfu(chip)) == (60, 6.0, 0.5)
    line = table_line(MeshRow("v5e:1x2", 2, 1, 1), sending, chip)
    assert "| 6 | 50% |" in line and "| yes |" in line


@pytest.mark.parametrize(
    "complaint",
    [
        "in memory space hbm. Used 20.33G of 15.75G hbm. Exceeded by 4.58G.",
        "on HBM, the total memory required for HLO temporaries (20.33G) exceeds available HBM (15.75G).",
    ],
)
def test_what_does_not_fit_says_by_how_much(complaint: str) -> None:
    problem = exhausted(f"RESOURCE_EXHAUSTED: Ran out of memory {complaint}")
    assert problem == "needs 20.33G of 15.75G"
    line = table_line(MeshRow("v5e:8x8", 64, 1, 2), Found(problem=problem), CHIPS["TPU v5 lite"])
    assert "**no**: needs 20.33G of 15.75G" in line and "0.00" not in line
    assert exhausted("RESOURCE_EXHAUSTED: Too much\nat 0x1") == "does not fit: RESOURCE_EXHAUSTED: Too much"


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (MeshRow("v0:1x1", 1, 1, 1), "topology 'v0:1x1'"),
        (MeshRow("cpu:2", 3, 1, 1), "3x1 for cpu:2, which has 2 devices"),
        (MeshRow("cpu:4096", 4096, 1, 1), "mesh.cpu_devices"),
    ],
)
def test_a_mesh_that_cannot_be_is_named(row: MeshRow, named: str) -> None:
    with pytest.raises(VgenError, match=named):
        topology_mesh(row)


@pytest.mark.parametrize(("key", "value"), [("effort", "O4"), ("steps", -1)])
def test_settings_out_of_range_are_refused(key: str, value: str | int) -> None:
    with pytest.raises(VgenError, match=f"check.{key}"):
        CheckConfig(**{"meshes": (), "effort": "", "steps": 0, key: value})


@pytest.mark.parametrize("arg", list(configs.MESHES))
def test_every_pipeline_named_has_a_config(arg: str) -> None:
    config = configs.get_config(arg)
    assert config.stage.run == "train" and config.check.meshes == configs.MESHES[arg]
