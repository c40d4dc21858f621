"""VQGANs in taming-transformers' layout, against a random module that is laid out like it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests import tiny
from tests.convert.originals import error, normal, randomise, run
from vgen_jax.convert import files, taming
from vgen_jax.convert.rules import to_ours
from vgen_jax.models.vqgan import Vqgan
from vgen_jax.types import VgenError

CHANNELS, BLOCKS, WIDTH, CODES = (32, 32, 64), 2, 4, 24
LEVELS = len(CHANNELS)


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class Resnet(nn.Module):
    def __init__(self, inner: int, outer: int):
        super().__init__()
        self.norm1, self.conv1 = norm(inner), nn.Conv2d(inner, outer, 3, padding=1)
        self.norm2, self.conv2 = norm(outer), nn.Conv2d(outer, outer, 3, padding=1)
        if inner != outer:
            self.nin_shortcut = nn.Conv2d(inner, outer, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attention(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        q, k, v = (part(h).flatten(2) for part in (self.q, self.k, self.v))
        weights = (torch.einsum("bcn,bcm->bnm", q, k) * x.shape[1] ** -0.5).softmax(-1)
        return x + self.proj_out(torch.einsum("bnm,bcm->bcn", weights, v).reshape(x.shape))


class Resampling(nn.Module):
    def __init__(self, channels: int, up: bool):
        super().__init__()
        self.up, self.conv = up, nn.Conv2d(channels, channels, 3, 1 if up else 2, 1 if up else 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0) if self.up else F.pad(x, (0, 1, 0, 1)))


def level(inner: int, outer: int, blocks: int, attends: bool) -> nn.Module:
    out = nn.Module()
    out.block = nn.ModuleList(Resnet(inner if n == 0 else outer, outer) for n in range(blocks))
    out.attn = nn.ModuleList(Attention(outer) for _ in range(blocks if attends else 0))
    return out


def through(one: nn.Module, x: torch.Tensor) -> torch.Tensor:
    for n, block in enumerate(one.block):
        x = block(x)
        x = one.attn[n](x) if len(one.attn) else x
    return x


def middle(channels: int) -> nn.Module:
    out = nn.Module()
    out.block_1, out.attn_1, out.block_2 = Resnet(channels, channels), Attention(channels), Resnet(channels, channels)
    return out


class Half(nn.Module):
    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return self.mid.block_2(self.mid.attn_1(self.mid.block_1(x)))

    def end(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv_out(F.silu(self.norm_out(x)))


class Encoder(Half):
    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, CHANNELS[0], 3, padding=1)
        sides = zip((CHANNELS[0], *CHANNELS), CHANNELS, strict=False)
        self.down = nn.ModuleList(level(a, b, BLOCKS, n == LEVELS - 1) for n, (a, b) in enumerate(sides))
        for n in range(LEVELS - 1):
            self.down[n].downsample = Resampling(CHANNELS[n], up=False)
        self.mid, self.norm_out = middle(CHANNELS[-1]), norm(CHANNELS[-1])
        self.conv_out = nn.Conv2d(CHANNELS[-1], WIDTH, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(x)
        for one in self.down:
            x = through(one, x)
            x = one.downsample(x) if hasattr(one, "downsample") else x
        return self.end(self.middle(x))


class Decoder(Half):
    def __init__(self) -> None:
        super().__init__()
        self.conv_in, self.mid = nn.Conv2d(WIDTH, CHANNELS[-1], 3, padding=1), middle(CHANNELS[-1])
        sides = zip((*CHANNELS[1:], CHANNELS[-1]), CHANNELS, strict=True)
        self.up = nn.ModuleList(level(a, b, BLOCKS + 1, n == LEVELS - 1) for n, (a, b) in enumerate(sides))
        for n in range(1, LEVELS):
            self.up[n].upsample = Resampling(CHANNELS[n], up=True)
        self.norm_out, self.conv_out = norm(CHANNELS[0]), nn.Conv2d(CHANNELS[0], 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.middle(self.conv_in(x))
        for one in reversed(self.up):
            x = through(one, x)
            x = one.upsample(x) if hasattr(one, "upsample") else x
        return self.end(x)


class Original(nn.Module):
    """The module whose state dict such a checkpoint holds, with a part of the training beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding(CODES, WIDTH)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 1)
        self.loss = nn.Module()
        self.loss.discriminator = nn.Conv2d(3, 4, 4)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.quant_conv(self.encoder(x))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        flat = z.permute(0, 2, 3, 1).reshape(-1, WIDTH)
        nearest = torch.cdist(flat, self.quantize.embedding.weight).argmin(1)
        codes = self.quantize.embedding(nearest).reshape(*z.permute(0, 2, 3, 1).shape)
        return self.decoder(self.post_quant_conv(codes.permute(0, 3, 1, 2)))


@pytest.fixture(scope="module")
def original() -> Any:
    return randomise(Original())


def test_a_checkpoint_becomes_the_network(original: Any, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": original.state_dict(), "epoch": 3}, path)
    config, params = taming.load(path)
    assert (config.block_channels, config.layers_per_block, config.attention_levels) == (CHANNELS, BLOCKS, (2,))
    assert (config.latent_channels, config.code_channels, config.codes) == (WIDTH, WIDTH, CODES)
    network, x = Vqgan(config), normal(2, 16, 16, 3)
    z = tiny.jit(lambda x: network.apply({"params": params}, x, method="encode"))(x)
    assert error(z, run(original.encode, x)) < 1e-4
    decoded = tiny.jit(lambda z: network.apply({"params": params}, z, method="decode"))(z)
    assert error(decoded, run(original.decode, np.asarray(z))) < 1e-4


def test_there_and_back(original: Any, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(original.state_dict(), path)
    config, params = taming.load(path)
    stored = taming.original(config, params)
    wanted = {name: value for name, value in original.state_dict().items() if not name.startswith("loss.")}
    assert stored.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(stored[name].read(), value.numpy())
    again = to_ours(stored, taming.rules(), taming.expected(config), "memory")
    np.testing.assert_array_equal(again["quant_conv"]["kernel"], params["quant_conv"]["kernel"])


def test_what_is_no_checkpoint_is_refused(original: Any, tmp_path: Path) -> None:
    with pytest.raises(VgenError, match="is no file"):
        taming.load(tmp_path / "nothing.ckpt")
    state = {name: value for name, value in original.state_dict().items() if "encoder.down" not in name}
    torch.save(state, tmp_path / "half.ckpt")
    with pytest.raises(VgenError, match="no VQGAN of taming-transformers"):
        taming.load(tmp_path / "half.ckpt")
    state = dict(original.state_dict())
    del state["decoder.mid.attn_1.q.weight"]
    torch.save(state, tmp_path / "missing.ckpt")
    with pytest.raises(VgenError, match="1 missing: decoder.mid.attn_1.q.weight"):
        taming.load(tmp_path / "missing.ckpt")
    assert files.read_file(tmp_path / "missing.ckpt")
