"""A whole text-to-video model gives the frames that diffusers' own gives, and goes back to diffusers."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from diffusers import TextToVideoSDPipeline

from tests import tiny
from tests.convert import originals
from tests.convert.originals import normal
from vgen_jax.convert import modelscope, schedulers
from vgen_jax.models.autoencoder_kl import AutoencoderKL
from vgen_jax.models.text import ClipTextEncoder
from vgen_jax.models.unet_latent import UNet3D
from vgen_jax.runs import text_to_video
from vgen_jax.types import VgenError
from vgen_jax.worlds.text_to_video import frame_decoder, latent_sampler

PROMPTS, NEGATIVE = ["go a b", "c"], "z"
STEPS, GUIDANCE, SLICE = 5, 9.0, 2
LATENTS = (len(PROMPTS), 3, 8, 4, 4)  # frames of 16×8 pixels
TOLERANCE = 1e-3  # on frames in [0, 1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextToVideoSDPipeline, Path]:
    folder = tmp_path_factory.mktemp("pipeline")
    return originals.text_to_video(folder), folder


def theirs(pipeline: TextToVideoSDPipeline) -> np.ndarray:
    """Frames (B, T, H, W, 3) in [0, 1]."""
    latents = torch.tensor(normal(*LATENTS)).movedim(-1, 1)
    out = pipeline(
        PROMPTS, height=16, width=8, num_frames=LATENTS[1], num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        negative_prompt=[NEGATIVE] * len(PROMPTS), latents=latents, output_type="np",
    )  # fmt: skip
    return np.asarray(out.frames)


def ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    monkeypatch.setattr(text_to_video.jax, "jit", tiny.jit)
    p = modelscope.load_text_to_video(folder, steps=STEPS)
    token_NL = p.tokenize([*PROMPTS, NEGATIVE])
    text = np.asarray(jax.jit(ClipTextEncoder(**p.text_config).apply)({"params": p.text}, token_NL))
    sample = latent_sampler(UNet3D(**p.unet_config), p.scheduler, GUIDANCE)
    keys = jax.random.split(jax.random.key(0), len(PROMPTS))
    latents = sample(p.unet, normal(*LATENTS), text[:-1], np.stack([text[-1]] * len(PROMPTS)), keys)
    decode = frame_decoder(AutoencoderKL(**p.vae_config), p.scaling_factor, SLICE)
    frames = np.concatenate([np.asarray(part) for part in decode(p.vae, latents)], axis=1)
    return np.clip(frames / 2 + 0.5, 0.0, 1.0)


@pytest.mark.slow
def test_the_frames_are_those_of_diffusers(
    saved: tuple[TextToVideoSDPipeline, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    want = theirs(saved[0])
    assert want.shape == (len(PROMPTS), LATENTS[1], 16, 8, 3)
    # Prompts that do not matter, or frames that are all black or white, would prove nothing.
    assert np.abs(want[0] - want[1]).mean() > 0.01 and np.mean((want > 0) & (want < 1)) > 0.5
    found = ours(saved[1], monkeypatch)
    assert np.abs(found - want).max() < TOLERANCE


@pytest.mark.slow
def test_what_is_saved_is_the_original(saved: tuple[TextToVideoSDPipeline, Path], tmp_path: Path) -> None:
    model, folder = saved
    modelscope.save_text_to_video(modelscope.load_text_to_video(folder), tmp_path)
    originals.assert_same_model(TextToVideoSDPipeline.from_pretrained(tmp_path), model)


def test_parameters_are_of_the_type_asked_for(saved: tuple[TextToVideoSDPipeline, Path]) -> None:
    found = modelscope.load_text_to_video(saved[1], dtype=np.float16)
    assert {x.dtype for x in jax.tree.leaves((found.unet, found.vae, found.text))} == {np.dtype(np.float16)}


def test_another_pipeline_is_refused(saved: tuple[TextToVideoSDPipeline, Path], tmp_path: Path) -> None:
    _, folder = saved
    for part in folder.iterdir():
        (tmp_path / part.name).symlink_to(part)
    (tmp_path / "unet").unlink()
    (tmp_path / "unet").mkdir()
    config = json.loads((folder / "unet" / "config.json").read_text())
    (tmp_path / "unet" / "config.json").write_text(json.dumps({**config, "_class_name": "UNet2DConditionModel"}))
    with pytest.raises(VgenError, match="is of a UNet2DConditionModel"):
        modelscope.load_text_to_video(tmp_path)
    (tmp_path / "scheduler").unlink()
    with pytest.raises(VgenError, match=f"{schedulers.CONFIG_FILE} is missing"):
        modelscope.load_text_to_video(tmp_path)
