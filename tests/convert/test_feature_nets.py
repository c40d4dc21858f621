"""The metrics' networks equal their originals in PyTorch, the norms' statistics included.

Inception and LPIPS are compared with the packages that define them in ``test_feature_nets_packages.py``.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn import functional
from transformers import ResNetConfig, ResNetModel

from tests import tiny
from tests.convert import originals
from tests.convert.checkpoints import TOLERANCE, apply, frames, saved, theirs, with_statistics
from tests.convert.i3d_original import I3D
from vgen_jax.convert import feature_nets
from vgen_jax.convert.rules import entries, flat_shapes
from vgen_jax.metrics.features import FeatureNet
from vgen_jax.types import VgenError


@pytest.fixture(scope="module")
def i3d(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, FeatureNet]:
    folder = tmp_path_factory.mktemp("i3d")
    model = with_statistics(I3D())
    saved("fvd_i3d", model.state_dict(), folder)
    return model, feature_nets.feature_net("fvd_i3d", str(folder))


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        (9, 40, 56),
        (10, 224, 224),
        pytest.param((16, 250, 230), marks=pytest.mark.long),  # as many frames: test_feature_nets_packages
        pytest.param((32, 32, 32), marks=pytest.mark.long),
    ],
)
def test_i3d_takes_clips_of_any_length_and_size(
    i3d: tuple[torch.nn.Module, FeatureNet], shape: tuple[int, int, int]
) -> None:
    model, net = i3d
    x = frames(1, *shape, 3)
    resized = functional.interpolate(torch.tensor(x[0]).movedim(-1, 1).float(), (224, 224), mode="bilinear")
    want = theirs(model, (resized / 127.5 - 1).movedim(1, -1)[None].numpy())
    assert originals.error(apply(net, x), want) < TOLERANCE


@pytest.mark.slow
def test_i3d_without_resizing(i3d: tuple[torch.nn.Module, FeatureNet]) -> None:
    model, net = i3d
    module = feature_nets.ORIGINALS["fvd_i3d"].module
    x = originals.normal(1, 11, 193, 260, 3)  # two columns are left of the last pool
    assert originals.error(tiny.jit(module.apply)({"params": net.params}, x), theirs(model, x)) < TOLERANCE


@pytest.mark.parametrize("shape", [(8, 224, 224), (16, 192, 224)])
def test_i3d_refuses_what_leaves_its_last_pool_nothing(shape: tuple[int, int, int]) -> None:
    module = feature_nets.ORIGINALS["fvd_i3d"].module
    with pytest.raises(VgenError, match=f"clips of {shape[0]} frames of {shape[1]}x{shape[2]}: it needs 9 frames"):
        jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, *shape, 3), np.float32))


TRANSFORMERS_NAMES = {
    r"embedder\.embedder\.convolution": "conv1",
    r"embedder\.embedder\.normalization": "bn1",
    r"encoder\.stages\.(\d)\.layers\.(\d)\.layer\.(\d)\.convolution": "layer{}.{}.conv{}",
    r"encoder\.stages\.(\d)\.layers\.(\d)\.layer\.(\d)\.normalization": "layer{}.{}.bn{}",
    r"encoder\.stages\.(\d)\.layers\.(\d)\.shortcut\.convolution": "layer{}.{}.downsample.0",
    r"encoder\.stages\.(\d)\.layers\.(\d)\.shortcut\.normalization": "layer{}.{}.downsample.1",
}


def torchvision_name(name: str) -> str:
    """Stages and convolutions count from 1 there, from 0 in transformers."""
    module, _, tensor = name.rpartition(".")
    for pattern, template in TRANSFORMERS_NAMES.items():
        if match := re.fullmatch(pattern, module):
            numbers = [int(n) + (place != 1) for place, n in enumerate(match.groups())]
            return f"{template.format(*numbers)}.{tensor}"
    raise AssertionError(name)


@pytest.mark.slow
def test_resnet_is_that_of_transformers(tmp_path: Path) -> None:
    sizes = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
    model = with_statistics(ResNetModel(ResNetConfig(**sizes, layer_type="basic")))
    saved("src_resnet18", {torchvision_name(key): tensor for key, tensor in model.state_dict().items()}, tmp_path)
    net = feature_nets.feature_net("src_resnet18", str(tmp_path))

    def original(x: torch.Tensor) -> torch.Tensor:
        return model(x).pooler_output[:, :, 0, 0]

    module = feature_nets.ORIGINALS["src_resnet18"].module
    x = originals.normal(2, 65, 96, 3)
    assert originals.error(tiny.jit(module.apply)({"params": net.params}, x), theirs(original, x)) < TOLERANCE
    rows = frames(1, 48, 64, 3)
    resized = partial(functional.interpolate, size=(224, 224), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(n)[:, None, None] for n in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    want = theirs(lambda x: original((resized(x) / 255 - mean) / std), rows.astype(np.float32))
    assert originals.error(apply(net, rows), want) < TOLERANCE


def test_inception_has_the_published_size() -> None:
    original = feature_nets.ORIGINALS["fid_inception"]
    shapes = jax.eval_shape(original.module.init, jax.random.key(0), np.zeros(original.example, np.float32))["params"]
    found, uncovered = entries(original.rules, flat_shapes(shapes))
    kernels = [entry.shape for entry in found.values() if len(entry.shape) == 4]
    learned = [entry.shape for name, entry in found.items() if "running" not in name]
    assert not uncovered and len(kernels) == 94
    assert sum(int(np.prod(shape)) for shape in learned) == 21_785_568


VGG_CONVS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)  # 0 is a pool


def vgg16() -> tuple[torch.nn.Sequential, tuple[int, ...]]:
    """VGG-16's convolutions, numbered as they are published, and the layers after which LPIPS looks."""
    layers: list[torch.nn.Module] = []
    width = 3
    for features in VGG_CONVS:
        if features:
            layers += [torch.nn.Conv2d(width, features, 3, padding=1), torch.nn.ReLU()]
            width = features
        else:
            layers.append(torch.nn.MaxPool2d(2))
    return torch.nn.Sequential(*layers), (3, 8, 15, 22, 29)


