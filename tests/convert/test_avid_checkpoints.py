"""AVID's checkpoints by their original names: whole networks there and back, and blocks beside PyTorch's own."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from einops import rearrange

from tests import tiny
from vgen_jax.convert import avid
from vgen_jax.convert.rules import nest, to_ours
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.nn import factorized
from vgen_jax.types import VgenError
from vgen_jax.worlds.avid import MethodConfig, avid_adapter, diffusion
from vgen_jax.worlds.avid_networks import PixelConfig, WorldConfig

WORLD = WorldConfig(Schedule("sigmoid", 20, -3.0, 3.0), "x0", "discrete", 15, 2)
SHAPE = PixelConfig(6, (1, 2), 2, 8, 1, "none", "float32")
BASE = MethodConfig("diffusion", SHAPE, False, False)


def state_dict(params: Any, method: MethodConfig, shown: int, prefix: str) -> dict[str, torch.Tensor]:
    """As Lightning stores it: with the rotary constants beside every attention, and the diffusion's buffers."""
    stored = avid.save_unet(params, method, WORLD, shown)
    found = {f"{prefix}{name}": torch.from_numpy(np.array(tensor.read())) for name, tensor in stored.items()}
    found[f"{prefix}init_temporal_attn.fn.fn.fn.rotary_emb.freqs"] = torch.zeros(4)
    return found


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_a_base_is_read_from_a_checkpoint_with_its_shape(weights: str, tmp_path: Path) -> None:
    params = tiny.random_params(diffusion(BASE, WORLD).init)
    stored = state_dict(params, BASE, 3, f"{avid.PREFIXES[weights]}model.")
    stored["diffusion_model.betas"] = torch.zeros(20)
    torch.save({"state_dict": stored, "epoch": 3}, tmp_path / "base.ckpt")
    found = avid.load(tmp_path / "base.ckpt", "model", WORLD, weights)
    assert found.method == BASE
    for ours, theirs in zip(_leaves(found.params), _leaves(params), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    other = "raw" if weights == "ema" else "ema"
    with pytest.raises(VgenError, match="holds no .*model"):
        avid.load(tmp_path / "base.ckpt", "model", WORLD, other)


@pytest.mark.parametrize("mask", [True, False])
def test_an_adapter_brings_its_mixture(mask: bool, tmp_path: Path) -> None:
    method = MethodConfig("avid", SHAPE, mask, True)
    params = tiny.random_params(avid_adapter(method, WORLD, lambda *a: a).init)
    side = 1 if mask else 3
    stored = state_dict(params["network"], method, 4, "ema.ema_model.adapter.")
    kernel = np.asarray(params["head"]["mixture"]["kernel"]).T.reshape(side, side, 1, 1, 1)
    stored["ema.ema_model.mixture_conv.weight"] = torch.from_numpy(kernel)
    stored["ema.ema_model.mixture_conv.bias"] = torch.from_numpy(np.asarray(params["head"]["mixture"]["bias"]))
    torch.save(stored, tmp_path / "avid.pt")
    found = avid.load(tmp_path / "avid.pt", "adapter", WORLD)
    assert found.method == method
    for ours, theirs in zip(_leaves(found.params), _leaves(params), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_names_are_those_of_the_published_code() -> None:
    params = tiny.random_params(diffusion(BASE, WORLD).init)
    names = avid.save_unet(params, BASE, WORLD, 3)
    shapes = {
        "init_conv.weight": (6, 9, 1, 7, 7), "null_action_emb": (6,), "action_emb.weight": (15, 6),
        "downs.0.0.block1.norm.gamma": (6, 1, 1, 1), "downs.0.3.fn.norm.gamma": (1, 6, 1, 1, 1),
        "downs.1.0.mlp.1.weight": (24, 48), "downs.0.2.fn.fn.to_qkv.weight": (192, 6, 1, 1),
        "mid_spatial_attn.fn.fn.fn.to_qkv.weight": (192, 12), "ups.0.4.weight": (6, 6, 1, 4, 4),
        "ups.0.0.res_conv.weight": (6, 24, 1, 1, 1), "final_conv.1.weight": (3, 6, 1, 1, 1),
        "time_rel_pos_bias.relative_attention_bias.weight": (32, 2),
    }  # fmt: skip
    assert {name: names[name].shape for name in shapes} == shapes
    assert not any(name.startswith("final_conv.0.mlp") for name in names)
    with pytest.raises(VgenError, match="no patches"):
        avid.save_unet(params, dataclasses.replace(BASE, unet=dataclasses.replace(SHAPE, patch=2)), WORLD, 3)


def _leaves(tree: Any) -> list[Any]:
    return [v for k in sorted(tree) for v in (_leaves(tree[k]) if isinstance(tree[k], dict) else [tree[k]])]


class Attention(torch.nn.Module):
    """Temporal attention with rotary positions, written from its equations for sequences (F, T, C)."""

    def __init__(self, dim: int, heads: int, head_dim: int):
        super().__init__()
        self.heads = heads
        self.gamma = torch.nn.Parameter(torch.randn(1, dim, 1, 1, 1))
        self.to_qkv = torch.nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.to_out = torch.nn.Linear(heads * head_dim, dim, bias=False)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        qkv = self.to_qkv(normed * self.gamma.flatten()).chunk(3, -1)
        q, k, v = (rearrange(y, "f t (h d) -> f h t d", h=self.heads) for y in qkv)
        q, k = self.turned(q), self.turned(k)
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias).softmax(-1)
        return x + self.to_out(rearrange(weights @ v, "f h t d -> f t (h d)"))

    @staticmethod
    def turned(x: torch.Tensor) -> torch.Tensor:
        width = min(32, x.shape[-1])
        pairs = torch.view_as_complex(x[..., :width].reshape(*x.shape[:-1], -1, 2).contiguous())
        angle = torch.outer(torch.arange(x.shape[-2]).float(), 10_000.0 ** (-torch.arange(0, width, 2) / width))
        head = torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)
        return torch.cat([head, x[..., width:]], -1)


