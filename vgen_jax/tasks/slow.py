"""Slow learning (SlowFast-VGen §3.1.1) as a task: masked diffusion on frames, through an autoencoder, or on latents.

What it begins with is an ``Origin``, by ``config.objective.kind``:

* ``masked_diffusion``: nothing. The model is the config's, the autoencoder that of ``config.autoencoder_dir``.
* ``continued``: the exported slow model in ``config.model_dir``, on data with its actions and frame size. The export
  defines the network, its noise schedule and its masking; only data, loss and optimiser are the config's.
* ``finetune``: a pretrained text-to-video model (supplement B.3). Autoencoder and text tower are frozen; the UNet is
  trained on windows with a clean past. The noise schedule and what the network predicts are the text-to-video model's.
  Its export is again a text-to-video model's folder, which ``generate``, ``text_to_video`` and ``convert`` take.

Keys:
    autoencoder_dir: the export of the autoencoder; for latents the one that made them.
    model_dir: the slow model that the training begins with.
"""

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.convert import exports, kl_vae, modelscope
from vgen_jax.data.batches import BatchesConfig
from vgen_jax.data.records import INFO_FILE, read_info
from vgen_jax.data.schema import DatasetInfo
from vgen_jax.diffusion.masking import Masking
from vgen_jax.files.exports import DATASET_FILE, EXPORT_CONFIG, export
from vgen_jax.learning.slow import Task
from vgen_jax.objectives.masked_diffusion import DiffusionLoss, masked_diffusion
from vgen_jax.tasks.inputs import Batches, Finish, batches_config, latents_folder
from vgen_jax.tasks.samples import next_chunks
from vgen_jax.types import Array, Autoencoder, Key, Objective, Params, VgenError, VideoBatch
from vgen_jax.worlds import pretrained
from vgen_jax.worlds.autoencoder import load_autoencoder
from vgen_jax.worlds.slow import action_width, load_slow_model, start_warp, token_length
from vgen_jax.worlds.slow_networks import NO_WARP, SlowConfig, denoiser
from vgen_jax.worlds.texts import load_table, window_tokens


class Origin(NamedTuple):
    """All that differs between the ways to begin.

    Attributes:
        slow: the definition of the model.
        loss: see ``objectives.masked_diffusion``.
        encode: uint8 frames of a window to latents; for data that are frames.
        write: (parameters, what a slow model's export says of itself, export folder); the data's own file is added.
        init, start: of the Task.
        frozen: parameters that are not learnt, beside those that are.
        autoencoder: shows what is sampled while it trains; ``None`` shows nothing.
    """

    slow: SlowConfig
    loss: DiffusionLoss
    encode: Partial
    write: Callable[[Params, dict[str, Any], Path], None]
    init: Callable[[Key], Params]
    start: Callable[[Params], Params] | None
    frozen: Params | None = None
    autoencoder: Autoencoder | None = None


def slow_task(config: ConfigDict) -> tuple[Task, Finish]:
    """The task and what makes an export of its result.

    Raises:
        VgenError: if data, autoencoder, model and texts do not fit each other.
    """
    data = batches_config(config)
    info = read_info(data.data_dir)
    origin = ORIGINS[config.objective.kind](config, data, info)
    slow, networks = origin.slow, denoiser(origin.slow)
    to_latents = origin.encode if info.content == "frames" else Partial(lambda latents: latents)
    objective = masked_diffusion(
        networks.embed, networks.predict, to_latents, slow.schedule, slow.masking, origin.loss
    )  # fmt: skip
    if origin.frozen is not None:
        objective = Partial(with_frozen, objective, origin.frozen)

    def finish(params: Params, folder: Path) -> None:
        origin.write(params, {"slow": dataclasses.asdict(slow), "windows": data.windows}, folder)
        shutil.copyfile(Path(data.data_dir) / INFO_FILE, folder / DATASET_FILE)

    sample = None
    looks = "train" in config and "sample_minutes" in config.train and config.train.sample_minutes > 0
    if looks and origin.autoencoder is not None:
        sample = next_chunks(slow, origin.autoencoder, data, info)
    return Task(origin.init, objective, Batches(data), origin.start, sample), finish


