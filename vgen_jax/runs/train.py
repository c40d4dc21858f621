"""Run ``train``: any objective, through the one loop; ends in an export that other runs load.

``config.objective.kind`` chooses what is trained: ``autoencoder``, ``masked_diffusion``, ``continued``, ``finetune``,
``place``, ``action``, ``adapter``, ``black_box`` or ``noisy_actions``.
"""

import dataclasses
import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial
from ml_collections import ConfigDict

from vgen_jax.black_box.ask import Ask
from vgen_jax.config import section
from vgen_jax.data.batches import PipelineConfig, make_iterator
from vgen_jax.data.records import INFO_FILE, read_info
from vgen_jax.data.schema import DatasetInfo
from vgen_jax.devices.sharding import MeshConfig, gathered, make_mesh
from vgen_jax.files.log import is_main_process, progress
from vgen_jax.files.run_folder import keep_config, resolved
from vgen_jax.learning.checkpoint import export
from vgen_jax.learning.slow import Task, TrainConfig, train
from vgen_jax.learning.state import OptimizerConfig
from vgen_jax.models.autoencoder_kl import AutoencoderKL, principal_path
from vgen_jax.objectives import autoencoder as autoencoder_objective
from vgen_jax.objectives import masked_diffusion as diffusion_objective
from vgen_jax.tasks.action import action_task
from vgen_jax.tasks.adapter import adapter_task, classifier_task
from vgen_jax.tasks.black_box import black_box_task, remote_task
from vgen_jax.tasks.finetune import finetune_task
from vgen_jax.tasks.inputs import Batches, Finish, latents_folder, pipeline_config
from vgen_jax.tasks.place import place_task
from vgen_jax.tasks.warm_start import continued_task
from vgen_jax.types import Array, Key, Params, VgenError
from vgen_jax.worlds.slow import AutoencoderConfig, action_width, autoencoder_network, load_autoencoder, start_warp
from vgen_jax.worlds.slow_networks import SlowConfig, denoiser

SAMPLE_BATCHES = 32


def run(config: ConfigDict, workdir: Path) -> None:
    """Trains, shows a progress bar, and exports the moving average of the parameters."""
    if config.objective.kind not in TASKS:
        raise VgenError(f"config key objective.kind is '{config.objective.kind}': use one of {', '.join(TASKS)}")
    task, finish = TASKS[config.objective.kind](config)
    train_task(config, workdir, task, finish)


def train_over(ask: Ask, config: ConfigDict, workdir: Path) -> None:
    """Trains AVID's adapter over a black box of one's own; ``config`` as in ``configs/avid/black_box.py``."""
    config = resolved(config, workdir.absolute())
    train_task(config, workdir, *black_box_task(config, ask))


def train_task(config: ConfigDict, workdir: Path, task: Task, finish: Finish) -> None:
    """Trains a task by the sections ``train``, ``optimizer`` and ``mesh`` of the config."""
    train_config = section(TrainConfig, config.train, "train")
    optimizer = section(OptimizerConfig, config.optimizer, "optimizer")
    mesh = section(MeshConfig, config.mesh, "mesh")
    if is_main_process():
        keep_config(config, workdir)
        print(config, flush=True)
    with progress(total=train_config.steps, desc=f"train {workdir.name}", unit="step") as bar:

        def report(step: int, metrics: Mapping[str, float]) -> None:
            bar.update(step - bar.n)
            bar.set_postfix({k: f"{v:.4g}" for k, v in metrics.items()}, refresh=False)

        state = train(task, train_config, optimizer, mesh, workdir, report)
    params = gathered(state.ema, make_mesh(mesh))
    if is_main_process():
        finish(params, workdir / "export")


