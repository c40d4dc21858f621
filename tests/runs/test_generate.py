"""The run ``generate``, on a random model."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tests import tiny
from vgen_jax import build, media
from vgen_jax.checkpoint import export
from vgen_jax.runs import generate
from vgen_jax.runs.folder import resolved
from vgen_jax.runs.memory import MEMORY_FILE

FRAMES = 6


@pytest.fixture
def workdir(tmp_path: Path) -> Iterator[Path]:
    """A folder beside a data set and an exported model."""
    shape = build.AutoencoderConfig(
        block_channels=(8,), layers_per_block=1, latent_channels=3, norm_groups=4, patch=4, linear_path=False,
        dtype="float32", kl_weight=0.0,
    )  # fmt: skip
    tiny.write_dataset(tmp_path / "data")
    folder = tmp_path / "slow" / "export"
    params = tiny.random_params(build.autoencoder_network(shape).init, jnp.zeros((1, 4, 4, 3)))["params"]
    export(folder / "autoencoder", params, {"autoencoder": dataclasses.asdict(shape), "scale": 1.0})
    slow = tiny.slow_config(kind="x0")
    raw = {"slow": dataclasses.asdict(slow), "windows": ((2, 2),)}
    export(folder, tiny.random_params(build.denoiser(slow).init), raw)
    (folder / "dataset.json").write_text(tiny.info().to_json())
    jax.config.update("jax_disable_most_optimizations", True)  # compiling is nearly all that is done here
    yield tmp_path / "run"
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.slow
def test_a_video_with_a_memory_that_learns(workdir: Path) -> None:
    changes = {
        "generate.frames": FRAMES, "generate.actions": ("go", "turn"), "generate.gif": False,
        "generate.decode_frames": 1,
        "memory.kind": "temp_lora", "memory.temp_lora.lora.rank": 2, "memory.temp_lora.lora.targets": "temp_conv",
        "sampler.steps": 2, "start.episodes": (0, 1),
    }  # fmt: skip
    generate.run(resolved(tiny.config("generate", changes), workdir), workdir)
    results = json.loads((workdir / "results.json").read_text())
    assert (results["frames"], results["videos"], results["memory"]) == (FRAMES, 2, "temp_lora")
    assert results["compilations"] == results["memory_compilations"] == 1
    assert len(media.read_video(workdir / "samples" / "video_1.mp4")) == FRAMES + 1
    learnt = safetensors.numpy.load_file(workdir / MEMORY_FILE)
    assert all(np.abs(x).max() > 0 for name, x in learnt.items() if name.endswith("['b']"))
