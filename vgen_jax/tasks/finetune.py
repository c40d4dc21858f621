"""Slow learning from a pretrained text-to-video model (SlowFast-VGen §3.1.1, supplement B.3), a task of ``train``.

Autoencoder and text tower are frozen; the UNet is trained on windows with a clean past. The noise schedule and what the
network predicts are the text-to-video model's. Its export is again a text-to-video model's folder, which ``generate``,
``text_to_video`` and ``convert`` take.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.convert import exports, kl_vae, modelscope
from vgen_jax.data.batches import BatchesConfig
from vgen_jax.data.records import INFO_FILE, read_info
from vgen_jax.data.schema import DatasetInfo
from vgen_jax.diffusion.masking import Masking
from vgen_jax.learning.slow import Task
from vgen_jax.objectives.masked_diffusion import DiffusionLoss, masked_diffusion
from vgen_jax.tasks.inputs import Batches, Finish, batches_config, latents_folder
from vgen_jax.types import Array, Key, Objective, Params, VgenError, VideoBatch
from vgen_jax.worlds import pretrained
from vgen_jax.worlds.autoencoder import load_autoencoder
from vgen_jax.worlds.slow import action_width
from vgen_jax.worlds.slow_networks import NO_WARP, SlowConfig, denoiser
from vgen_jax.worlds.texts import Table, load_table, window_tokens


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


def finetune_task(config: ConfigDict) -> tuple[Task, Finish]:
    """The task and what makes an export of its result."""
    settings = section(FinetuneConfig, config.finetune.to_dict(), "finetune")
    data, folder = batches_config(config), Path(settings.model_dir)
    info = read_info(data.data_dir)
    slow = slow_config(settings, data, info)
    autoencoder = load_autoencoder(latents_folder(folder / kl_vae.PART, info, data.data_dir))
    table = load_table(
        Path(settings.texts_dir), window_tokens(data.data_dir, data.split, data.windows, data.token_length)
    )
    networks = denoiser(slow)
    is_frames = info.content == "frames"
    to_latents = sliced(autoencoder.encode, settings.encode_frames) if is_frames else Partial(lambda latents: latents)
    loss = DiffusionLoss(slow.kind, settings.drop_text, settings.drop_action)
    objective = masked_diffusion(
        networks.embed, networks.predict, to_latents, slow.schedule, slow.masking, loss
    )  # fmt: skip
    pretrained_shapes = _unet_shapes(slow)

    def init(rng: Key) -> Params:
        """Only what the pretrained network lacks is drawn; the rest is put there by ``start``."""
        fresh = networks.init(rng)["unet"]
        known = {name: jax.tree.map(jnp.zeros_like, shapes) for name, shapes in pretrained_shapes.items()}
        return {"unet": {**fresh, **known}}

    def start(params: Params) -> Params:
        return {"unet": {**params["unet"], **modelscope.load_unet(folder)[1]}}

    def finish(params: Params, out: Path) -> None:
        save_pretrained(params, slow, data, folder, Path(settings.texts_dir), out)

    return Task(init, Partial(with_table, objective, table), Batches(data), start), finish


def with_table(objective: Objective, table: Table, params: Params, batch: VideoBatch, rng: Key) -> Any:
    """``objective`` of a network that looks its texts up in ``table``, which is not learnt."""
    return objective({**params, "text": table}, batch, rng)


def sliced(encode: Partial, frames: int) -> Partial:
    """An encoder of windows that takes ``frames`` frames of each at a time."""

    def to_latents(encode: Partial, video_BTHWC: Array) -> Array:
        latents = jax.lax.map(encode, jnp.swapaxes(video_BTHWC, 0, 1), batch_size=frames)
        return jnp.swapaxes(latents, 0, 1)

    return Partial(to_latents, encode)


def slow_config(settings: FinetuneConfig, data: BatchesConfig, info: DatasetInfo) -> SlowConfig:
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


def save_pretrained(
    params: Params, slow: SlowConfig, data: BatchesConfig, source: Path, texts_dir: Path, out: Path
) -> None:
    """Writes a fine-tuned model: the new UNet, the parts of ``source`` that were frozen, and the definition."""
    raw = exports.read_config(source / modelscope.PART, (exports.UNET, exports.SAMPLE_SIZE))
    fields = {**raw[exports.UNET], "action_dim": slow.action_dim}
    for part in pretrained.PARTS_KEPT:
        shutil.copytree(source / part, out / part, dirs_exist_ok=True)
    shutil.copyfile(texts_dir / pretrained.TEXTS_FILE, out / pretrained.TEXTS_FILE)
    shutil.copyfile(Path(data.data_dir) / INFO_FILE, out / INFO_FILE)
    exports.write(
        out / modelscope.PART, {exports.UNET: fields, exports.SAMPLE_SIZE: raw[exports.SAMPLE_SIZE]}, params["unet"]
    )
    definition = {"slow": dataclasses.asdict(slow), "windows": data.windows}
    (out / "config.json").write_text(json.dumps(definition, indent=2, sort_keys=True) + "\n")
