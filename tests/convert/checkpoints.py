"""Checkpoints of the metrics' networks with random weights."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from tests import tiny
from tests.convert import originals
from vgen_jax.convert import feature_nets
from vgen_jax.metrics.features import FeatureNet

TOLERANCE = 1e-4


def with_statistics(model: torch.nn.Module) -> torch.nn.Module:
    """Random parameters, and running means and variances that are neither 0 nor 1, of a size that keeps activations."""
    originals.randomise(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(2**0.5)  # or ReLU halves the variance, thirty times
            elif name.endswith("bias"):
                parameter.mul_(0.1)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
            if name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model


def saved(name: str, tensors: Mapping[str, torch.Tensor], folder: Path) -> Path:
    """Tensors as a checkpoint of safetensors under the published stem."""
    path = (folder / feature_nets.ORIGINALS[name].file).with_suffix(".safetensors")
    safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


def frames(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def theirs(model: Callable[[torch.Tensor], torch.Tensor], x: np.ndarray) -> np.ndarray:
    """Channels last to channels first behind the batch."""
    with torch.no_grad():
        return model(torch.tensor(x).movedim(-1, 1)).numpy()


def apply(net: FeatureNet, rows: np.ndarray) -> np.ndarray:
    return np.asarray(tiny.jit(net.apply)(net.params, rows))
