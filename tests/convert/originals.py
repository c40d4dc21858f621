"""Randomly initialised originals, and how far a network is from one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet3DConditionModel

torch.set_num_threads(1)

TOLERANCE = 1e-5  # relative, float32

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
