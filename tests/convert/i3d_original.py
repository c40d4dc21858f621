"""I3D in PyTorch (Carreira and Zisserman 2017, figure 3), with the layer names and the padding of its public ports.

For where the package cd-fvd, which has one, is not installed (see ``test_feature_nets_packages.py``).
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

CHANNELS = {
    "3b": (192, 64, 96, 128, 16, 32, 32), "3c": (256, 128, 128, 192, 32, 96, 64),
    "4b": (480, 192, 96, 208, 16, 48, 64), "4c": (512, 160, 112, 224, 24, 64, 64),
    "4d": (512, 128, 128, 256, 24, 64, 64), "4e": (512, 112, 144, 288, 32, 64, 64),
    "4f": (528, 256, 160, 320, 32, 128, 128),
    "5b": (832, 256, 160, 320, 32, 128, 128), "5c": (832, 384, 192, 384, 48, 128, 128),
}  # fmt: skip


def same(x: torch.Tensor, kernel: Sequence[int], stride: Sequence[int]) -> torch.Tensor:
    """Zeros around x so that every axis comes out as its size over the stride, rounded up; the odd one goes behind."""
    pads: list[int] = []
    for size, k, s in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
        missing = max(0, (math.ceil(size / s) - 1) * s + k - size)
        pads += [missing // 2, missing - missing // 2]
    return functional.pad(x, pads)


class Unit(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=1e-5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.bn(self.conv3d(same(x, self.conv3d.kernel_size, self.conv3d.stride))))


def pool(x: torch.Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
    return functional.max_pool3d(same(x, kernel, stride), kernel, stride)


class Mixed(nn.Module):
    def __init__(self, inputs: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3b: int) -> None:
        super().__init__()
        self.b0 = Unit(inputs, b0, 1)
        self.b1a, self.b1b = Unit(inputs, b1a, 1), Unit(b1a, b1b, 3)
        self.b2a, self.b2b = Unit(inputs, b2a, 1), Unit(b2a, b2b, 3)
        self.b3b = Unit(inputs, b3b, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(1024, 400, 1)


class I3D(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7, self.Conv3d_2b_1x1 = Unit(3, 64, 7, 2), Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        for name, channels in CHANNELS.items():
            setattr(self, f"Mixed_{name}", Mixed(*channels))
        self.logits = Head()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = pool(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in CHANNELS:
            if name == "4b":
                x = pool(x, (3, 3, 3), (2, 2, 2))
            if name == "5b":
                x = pool(x, (2, 2, 2), (2, 2, 2))
            x = getattr(self, f"Mixed_{name}")(x)
        x = self.logits.conv3d(functional.avg_pool3d(x, (2, 7, 7), 1))
        return x.mean((2, 3, 4))
