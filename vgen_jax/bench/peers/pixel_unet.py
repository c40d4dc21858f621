"""``models.unet_pixel.PixelUNet`` in PyTorch, for benchmarks: the same network without actions.

Written as one would for speed: channels-first convolutions in the memory format that the caller chooses, fused
attention (SDPA), frames folded into the batch. Modules have the names of the JAX network's.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgen_jax.models.unet_pixel import STEM
from vgen_jax.nn.factorized import BUCKETS, ROTARY_DIM, SPATIAL_HEAD_DIM, distance_buckets


class PixelUNet(nn.Module):
    """See ``models.unet_pixel``; ``in_channels`` is what stands on the channels of its input."""

    def __init__(
        self,
        in_channels: int,
        frames: int,
        out_channels: int,
        dim: int,
        mults: Sequence[int],
        heads: int,
        head_dim: int,
    ):
        super().__init__()
        self.buckets: Tensor
        widths = [dim * mult for mult in mults]
        temporal = (heads, head_dim, frames)
        self.frames = frames
        self.register_buffer("buckets", torch.from_numpy(distance_buckets(frames)), persistent=False)
        self.step = nn.ModuleDict({"linear_1": nn.Linear(dim, 4 * dim), "linear_2": nn.Linear(4 * dim, 4 * dim)})
        self.dim = dim
        self.time_bias = nn.Parameter(torch.randn(BUCKETS, heads))
        self.stem = nn.Conv2d(in_channels, dim, STEM, padding=STEM // 2)
        self.stem_temporal = TemporalAttention(dim, *temporal)
        before = [dim, *widths[:-1]]
        self.down = nn.ModuleList(Level(a, b, 4 * dim, *temporal) for a, b in zip(before, widths, strict=True))
        self.down_sample = nn.ModuleList(nn.Conv2d(w, w, 4, 2, 1) for w in widths[:-1])
        last = widths[-1]
        self.mid_resnet_0 = FilmResnet(last, last, 4 * dim)
        self.mid_spatial = SpatialAttention(last, heads)
        self.mid_temporal = TemporalAttention(last, *temporal)
        self.mid_resnet_1 = FilmResnet(last, last, 4 * dim)
        # The way up ends each level at the width before it; its input is that of the level below, and the skip.
        after = [dim, *widths]
        ups = [Level((last if i == len(widths) - 1 else after[i + 1]) + widths[i], after[i], 4 * dim, *temporal)
               for i in range(len(widths))]  # fmt: skip
        self.up = nn.ModuleList(ups)
        self.up_sample = nn.ModuleList(nn.ConvTranspose2d(after[i], after[i], 4, 2, 1) for i in range(1, len(widths)))
        self.final_resnet = FilmResnet(2 * dim, dim, 0)
        self.conv_out = nn.Conv2d(dim, out_channels, 1)

    def forward(self, x_FCHW: Tensor, t_B: Tensor) -> Tensor:
        """(B·T, in_channels, H, W) and (B,) -> (B·T, out_channels, H, W)."""
        e = self._step(t_B).repeat_interleave(self.frames, 0)
        bias = self.time_bias[self.buckets].permute(2, 0, 1)
        x = stem = self.stem_temporal(self.stem(x_FCHW), bias)
        skips = []
        for i, level in enumerate(self.down):
            x = level(x, e, bias)
            skips.append(x)
            if i < len(self.down_sample):
                x = self.down_sample[i](x)
        x = self.mid_temporal(self.mid_spatial(self.mid_resnet_0(x, e)), bias)
        x = self.mid_resnet_1(x, e)
        for i in reversed(range(len(self.up))):
            x = self.up[i](torch.cat([x, skips[i]], 1), e, bias)
            if i > 0:
                x = self.up_sample[i - 1](x)
        return self.conv_out(self.final_resnet(torch.cat([x, stem], 1), None))

    def _step(self, t_B: Tensor) -> Tensor:
        half = self.dim // 2
        rates = torch.exp(torch.arange(half, device=t_B.device) * (-math.log(10_000.0) / (half - 1)))
        angle = t_B.float()[:, None] * rates
        x = torch.cat([angle.sin(), angle.cos()], 1)
        return self.step["linear_2"](F.gelu(self.step["linear_1"](x.to(self.conv_out.weight.dtype))))


class Level(nn.Module):
    """Two resnets, linear spatial attention, temporal attention."""

    def __init__(self, inputs: int, width: int, embedding: int, heads: int, head_dim: int, frames: int):
        super().__init__()
        self.resnet_0 = FilmResnet(inputs, width, embedding)
        self.resnet_1 = FilmResnet(width, width, embedding)
        self.spatial = LinearAttention(width, heads)
        self.temporal = TemporalAttention(width, heads, head_dim, frames)

    def forward(self, x: Tensor, e: Tensor, bias: Tensor) -> Tensor:
        return self.temporal(self.spatial(self.resnet_1(self.resnet_0(x, e), e)), bias)


class FilmResnet(nn.Module):
    """[conv, RMSNorm, scale and shift, SiLU], [conv, RMSNorm, SiLU], plus the input."""

    def __init__(self, inputs: int, width: int, embedding: int):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inputs, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.film = nn.Linear(embedding, 2 * width) if embedding else None
        self.shortcut = nn.Conv2d(inputs, width, 1) if inputs != width else nn.Identity()

    def forward(self, x: Tensor, e: Tensor | None) -> Tensor:
        h = self.norm1(self.conv1(x))
        if self.film is not None and e is not None:
            scale, shift = self.film(F.silu(e))[:, :, None, None].chunk(2, 1)
            h = h * (1 + scale) + shift
        return self.shortcut(x) + F.silu(self.norm2(self.conv2(F.silu(h))))


class RMSNorm(nn.Module):
    """Over the channels of (F, C, H, W)."""

    def __init__(self, width: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (F.normalize(x.float(), dim=1) * (x.shape[1] ** 0.5) * self.gain).to(x.dtype)


class PreNorm(nn.Module):
    """LayerNorm over the channels with a gain alone; (F, C, H, W) -> (F, H, W, C)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, 1e-5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1))


