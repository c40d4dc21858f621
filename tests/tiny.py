"""What several tests share: a small data set without a simulator, the smallest slow model, and runs as programs."""

import dataclasses
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vgen_jax.data.records import INFO_FILE, EpisodeWriter, shard_name, write_text
from vgen_jax.data.schema import ActionSpace, Command, DatasetInfo, Episode, TextSpan
from vgen_jax.diffusion.masking import Masking
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.files.exports import export
from vgen_jax.types import VideoBatch
from vgen_jax.worlds.autoencoder import AutoencoderConfig, autoencoder_network
from vgen_jax.worlds.slow_networks import NO_WARP, SlowConfig, TextConfig, UNetConfig, denoiser

# Compiling is nearly all that these tests do.
jit = partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)

ROOT = Path(__file__).parent.parent
CONFIG = "configs/slow/vizdoom.py:tiny"
SIZE, CHUNK = 16, 2
COMMANDS = (
    Command(0, "go", ("go", "walk"), ((0.0, 1.0),) * CHUNK),
    Command(1, "turn", ("turn", "rotate"), ((5.0, 0.0),) * CHUNK),
)
SPACES = {
    "continuous": ActionSpace("continuous", ("turn", "forward"), (10.0, 0.5)),
    "discrete": ActionSpace("discrete", ("go", "turn")),
}


def info(splits: dict | None = None) -> DatasetInfo:
    """The description of the data set below."""
    return DatasetInfo(
        source="test", simulator="none", simulator_version="1", fps=8.0, frame_shape=(SIZE, SIZE, 3),
        content="frames", chunk=CHUNK, action_spaces=SPACES, commands=COMMANDS, splits=splits or {},
    )  # fmt: skip


def episode(seed: int, split: str, steps: int = 16) -> Episode:
    """A bright square on a gradient, moved by the actions."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(rng.integers(0, 2, steps // CHUNK), CHUNK).astype(np.int32)
    place = (rng.integers(0, SIZE) + np.cumsum([0, *(1 + ids)])) % SIZE
    y, x = np.mgrid[:SIZE, :SIZE]
    near = (np.abs(x - place[:, None, None]) < 3) & (np.abs(y - SIZE // 2) < 4)
    frames = np.stack([np.broadcast_to(x * 8, near.shape), near * 200, np.broadcast_to(y * 8, near.shape)], -1)
    raw = np.asarray([COMMANDS[i].actions[0] for i in ids], np.float32)
    return Episode(
        source="test", simulator="none", simulator_version="1", seed=seed, split=split, scene=f"{split}/{seed % 2}",
        fps=8.0, frames_THWC=frames.astype(np.uint8), actions={"continuous": raw, "discrete": ids},
        texts=tuple(TextSpan(n, n + CHUNK, COMMANDS[ids[n]].texts[seed % 2]) for n in range(0, steps, CHUNK)),
        extras={"pose": np.stack([place * 10.0, *np.zeros((3, steps + 1))], 1).astype(np.float32)},
    )  # fmt: skip


def write_dataset(folder: Path) -> Path:
    """Eight episodes for training and four for validation, 16×16 pixels, two actions a command."""
    folder.mkdir(parents=True)
    splits = {}
    for split, count in (("train", 8), ("validation", 4)):
        with EpisodeWriter(folder / shard_name(split, 0, 1)) as writer:
            for seed in range(count):
                writer.write(episode(seed, split))
        splits[split] = (writer.info,)
    write_text(folder / INFO_FILE, info(splits).to_json())
    return folder


def slow_config(**changes: object) -> SlowConfig:
    """Two levels of eight channels, text and two action dimensions."""
    values = {
        "unet": UNetConfig(
            block_channels=(8, 8),
            attention_levels=(False, True),
            layers_per_block=1,
            head_dim=8,
            norm_groups=4,
            transformer_in_heads=1,
            scale_shift=False,
            remat="none",
            dtype="float32",
        ),  # fmt: skip
        "text": TextConfig(8, 1, 2, 8),
        "schedule": Schedule("cosine", 50),
        "masking": Masking(),
        "warp": NO_WARP,
        "kind": "v",
        "actions": "continuous",
        "action_dim": 2,
        "latent_channels": 3,
    }
    return SlowConfig(**{**values, **changes})


def write_model(folder: Path) -> Path:
    """The export of the smallest slow model that moves, with random weights: one level, actions, no text."""
    shape = AutoencoderConfig(
        block_channels=(8,), layers_per_block=1, latent_channels=3, norm_groups=4, patch=4, linear_path=False,
        dtype="float32", kl_weight=0.0,
    )  # fmt: skip
    params = random_params(autoencoder_network(shape).init, jnp.zeros((1, 4, 4, 3)))["params"]
    export(folder / "autoencoder", params, {"autoencoder": dataclasses.asdict(shape), "scale": 1.0})
    unet = dataclasses.replace(slow_config().unet, block_channels=(8,), attention_levels=(False,))
    slow = slow_config(kind="x0", unet=unet, text=TextConfig(0, 1, 1, 8))
    export(folder, random_params(denoiser(slow).init), {"slow": dataclasses.asdict(slow), "windows": ((2, 2),)})
    (folder / "dataset.json").write_text(info().to_json())
    return folder


def random_params(init: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Parameters of the shapes that ``init`` gives, random in every entry, the ones that start at zero included.

    Drawn by NumPy: to compile the initialiser of a UNet takes longer than all that is done with it here.
    """
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init(jax.random.key(0), *args, **kwargs))
    fan_in = lambda shape: max(1, int(np.prod(shape[:-1])))  # noqa: E731
    return jax.tree.map(lambda s: rng.normal(size=s.shape, scale=fan_in(s.shape) ** -0.5).astype(s.dtype), shapes)