def alexnet() -> tuple[torch.nn.Sequential, tuple[int, ...]]:
    layers = [torch.nn.Conv2d(3, 64, 11, 4, 2), torch.nn.ReLU(), torch.nn.MaxPool2d(3, 2)]
    layers += [torch.nn.Conv2d(64, 192, 5, padding=2), torch.nn.ReLU(), torch.nn.MaxPool2d(3, 2)]
    for inputs, outputs in ((192, 384), (384, 256), (256, 256)):
        layers += [torch.nn.Conv2d(inputs, outputs, 3, padding=1), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers), (1, 4, 7, 9, 11)


def heads_of(taps: list[torch.Tensor], path: Path) -> list[torch.Tensor]:
    """Random heads, written as the lpips package keeps them."""
    heads = [
        torch.rand(1, tap.shape[1], 1, 1, generator=torch.Generator().manual_seed(n)) for n, tap in enumerate(taps)
    ]
    torch.save({f"lin{n}.model.1.weight": head for n, head in enumerate(heads)}, path)
    return heads


@pytest.mark.slow
@pytest.mark.parametrize(("name", "build", "size"), [("lpips_vgg", vgg16, (32, 40)), ("lpips_alex", alexnet, (64, 71))])
def test_lpips_is_its_formula(
    name: str, build: Callable, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, after = build()
    with_statistics(layers)
    saved(name, {f"features.{key}": tensor for key, tensor in layers.state_dict().items()}, tmp_path)
    pairs = frames(4, 2, *size, 3)
    pairs[2, 1] = pairs[2, 0]

    def taps(x: np.ndarray) -> list[torch.Tensor]:
        mean, std = (torch.tensor(n)[:, None, None] for n in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        y = (torch.tensor(x).movedim(-1, 1) / 255 - mean) / std
        found = []
        for number, layer in enumerate(layers):
            y = layer(y)
            if number in after:
                found.append(y / y.norm(dim=1, keepdim=True))
        return found

    with torch.no_grad():
        a, b = taps(pairs[:, 0]), taps(pairs[:, 1])
        heads = heads_of(a, tmp_path / "heads.pth")
        parts = [(h * (x - y) ** 2).sum(1).mean((1, 2)) for h, x, y in zip(heads, a, b, strict=True)]
    want = sum(parts).numpy()[:, None]
    monkeypatch.setattr(feature_nets, "heads_file", lambda name: tmp_path / "heads.pth")
    found = apply(feature_nets.feature_net(name, str(tmp_path)), pairs)
    # The original rounds ImageNet's mean and deviation to three digits after scaling them; here they are whole.
    assert originals.error(found, want) < 10 * TOLERANCE
    assert found[2, 0] == 0 < found[:2].min()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint of AlexNet; its heads stand beside it."""
    folder = tmp_path_factory.mktemp("alexnet")
    layers, after = alexnet()
    heads_of([torch.zeros(1, layers[n - 1].out_channels) for n in after], folder / "heads.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_nets, "heads_file", lambda name: folder / "heads.pth")
        tensors = with_statistics(layers).state_dict()
        yield saved("lpips_alex", {f"features.{key}": tensor for key, tensor in tensors.items()}, folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pickle", "torchscript"])
def test_other_containers_hold_the_same(kind: str, small: Path, tmp_path: Path) -> None:
    tensors = safetensors.torch.load_file(small)
    path = tmp_path / "weights.pt"
    if kind == "pickle":
        torch.save(tensors, path)
    else:
        model = torch.nn.Sequential(OrderedDict(features=alexnet()[0]))
        model.load_state_dict(tensors)
        torch.jit.save(torch.jit.trace(model, torch.zeros(1, 3, 64, 64)), path)
    want, found = feature_nets.load("lpips_alex", small), feature_nets.load("lpips_alex", path)
    jax.tree.map(np.testing.assert_array_equal, found, want)


def test_a_file_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(feature_nets.ENVIRONMENT, raising=False)
    with pytest.raises(VgenError, match=r"fvd_i3d needs i3d_pretrained_400.pt .* was not looked for") as caught:
        feature_nets.feature_net("fvd_i3d", "")
    assert "--config.weights_dir" in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.setenv(feature_nets.ENVIRONMENT, str(tmp_path))
    with pytest.raises(VgenError, match=rf"vgg16-397923af.pth .*SHA-256 397923af…\), which is not in {tmp_path}"):
        feature_nets.feature_net("lpips_vgg", "")


def test_the_folder_comes_from_the_config_or_from_the_environment(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(feature_nets.ENVIRONMENT, str(small.parent))
    assert feature_nets.locate("lpips_alex", "") == small
    with pytest.raises(VgenError, match=f"not in {tmp_path}"):
        feature_nets.locate("lpips_alex", str(tmp_path))


def test_another_file_under_the_published_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "resnet18-f37072fd.pth").write_bytes(b"something else")
    with pytest.raises(VgenError, match="its SHA-256 begins with .*, not f37072fd; download it again"):
        feature_nets.locate("src_resnet18", str(tmp_path))


def test_weights_of_another_network_are_refused(small: Path) -> None:
    with pytest.raises(VgenError, match="do not fit the network .*missing"):
        feature_nets.load("lpips_vgg", small)
    with pytest.raises(VgenError, match="has no lin0.model.1.weight of 65 channels"):
        feature_nets.load_heads(small.parent / "heads.pth", (65,))


def test_frames_too_small_for_lpips_are_refused(small: Path) -> None:
    net = feature_nets.feature_net("lpips_alex", str(small.parent))
    with pytest.raises(VgenError, match="lpips_alex: frames of 30x64 are too small; it needs 31x31"):
        apply(net, frames(1, 2, 30, 64, 3))