def converted(module: torch.nn.Module, names: dict[str, str], rules: Any, expected: Any) -> Any:
    stored = {names.get(k, k): _stored(v.detach().numpy()) for k, v in module.state_dict().items()}
    return to_ours(stored, rules, expected, "test")


def _stored(value: np.ndarray) -> Any:
    return avid.Stored(value.shape, value.dtype, lambda: value)


@pytest.mark.parametrize("head_dim", [8, 40])
def test_temporal_attention_is_that_of_its_equations(head_dim: int) -> None:
    torch.manual_seed(0)
    theirs = Attention(6, 2, head_dim)
    x = np.random.default_rng(0).normal(size=(2 * 3, 2, 2, 6)).astype(np.float32)
    bias = np.random.default_rng(1).normal(size=(2, 3, 3)).astype(np.float32)
    ours = factorized.TemporalAttention(2, head_dim, 3)
    expected = tiny.random_params(ours.init, x, bias)["params"]
    names = {"gamma": "m.fn.norm.gamma", "to_qkv.weight": "m.fn.fn.fn.to_qkv.weight"}
    names["to_out.weight"] = "m.fn.fn.fn.to_out.weight"
    params = converted(theirs, names, nest("m", "m", avid.ATTENTION), {"m": expected})["m"]
    sequences = torch.from_numpy(rearrange(x, "(b t) h w c -> (b h w) t c", t=3).copy())
    wanted = rearrange(
        theirs(sequences, torch.from_numpy(bias)).detach().numpy(), "(b h w) t c -> (b t) h w c", h=2, w=2
    )
    np.testing.assert_allclose(ours.apply({"params": params}, jnp.asarray(x), jnp.asarray(bias)), wanted, atol=1e-5)


class Resnet(torch.nn.Module):
    """The block with scale and shift, written from its equations, (F, C, T, H, W)."""

    def __init__(self, dim: int, out: int, width: int):
        super().__init__()
        self.mlp = torch.nn.Sequential(torch.nn.SiLU(), torch.nn.Linear(width, 2 * out))
        self.conv1 = torch.nn.Conv3d(dim, out, (1, 3, 3), padding=(0, 1, 1))
        self.conv2 = torch.nn.Conv3d(out, out, (1, 3, 3), padding=(0, 1, 1))
        self.gain1, self.gain2 = (torch.nn.Parameter(torch.randn(out, 1, 1, 1)) for _ in range(2))
        self.res_conv = torch.nn.Conv3d(dim, out, 1)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        scale, shift = self.mlp(embedding)[:, :, None, None, None].chunk(2, 1)
        norm = lambda h, gain: torch.nn.functional.normalize(h, dim=1) * h.shape[1] ** 0.5 * gain  # noqa: E731
        h = torch.nn.functional.silu(norm(self.conv1(x), self.gain1) * (scale + 1) + shift)
        return self.res_conv(x) + torch.nn.functional.silu(norm(self.conv2(h), self.gain2))


def test_the_resnet_and_both_samplings_are_pytorchs() -> None:
    torch.manual_seed(0)
    theirs = Resnet(4, 6, 5)
    rng = np.random.default_rng(0)
    x, embedding = rng.normal(size=(2, 4, 4, 4)).astype(np.float32), rng.normal(size=(2, 5)).astype(np.float32)
    ours = factorized.FilmResnet(6)
    expected = tiny.random_params(ours.init, x, embedding)["params"]
    names = {f"conv{n}.{kind}": f"m.block{n}.proj.{kind}" for n in (1, 2) for kind in ("weight", "bias")}
    names |= {f"gain{n}": f"m.block{n}.norm.gamma" for n in (1, 2)}
    names |= {f"{part}.{kind}": f"m.{part}.{kind}" for part in ("mlp.1", "res_conv") for kind in ("weight", "bias")}
    params = converted(theirs, names, nest("m", "m", avid.RESNET), {"m": expected})["m"]
    video = torch.from_numpy(rearrange(x, "f h w c -> f c 1 h w").copy())
    wanted = rearrange(theirs(video, torch.from_numpy(embedding)).detach().numpy(), "f c 1 h w -> f h w c")
    np.testing.assert_allclose(ours.apply({"params": params}, x, embedding), wanted, atol=1e-5)
    pairs = (
        (factorized.HalvingConv(), torch.nn.Conv3d(4, 4, (1, 4, 4), (1, 2, 2), (0, 1, 1)), "m/conv", avid.CONV),
        (
            factorized.DoublingConv(),
            torch.nn.ConvTranspose3d(4, 4, (1, 4, 4), (1, 2, 2), (0, 1, 1)),
            "m",
            avid.DOUBLING,
        ),
    )
    for module, original, path, kind in pairs:
        expected = tiny.random_params(module.init, x)["params"]
        rules = [avid.Rule("m", path, kind)]
        params = converted(original, {"weight": "m.weight", "bias": "m.bias"}, rules, {"m": expected})["m"]
        wanted = rearrange(original(video).detach().numpy(), "f c 1 h w -> f h w c")
        np.testing.assert_allclose(module.apply({"params": params}, x), wanted, atol=1e-5)