def with_frozen(objective: Objective, frozen: Params, params: Params, batch: VideoBatch, rng: Key) -> Any:
    """``objective`` of a network some of whose parameters are not learnt."""
    return objective({**params, **frozen}, batch, rng)


def write_model(autoencoder: Path, params: Params, about: dict[str, Any], folder: Path) -> None:
    """A slow model's export, with its autoencoder in it."""
    export(folder, params, about)
    shutil.copytree(autoencoder, folder / "autoencoder", dirs_exist_ok=True)


def from_nothing(config: ConfigDict, data: BatchesConfig, info: DatasetInfo) -> Origin:
    """Fresh parameters, with what ``slow.warp`` takes from the autoencoder."""
    folder = latents_folder(Path(config.autoencoder_dir), info, data.data_dir)
    autoencoder = load_autoencoder(folder)
    slow = slow_config(config, info, autoencoder.channels)
    loss = section(DiffusionLoss, config.objective.loss, "objective.loss")
    start = functools.partial(start_warp, slow, autoencoder) if slow.warp.width else None
    write = functools.partial(write_model, folder)
    return Origin(slow, loss, autoencoder.encode, write, denoiser(slow).init, start, None, autoencoder)


def slow_config(config: ConfigDict, info: DatasetInfo, channels: int) -> SlowConfig:
    """The definition of a new slow model; what the data and the autoencoder determine is filled in from them."""
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


