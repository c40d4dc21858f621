"""Inputs for a training step whose data and weights are not there: its shapes are right, its numbers are zeros.

Neither speed nor memory depends on what a network has learnt, so this is enough to compile or to time the very step
that ``train`` runs, and a model of random weights to time a rollout.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.convert import exports, files, kl_vae, modelscope, schedulers
from vgen_jax.data.batches import BatchesConfig
from vgen_jax.data.records import INFO_FILE, EpisodeWriter, shard_name, write_text
from vgen_jax.data.schema import ActionSpace, Command, DatasetInfo, Episode, TextSpan
from vgen_jax.data.text import encode_text
from vgen_jax.files.exports import export
from vgen_jax.tasks.inputs import batches_config
from vgen_jax.types import Array, VgenError
from vgen_jax.worlds import pretrained
from vgen_jax.worlds.autoencoder import AutoencoderConfig, autoencoder_network, autoencoder_of, load_autoencoder
from vgen_jax.worlds.latents import encode_data
from vgen_jax.worlds.slow import SlowModel
from vgen_jax.worlds.slow_networks import SlowConfig, denoiser
from vgen_jax.worlds.texts import window_tokens

OBJECTIVES = ("autoencoder", "masked_diffusion", "finetune")  # objectives that inputs can be made for
SCENE = "made/0"


@dataclasses.dataclass(frozen=True)
class SyntheticData:
    """What the inputs are to be like.

    Attributes:
        height, width: of the frames, in pixels.
        latents: store latents, as after the run ``encode``; else frames.
        action_dim: width of the continuous actions; there are as many discrete ones.
    """

    height: int
    width: int
    latents: bool
    action_dim: int

    def __post_init__(self) -> None:
        for name in ("height", "width", "action_dim"):
            if getattr(self, name) < 1:
                raise VgenError(f"made.{name} is {getattr(self, name)}: use 1 or more")


def synthetic_stage(
    stage: ConfigDict, made: SyntheticData, slow: Mapping[str, Any], autoencoder: AutoencoderConfig, folder: Path
) -> ConfigDict:
    """``stage``, a config of ``train``, on inputs that are written to ``folder``.

    Args:
        slow: the pretrained network's fields (``worlds.slow_networks.SlowConfig``), for a fine-tuning.

    Raises:
        VgenError: for an objective that inputs cannot be made for.
    """
    if stage.objective.kind not in OBJECTIVES:
        raise VgenError(
            f"no inputs can be made for objective.kind '{stage.objective.kind}': use {', '.join(OBJECTIVES)}"
        )
    write_frames(folder / "frames", batches_config(stage), made)
    write_autoencoder(folder / "autoencoder", autoencoder)
    data = folder / "frames"
    if made.latents:
        data = folder / "latents"
        write_latents(folder / "frames", data, folder / "autoencoder")
    out = {**stage.to_dict(), "autoencoder_dir": str(folder / "autoencoder")}
    out["data"] = {**out["data"], "data_dir": str(data)}
    if stage.objective.kind == "finetune":
        write_pretrained(folder / "pipeline", folder / "autoencoder", section(SlowConfig, slow, "slow"))
        windows = batches_config(ConfigDict(out))
        tokens = window_tokens(str(data), windows.split, windows.windows, windows.token_length)
        tokens = np.concatenate([tokens, np.eye(1, windows.token_length, dtype=np.int32)])
        embedding = np.zeros((len(tokens), pretrained.CLIP_TOKENS, slow["text"]["width"]), np.float16)
        pretrained.write_texts(folder / "texts", {"token": tokens, "embedding": embedding})
        here = {"model_dir": str(folder / "pipeline"), "texts_dir": str(folder / "texts")}
        out["finetune"] = {**out["finetune"], **here}
    return ConfigDict(out).lock()


def write_frames(folder: Path, data: BatchesConfig, made: SyntheticData) -> None:
    """One black episode that is long enough for every window, with both kinds of actions and a text."""
    folder.mkdir(parents=True)
    steps = max(sum(window) for window in data.windows)
    ids = tuple(f"action {i}" for i in range(made.action_dim))
    spaces = {
        "continuous": ActionSpace("continuous", ids, (1.0,) * made.action_dim),
        "discrete": ActionSpace("discrete", ids),
    }
    episode = Episode(
        source="made", simulator="none", simulator_version="", seed=0, split=data.split, scene=SCENE, fps=8.0,
        frames_THWC=np.zeros((steps + 1, made.height, made.width, 3), np.uint8),
        actions={
            "continuous": np.zeros((steps, made.action_dim), np.float32), "discrete": np.zeros(steps, np.int32),
        },
        texts=(TextSpan(0, steps, "go"),), extras={"pose": np.zeros((steps + 1, 4), np.float32)},
    )  # fmt: skip
    with EpisodeWriter(folder / shard_name(data.split, 0, 1)) as writer:
        writer.write(episode)
    info = DatasetInfo(
        source="made", simulator="none", simulator_version="", fps=8.0, frame_shape=(made.height, made.width, 3),
        content="frames", chunk=1, action_spaces=spaces, commands=(), splits={data.split: (writer.info,)},
    )  # fmt: skip
    write_text(folder / INFO_FILE, info.to_json())


def write_autoencoder(folder: Path, shape: AutoencoderConfig) -> None:
    """The export of an autoencoder of zeros."""
    network = autoencoder_network(shape)
    frame = jax.ShapeDtypeStruct((1, network.factor, network.factor, 3), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), frame)["params"]
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), params)
    export(folder, zeros, {"autoencoder": dataclasses.asdict(shape), "scale": 1.0})


def write_latents(frames: Path, folder: Path, autoencoder_dir: Path) -> None:
    """Random latents of the lengths of the episodes in ``frames``."""
    autoencoder = load_autoencoder(autoencoder_dir)
    rng = np.random.default_rng(0)

    def random_latents(frames_THWC: np.ndarray) -> np.ndarray:
        t, height, width, _ = frames_THWC.shape
        pixels = (height // autoencoder.factor, width // autoencoder.factor)
        return rng.standard_normal((t, *pixels, autoencoder.channels), np.float32).astype(np.float16)

    folder.mkdir()
    encode_data(frames, folder, autoencoder, random_latents)


def write_pretrained(folder: Path, autoencoder_dir: Path, slow: SlowConfig) -> None:
    """The definition of a converted text-to-video model, with its autoencoder and without the weights of its UNet."""
    width = {"in_channels": slow.latent_channels, "out_channels": slow.latent_channels}
    shape = {k: v for k, v in dataclasses.asdict(slow.unet).items() if k in pretrained.SHAPE}
    unet = {**shape, **width, "cross_attention_dim": slow.text.width}
    for part in (modelscope.PART, schedulers.PART):
        (folder / part).mkdir(parents=True)
    files.write_json(folder / modelscope.PART / files.CONFIG, {exports.UNET: unet, exports.SAMPLE_SIZE: 0})
    sampler = schedulers.from_config({"_class_name": "DDIMScheduler", "clip_sample": False}).sampler
    schedulers.save_scheduler(schedulers.Scheduler(slow.schedule, sampler, slow.kind), folder / schedulers.PART)
    os.symlink(autoencoder_dir, folder / kl_vae.PART)


def synthetic_model(
    slow: SlowConfig, shape: AutoencoderConfig, height: int, width: int, chunk: int, text: str = "go"
) -> SlowModel:
    """A slow model of random weights, in memory alone; its one command is ``text``.

    Args:
        height, width: of its frames, in pixels.
        chunk: frames of a command.
    """
    networks, coder = denoiser(slow), autoencoder_network(shape)
    frame = jax.ShapeDtypeStruct((1, coder.factor, coder.factor, 3), jnp.float32)
    rng = np.random.default_rng(0)
    params = random_like(jax.eval_shape(networks.init, jax.random.key(0)), rng)
    if slow.text.width and not slow.text.layers:
        length = slow.text.max_length
        tokens = np.stack([encode_text(words, length) for words in (text, "")])
        embedding = rng.standard_normal((len(tokens), pretrained.CLIP_TOKENS, slow.text.width), np.float32)
        params = {**params, "text": jax.device_put({"token": tokens, "embedding": embedding})}
    coded = random_like(jax.eval_shape(coder.init, jax.random.key(0), frame)["params"], rng)
    info = DatasetInfo(
        source="made", simulator="none", simulator_version="", fps=8.0, frame_shape=(height, width, 3),
        content="frames", chunk=chunk, action_spaces={}, commands=(Command(0, text, (text,), ()),), splits={},
    )  # fmt: skip
    return SlowModel(slow, networks, params, autoencoder_of(shape, coded, 1.0, Path("made")), info, ())


def random_like(shapes: Any, rng: np.random.Generator) -> Any:
    """Arrays of these shapes: kernels of unit gain, biases 0, every other vector 1."""

    def one(path: tuple[Any, ...], leaf: Any) -> Array:
        if len(leaf.shape) < 2:
            return jnp.full(leaf.shape, 0.0 if path[-1].key == "bias" else 1.0, leaf.dtype)
        unit = rng.random(leaf.shape, np.float32)
        unit -= 0.5
        unit *= np.sqrt(12.0 / np.prod(leaf.shape[:-1]))
        return jax.device_put(unit.astype(leaf.dtype))

    return jax.tree_util.tree_map_with_path(one, shapes)
