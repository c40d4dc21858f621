"""Run ``text_to_video``: one short video per prompt, from a text-to-video model as diffusers saves it.

The parts come into memory when their turn comes: the text tower computes the embeddings of all prompts, which are kept
in the work directory, and is gone before the UNet is loaded. Frames are decoded a few at a time.

Keys:
    model_dir: a pipeline: a folder of diffusers, one that ``convert`` wrote, or a model of the Hugging Face hub.
"""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.convert import kl_vae, modelscope
from vgen_jax.convert.clip import text_embeddings
from vgen_jax.convert.schedulers import load_scheduler
from vgen_jax.files import media
from vgen_jax.files.log import peak_mib
from vgen_jax.files.progress import progress
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.files.videos import SHEET_FRAMES
from vgen_jax.models.autoencoder_kl import AutoencoderKL
from vgen_jax.models.unet_latent import UNet3D
from vgen_jax.nn.dtypes import dtype_of
from vgen_jax.types import VgenError
from vgen_jax.worlds.text_to_video import ClipWorld, frame_decoder, latent_sampler, to_device

EMBEDDINGS_FILE = "text_embeddings.safetensors"


@dataclasses.dataclass(frozen=True)
class TextToVideoConfig:
    """What to generate.

    Attributes:
        prompts: one video each.
        negative: the text that guidance leads away from.
        frames: of each video.
        height, width: of the frames, in pixels; multiples of the autoencoder's factor (8).
        guidance: scale of classifier-free guidance; 1 for none.
        sampler: ``ddim``, ``ddpm`` or ``dpmpp_2m``; empty for the one that the folder names.
        steps: of the sampler.
        eta: DDIM's stochasticity.
        seed: of the noise.
        dtype: of the UNet, its parameters and what it computes.
        decode_frames: frames decoded at once.
        fps: of the files.
        gif: write a GIF beside every mp4.
    """

    prompts: tuple[str, ...]
    negative: str
    frames: int
    height: int
    width: int
    guidance: float
    sampler: str
    steps: int
    eta: float
    seed: int
    dtype: str
    decode_frames: int
    fps: float
    gif: bool

    def __post_init__(self) -> None:
        for field in ("frames", "height", "width", "decode_frames", "fps"):
            if getattr(self, field) <= 0:
                raise VgenError(f"config key generate.{field} is {getattr(self, field)}: use a positive number")
        if not self.prompts:
            raise VgenError("config key generate.prompts is empty: give at least one text")


SECTIONS: Sections = {"generate": TextToVideoConfig}


def run(config: ConfigDict, workdir: Path) -> None:
    """Generates; writes ``samples/*.mp4``, ``*.gif``, ``*.png``, the texts' embeddings and ``results.json``."""
    generate = section(TextToVideoConfig, config.generate.to_dict(), "generate")
    dtype, folder = dtype_of(generate.dtype), config.model_dir
    kind: Any = generate.sampler or None
    scheduler = load_scheduler(folder, generate.steps, generate.eta, kind)
    vae_config, vae = kl_vae.load(folder)
    autoencoder = AutoencoderKL(**vae_config)
    shape = latent_shape(generate, autoencoder)
    keep_config(config, workdir)  # not of a start that was refused
    text_NLD = cached_embeddings(folder, [*generate.prompts, generate.negative], workdir / EMBEDDINGS_FILE)
    unet_config, unet = modelscope.load_unet(folder, dtype=np.dtype(dtype))
    to_device(vae)
    to_device(unet)
    world = ClipWorld(
        partial(latent_sampler(UNet3D(**unet_config, dtype=dtype), scheduler, generate.guidance), unet),
        partial(frame_decoder(autoencoder, kl_vae.scaling_factor(folder), generate.decode_frames), vae),
        shape, dict(zip(generate.prompts, text_NLD[:-1], strict=True)), text_NLD[-1],
    )  # fmt: skip
    state, seconds = world.start(key=jax.random.key(generate.seed)), []
    for number, prompt in enumerate(progress(generate.prompts, desc="text_to_video", unit="video")):
        started = time.perf_counter()
        state, step = world.step(state, prompt)
        write_video(workdir / "samples" / f"video_{number}", [np.asarray(step.frames_BTHWC[0])], prompt, generate)
        seconds.append(time.perf_counter() - started)
    results = {
        "videos": len(seconds),
        "frames": generate.frames,
        "seconds_first": round(seconds[0], 2),  # with compilation
        "seconds_per_video": round(min(seconds), 2),
        "sampler": f"{scheduler.sampler.kind} {generate.steps} steps",
        "peak_memory_mib": round(peak_mib(), 1),
        "device": jax.devices()[0].device_kind,
    }
    write_results(workdir, results)


def cached_embeddings(folder: str, texts: Sequence[str], path: Path) -> np.ndarray:
    """``text_embeddings`` of the texts, (N, L, D), from the file of an earlier start where there is one."""
    if not path.is_file():
        partial = path.with_suffix(".partial")
        safetensors.numpy.save_file({"text": text_embeddings(folder, texts)}, partial)
        partial.replace(path)
    try:
        return safetensors.numpy.load_file(path)["text"]
    except (safetensors.SafetensorError, KeyError) as error:
        raise VgenError(f"{path} is damaged ({error}): delete it") from error


def latent_shape(generate: TextToVideoConfig, autoencoder: AutoencoderKL) -> tuple[int, ...]:
    """(1, T, h, w, C) of a video's latents.

    Raises:
        VgenError: for a size that is no multiple of the autoencoder's factor.
    """
    factor = autoencoder.factor
    for name in ("height", "width"):
        if getattr(generate, name) % factor:
            raise VgenError(
                f"config key generate.{name} is {getattr(generate, name)}: the autoencoder takes multiples of {factor}"
            )
    return 1, generate.frames, generate.height // factor, generate.width // factor, autoencoder.latent_channels


def write_video(stem: Path, parts: Iterable[np.ndarray], prompt: str, generate: TextToVideoConfig) -> None:
    """Writes uint8 frames (T, H, W, 3), with the prompt under them, as they come; then a contact sheet."""
    suffixes = (".mp4", ".gif") if generate.gif else (".mp4",)
    writers: list[media.VideoWriter] = []
    kept: list[np.ndarray] = []
    try:
        for part in parts:
            kept += list(part[: SHEET_FRAMES - len(kept)])
            captioned = media.caption_frames(part, [prompt] * len(part))
            if not writers:
                size = captioned.shape[1], captioned.shape[2]
                writers = [media.VideoWriter(stem.with_suffix(s), generate.fps, size) for s in suffixes]
            for writer in writers:
                writer.write(captioned)
    finally:
        for writer in writers:
            writer.close()
    captions = [f"{number / generate.fps:.2f} s" for number in range(len(kept))]
    media.write_png(stem.with_suffix(".png"), media.contact_sheet(kept, captions))