def from_export(config: ConfigDict, data: BatchesConfig, info: DatasetInfo) -> Origin:
    """The slow model in ``config.model_dir``.

    Raises:
        VgenError: if the data have other actions, texts or latents than the model, or the loss another kind.
    """
    folder = Path(config.model_dir)
    model = load_slow_model(folder)
    slow = model.config
    both = {
        "data.action": (data.action, slow.actions),
        "data.token_length": (data.token_length, token_length(model)),
        "the width of an action": (action_width(info, data.action), slow.action_dim),
    }
    for name, (have, want) in both.items():
        if have != want:
            raise VgenError(f"{name} is {have}, but the model in {folder} was trained with {want}: use that")
    latents_folder(model.autoencoder.folder, info, data.data_dir)
    loss = section(DiffusionLoss, config.objective.loss, "objective.loss")
    if loss.kind != slow.kind:
        raise VgenError(f"objective.loss.kind is {loss.kind}, but the model in {folder} predicts {slow.kind}: use that")
    write = functools.partial(write_model, model.autoencoder.folder)
    return Origin(
        slow, loss, model.autoencoder.encode, write, model.denoiser.init, lambda params: model.params, None,
        model.autoencoder,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """What is fine-tuned, and how.

    Attributes:
        model_dir: a text-to-video model that the run ``convert`` wrote.
        texts_dir: what the run ``embed_texts`` wrote for these data.
        remat, dtype: of the UNet (``models.unet_latent``); its parameters are float32.
        encode_frames: frames of a window encoded at once, where the data are frames and not latents.
        masking: how the past enters; without ``reference``, for which the pretrained network has no channels.
        drop_text, drop_action: see ``objectives.masked_diffusion``.
    """

    model_dir: str
    texts_dir: str
    remat: str
    dtype: str
    encode_frames: int
    masking: Masking
    drop_text: float
    drop_action: float

    def __post_init__(self) -> None:
        if self.masking.reference:
            raise VgenError("config key finetune.masking.reference is True: the pretrained UNet has no channels for it")
        if self.encode_frames < 1:
            raise VgenError(f"config key finetune.encode_frames is {self.encode_frames}: use 1 or more")


def from_pretrained(config: ConfigDict, data: BatchesConfig, info: DatasetInfo) -> Origin:
    """The text-to-video model that ``config.finetune`` names, and a table of the texts that the data have."""
    settings = section(FinetuneConfig, config.finetune.to_dict(), "finetune")
    folder, texts = Path(settings.model_dir), Path(settings.texts_dir)
    slow = pretrained_config(settings, data, info)
    autoencoder = load_autoencoder(latents_folder(folder / kl_vae.PART, info, data.data_dir))
    table = load_table(texts, window_tokens(data.data_dir, data.split, data.windows, data.token_length))
    pretrained_shapes = _unet_shapes(slow)

    def init(rng: Key) -> Params:
        """Only what the pretrained network lacks is drawn; the rest is put there by ``start``."""
        fresh = denoiser(slow).init(rng)["unet"]
        known = {name: jax.tree.map(jnp.zeros_like, shapes) for name, shapes in pretrained_shapes.items()}
        return {"unet": {**fresh, **known}}

    def start(params: Params) -> Params:
        return {"unet": {**params["unet"], **modelscope.load_unet(folder)[1]}}

    loss = DiffusionLoss(slow.kind, settings.drop_text, settings.drop_action)
    encode = sliced(autoencoder.encode, settings.encode_frames)
    write = functools.partial(write_pretrained, folder, texts, slow.action_dim)
    return Origin(slow, loss, encode, write, init, start, {"text": table})


def sliced(encode: Partial, frames: int) -> Partial:
    """An encoder of windows that takes ``frames`` frames of each at a time."""

    def to_latents(encode: Partial, video_BTHWC: Array) -> Array:
        latents = jax.lax.map(encode, jnp.swapaxes(video_BTHWC, 0, 1), batch_size=frames)
        return jnp.swapaxes(latents, 0, 1)

    return Partial(to_latents, encode)


def pretrained_config(settings: FinetuneConfig, data: BatchesConfig, info: DatasetInfo) -> SlowConfig:
    """The definition of the slow model: the text-to-video model's, with the data's actions and texts."""
    if data.token_length < 1:
        raise VgenError("config key data.token_length is 0: the pretrained UNet reads texts; use 256, say")
    raw = pretrained.definition(Path(settings.model_dir), settings.dtype, settings.remat)
    values = {
        **raw,
        "text": {**raw["text"], "max_length": data.token_length},
        "masking": settings.masking,
        "warp": NO_WARP,
        "actions": data.action,
        "action_dim": action_width(info, data.action),
    }
    return section(SlowConfig, values, "slow")


def _unet_shapes(slow: SlowConfig) -> Any:
    """Shapes of the pretrained part of the UNet: what it would be without actions."""
    plain = dataclasses.replace(slow, actions="none", action_dim=0)
    return jax.eval_shape(denoiser(plain).init, jax.random.key(0))["unet"]


def write_pretrained(
    source: Path, texts_dir: Path, action_dim: int, params: Params, about: dict[str, Any], folder: Path
) -> None:
    """A fine-tuned text-to-video model: the new UNet, and the parts of ``source`` that were frozen."""
    raw = exports.read_config(source / modelscope.PART, (exports.UNET, exports.SAMPLE_SIZE))
    fields = {**raw[exports.UNET], "action_dim": action_dim}
    for part in pretrained.PARTS_KEPT:
        shutil.copytree(source / part, folder / part, dirs_exist_ok=True)
    shutil.copyfile(texts_dir / pretrained.TEXTS_FILE, folder / pretrained.TEXTS_FILE)
    exports.write(
        folder / modelscope.PART, {exports.UNET: fields, exports.SAMPLE_SIZE: raw[exports.SAMPLE_SIZE]}, params["unet"]
    )
    (folder / EXPORT_CONFIG).write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")


SECTIONS: Sections = {
    "slow": SlowConfig, "objective.loss": DiffusionLoss, "finetune": FinetuneConfig, "data": BatchesConfig,
}  # fmt: skip
ORIGINS: dict[str, Callable[[ConfigDict, BatchesConfig, DatasetInfo], Origin]] = {
    "masked_diffusion": from_nothing,
    "continued": from_export,
    "finetune": from_pretrained,
}