def autoencoder_task(config: ConfigDict) -> tuple[Task, Finish]:
    """Trains the KL autoencoder; its export carries the scale that gives latents unit variance."""
    shape = section(AutoencoderConfig, config.autoencoder, "autoencoder")
    network = autoencoder_network(shape)
    data = pipeline_config(config)
    if read_info(data.data_dir).content != "frames":
        raise VgenError(f"{data.data_dir} holds latents: an autoencoder is trained on frames")

    def reconstruct(params: Params, x: Array, rng: Key) -> Any:
        return network.apply({"params": params}, x, rng)

    def init(rng: Key) -> Params:
        return network.init(rng, np.zeros((1, network.factor, network.factor, 3), np.float32))["params"]

    def finish(params: Params, folder: Path) -> None:
        scale = latent_scale(network, params, data)
        export(folder, params, {"autoencoder": dataclasses.asdict(shape), "scale": scale})

    def start(params: Params) -> Params:
        return {**params, **principal_path(sample_frames(data), network.factor, network.latent_channels)}

    objective = autoencoder_objective.autoencoder(reconstruct, shape.kl_weight)
    return Task(init, objective, Batches(data), start if network.linear_path else None), finish


def sample_frames(data: PipelineConfig) -> np.ndarray:
    """The frames of the first batches of the training data, (F, H, W, 3) in [-1, 1]; the same on every process."""
    batches = make_iterator(data, 0, 1)
    video = np.concatenate([next(batches)["video"] for _ in range(SAMPLE_BATCHES)])
    return np.asarray(autoencoder_objective.to_unit(video.reshape(-1, *video.shape[2:])))


def latent_scale(network: AutoencoderKL, params: Params, data: PipelineConfig) -> float:
    """1 / standard deviation of the latents over the first batches of the training data."""
    encode = jax.jit(lambda params, x: network.apply({"params": params}, x, method="encode")[0])
    frames = sample_frames(data)
    means = [np.asarray(encode(params, part)) for part in np.array_split(frames, SAMPLE_BATCHES)]
    return float(1.0 / np.std(np.concatenate([m.reshape(-1) for m in means])))


def diffusion_task(config: ConfigDict) -> tuple[Task, Finish]:
    """Slow learning (SlowFast-VGen §3.1.1) on frames, through a frozen autoencoder, or on stored latents."""
    data = pipeline_config(config)
    info = read_info(data.data_dir)
    autoencoder_folder = latents_folder(Path(config.autoencoder_dir), info, data.data_dir)
    autoencoder = load_autoencoder(autoencoder_folder)
    slow = slow_config(config, info, autoencoder.channels)
    to_latents = autoencoder.encode if info.content == "frames" else Partial(lambda latents: latents)
    networks = denoiser(slow)
    loss = section(diffusion_objective.DiffusionLoss, config.objective.loss, "objective.loss")
    objective = diffusion_objective.masked_diffusion(
        networks.embed, networks.predict, to_latents, slow.schedule, slow.masking, loss
    )

    def finish(params: Params, folder: Path) -> None:
        raw = {"slow": dataclasses.asdict(slow), "windows": data.windows}
        export(folder, params, raw)
        shutil.copyfile(Path(data.data_dir) / INFO_FILE, folder / "dataset.json")
        shutil.copytree(autoencoder_folder, folder / "autoencoder", dirs_exist_ok=True)

    start = functools.partial(start_warp, slow, autoencoder) if slow.warp.width else None
    return Task(networks.init, objective, Batches(data), start), finish


def slow_config(config: ConfigDict, info: DatasetInfo, channels: int) -> SlowConfig:
    """The definition of the slow model; what the data and the autoencoder determine is filled in from them."""
    longest, tokens = config.slow.text.max_length, config.data.token_length
    if config.slow.text.width and not 0 < tokens <= longest:
        raise VgenError(
            f"config key data.token_length is {tokens}: use 1 to {longest} (slow.text.max_length), or slow.text.width 0"
        )
    values = {
        **config.slow.to_dict(),
        "kind": config.objective.loss.kind,
        "actions": config.data.action,
        "action_dim": action_width(info, config.data.action),
        "latent_channels": channels,
    }
    return section(SlowConfig, values, "slow")


TASKS: dict[str, Callable[[ConfigDict], tuple[Task, Finish]]] = {
    "autoencoder": autoencoder_task,
    "masked_diffusion": diffusion_task,
    "continued": continued_task,
    "finetune": finetune_task,
    "place": place_task,
    "action": action_task,
    "adapter": adapter_task,
    "black_box": remote_task,
    "noisy_actions": classifier_task,
}