def latent_batch(b: int = 2, past: int = 2, future: int = 2, size: int = 8, seed: int = 0) -> VideoBatch:
    """A batch of random latents for ``slow_config``."""
    rng = np.random.default_rng(seed)
    frames = past + future
    valid_BT = np.arange(frames) > 0
    return VideoBatch(
        jnp.asarray(rng.normal(size=(b, frames, size, size, 3)), jnp.float32),
        jnp.asarray(np.broadcast_to(np.arange(frames) < past, (b, frames))),
        jnp.asarray(rng.integers(3, 259, (b, 8)), jnp.int32),
        jnp.asarray(rng.normal(size=(b, frames, 2)) * valid_BT[:, None], jnp.float32),
        jnp.asarray(np.broadcast_to(valid_BT, (b, frames))),
        jnp.arange(b, dtype=jnp.int32),
    )


def config(stage: str, changes: dict[str, Any]) -> ConfigDict:
    """A stage of the variant ``tiny`` with some keys changed, dots between the parts of their names."""
    found = importlib.import_module("configs.slow.vizdoom").get_config(f"tiny.{stage}")
    found.update_from_flattened_dict(changes)
    return found


def command(config: str, workdir: Path, *flags: str) -> list[str]:
    """The command line of a run."""
    return [sys.executable, "-m", "vgen_jax.main", f"--config={config}", f"--workdir={workdir}", *flags]


def environment(devices: int = 1) -> dict[str, str]:
    """The environment of a run on that many CPU devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return {**os.environ, "XLA_FLAGS": flags}


def run(config: str, workdir: Path, *flags: str, devices: int = 1) -> subprocess.CompletedProcess[str]:
    """A run as a program, to its end."""
    return subprocess.run(
        command(config, workdir, *flags), cwd=ROOT, env=environment(devices), capture_output=True, text=True
    )


def start(config: str, workdir: Path, *flags: str, devices: int = 1) -> subprocess.Popen[str]:
    """A run as a program, while it goes."""
    return subprocess.Popen(
        command(config, workdir, *flags),
        cwd=ROOT, env=environment(devices), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
