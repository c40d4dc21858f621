"""Randomly initialised originals, and how far a network is from one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, TextToVideoSDPipeline, UNet3DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

torch.set_num_threads(1)

TOLERANCE = 1e-5  # relative, float32
TOKENS = 6  # of a text, in the model below

DOWN, UP = ("DownBlock3D", "CrossAttnDownBlock3D"), ("UpBlock3D", "CrossAttnUpBlock3D")


def unet(down: tuple[bool, ...], up: tuple[bool, ...], **changes: Any) -> UNet3DConditionModel:
    """A UNet whose blocks, in its own order, have transformers or not."""
    kinds = {"down_block_types": [DOWN[i] for i in down], "up_block_types": [UP[i] for i in up]}
    return randomise(UNet3DConditionModel(**kinds, **changes))


def vae(**changes: Any) -> AutoencoderKL:
    levels = len(changes["block_out_channels"])
    kinds = {"down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels}
    return randomise(AutoencoderKL(**kinds, **changes))


def randomise(module: torch.nn.Module) -> Any:
    """Every parameter random, those that start at zero or one included, so that none can be left out unnoticed."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                noise *= max(1, int(np.prod(parameter.shape[1:]))) ** -0.5
            parameter.copy_(1.0 + 0.3 * noise if parameter.ndim == 1 and name.endswith("weight") else noise)
    return module.eval()


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run(function: Callable[..., torch.Tensor], x: np.ndarray, *args: np.ndarray) -> np.ndarray:
    """``function`` with channels second instead of last, on the way in and out."""
    with torch.no_grad():
        return function(torch.tensor(x).movedim(-1, 1), *map(torch.tensor, args)).movedim(1, -1).numpy()


def error(ours: Any, original: np.ndarray) -> float:
    """Relative error of the whole array."""
    assert ours.shape == original.shape
    return float(np.linalg.norm(np.asarray(ours) - original) / np.linalg.norm(original))


def weights_of(folder: Path) -> Path:
    return folder / "diffusion_pytorch_model.safetensors"


def text_to_video(folder: Path) -> TextToVideoSDPipeline:
    """The smallest text-to-video model, saved to ``folder``: latents of half the frames' size, texts of six tokens.

    Its scheduler is ModelScopeT2V's.
    """
    write_tokenizer(folder / "tokenizer", TOKENS)
    text = CLIPTextConfig(
        vocab_size=56, max_position_embeddings=TOKENS, bos_token_id=0, eos_token_id=1, pad_token_id=2, hidden_size=8,
        num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, hidden_act="gelu", projection_dim=8,
    )  # fmt: skip
    narrow = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    built = TextToVideoSDPipeline(
        vae=vae(**narrow, latent_channels=4, scaling_factor=0.3),
        text_encoder=randomise(CLIPTextModel(text)),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=unet((True, False), (False, True), **narrow, cross_attention_dim=8, attention_head_dim=4, sample_size=8),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1,
        ),
    )  # fmt: skip
    built.set_progress_bar_config(disable=True)
    built.save_pretrained(folder)
    return built


def write_tokenizer(folder: Path, length: int) -> None:
    """CLIP's tokenizer with a vocabulary of letters in which 'go' is one word: 56 tokens."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", "!", *letters, *(f"{c}</w>" for c in letters), "go</w>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\ng o</w>\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": length, "pad_token": "!"})
    )


def assert_same_model(found: TextToVideoSDPipeline, want: TextToVideoSDPipeline) -> None:
    """Every weight and every setting that has a meaning is the same."""
    for name in ("unet", "vae", "text_encoder"):
        torch.testing.assert_close(getattr(found, name).state_dict(), getattr(want, name).state_dict(), rtol=0, atol=0)
    for name, ignored in (("unet", set()), ("vae", {"sample_size"}), ("scheduler", set())):
        # By way of JSON, which has no tuples.
        ours, theirs = (json.loads(getattr(model, name).to_json_string()) for model in (found, want))
        changed = {key for key, value in theirs.items() if not key.startswith("_") and ours[key] != value}
        assert changed <= ignored, (name, changed)
    assert found.tokenizer(["go a"]).input_ids == want.tokenizer(["go a"]).input_ids