class LinearAttention(nn.Module):
    """Spatial attention, linear in the pixels; residual."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        inner = heads * SPATIAL_HEAD_DIM
        self.heads, self.prenorm = heads, PreNorm(width)
        self.to_qkv, self.to_out = nn.Linear(width, 3 * inner, bias=False), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        f, _, height, width = x.shape
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in self.to_qkv(self.prenorm(x)).flatten(1, 2).chunk(3, -1))
        q = q.float().softmax(-1).to(v.dtype) * SPATIAL_HEAD_DIM**-0.5
        k = k.float().softmax(1).to(v.dtype)
        out = torch.einsum("fkde,fnkd->fnke", torch.einsum("fnkd,fnke->fkde", k, v), q)
        return x + self.to_out(out.reshape(f, height, width, -1)).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Multi-head self-attention through SDPA, with rotary positions and a bias if asked for."""

    def __init__(self, width: int, heads: int, head_dim: int, frames: int = 0):
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.to_qkv, self.to_out = nn.Linear(width, 3 * inner, bias=False), nn.Linear(inner, width, bias=False)
        self.cos: Tensor
        self.sin: Tensor
        self.turns = min(ROTARY_DIM, head_dim) if frames else 0
        if frames:
            rate = 10_000.0 ** -(np.arange(0, self.turns, 2) / self.turns)
            angle = torch.from_numpy(np.arange(frames)[:, None] * rate).float()
            self.register_buffer("cos", angle.cos(), persistent=False)
            self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.to_qkv(x).chunk(3, -1))
        if self.turns:
            q, k = self._turned(q), self._turned(k)
        mask = None if bias is None else bias.to(q.dtype)[None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.to_out(out.transpose(1, 2).flatten(2))

    def _turned(self, x: Tensor) -> Tensor:
        head, rest = x[..., : self.turns], x[..., self.turns :]
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        even, odd = head[..., ::2], head[..., 1::2]
        pairs = torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1)
        return torch.cat([pairs.flatten(-2), rest], -1)


class SpatialAttention(nn.Module):
    """Full attention over the pixels of each frame; residual."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.prenorm, self.attention = PreNorm(width), Attention(width, heads, SPATIAL_HEAD_DIM)

    def forward(self, x: Tensor) -> Tensor:
        h = self.prenorm(x)
        return x + self.attention(h.flatten(1, 2)).unflatten(1, h.shape[1:3]).permute(0, 3, 1, 2)


class TemporalAttention(nn.Module):
    """Full attention over time at each pixel; residual."""

    def __init__(self, width: int, heads: int, head_dim: int, frames: int):
        super().__init__()
        self.frames, self.prenorm = frames, PreNorm(width)
        self.attention = Attention(width, heads, head_dim, frames)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        h = self.prenorm(x).unflatten(0, (-1, self.frames))  # (b, t, h, w, c)
        b, t, height, width, c = h.shape
        h = self.attention(h.permute(0, 2, 3, 1, 4).reshape(-1, t, c), bias)
        return x + h.reshape(b, height, width, t, c).permute(0, 3, 4, 1, 2).reshape(x.shape)
