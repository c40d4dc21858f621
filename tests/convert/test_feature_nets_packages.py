"""Inception, I3D and LPIPS equal the networks of the packages that FID, FVD and LPIPS are known by.

Those of FID and LPIPS need torchvision, which has to be built for the PyTorch that is installed: its wheel on PyPI
links to the CUDA libraries of PyTorch's wheel there, and beside a PyTorch that is built for CPUs alone neither it nor
transformers can be imported. A fresh ``pip install -e '.[test]'`` brings a pair that fits.
"""

import importlib.util
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests import tiny
from tests.convert import originals
from tests.convert.checkpoints import TOLERANCE, apply, frames, saved, theirs, with_statistics
from vgen_jax.convert import feature_nets
from vgen_jax.metrics.features import FeatureNet


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {missing}; pip install -e '.[test]'")


@pytest.fixture(scope="module")
def i3d(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, FeatureNet]:
    from cdfvd.third_party.i3d.pytorch_i3d import InceptionI3d

    folder = tmp_path_factory.mktemp("i3d")
    model = with_statistics(InceptionI3d(400, in_channels=3))
    saved("fvd_i3d", model.state_dict(), folder)
    return model, feature_nets.feature_net("fvd_i3d", str(folder))


@pytest.mark.slow
@needs("cdfvd")
@pytest.mark.parametrize(
    "shape", [(9, 64, 64), (10, 224, 224), (16, 96, 120), pytest.param((32, 40, 56), marks=pytest.mark.long)]
)
def test_i3d_is_that_of_cd_fvd(i3d: tuple[torch.nn.Module, FeatureNet], shape: tuple[int, int, int]) -> None:
    model, net = i3d
    x = frames(1, *shape, 3)
    resized = functional.interpolate(torch.tensor(x[0]).movedim(-1, 1).float(), (224, 224), mode="bilinear")
    want = theirs(model, (resized / 127.5 - 1).movedim(1, -1)[None].numpy())
    assert originals.error(apply(net, x), want) < TOLERANCE


@pytest.mark.slow
@needs("cdfvd")
def test_i3d_is_that_of_cd_fvd_at_other_sizes(i3d: tuple[torch.nn.Module, FeatureNet]) -> None:
    """Sizes that no stride divides; its own pool leaves one position in space, hence less than 225 pixels."""
    model, net = i3d
    module = feature_nets.ORIGINALS["fvd_i3d"].module
    x = originals.normal(1, 11, 196, 221, 3)
    assert originals.error(tiny.jit(module.apply)({"params": net.params}, x), theirs(model, x)) < TOLERANCE


@pytest.mark.slow
@needs("pytorch_fid", "torchvision")
def test_inception_is_that_of_pytorch_fid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pytorch_fid.inception as pytorch_fid

    plain = mock.Mock(return_value={})
    monkeypatch.setattr(pytorch_fid, "load_state_dict_from_url", plain)
    with mock.patch.object(torch.nn.Module, "load_state_dict"):
        network = with_statistics(pytorch_fid.fid_inception_v3())
    monkeypatch.setattr(pytorch_fid, "fid_inception_v3", lambda: network)
    original = pytorch_fid.InceptionV3([3]).eval()
    saved("fid_inception", network.state_dict(), tmp_path)
    net = feature_nets.feature_net("fid_inception", str(tmp_path))
    x = frames(2, 60, 75, 3)
    want = theirs(lambda x: original(x / 255)[0][:, :, 0, 0], x.astype(np.float32))
    assert originals.error(apply(net, x), want) < TOLERANCE
    assert want.std(0).max() > 1e-3 * np.abs(want).max()  # the two frames are told apart


@pytest.mark.slow
@needs("lpips", "torchvision")
@pytest.mark.parametrize(("name", "short", "size"), [("lpips_vgg", "vgg", (32, 40)), ("lpips_alex", "alex", (64, 71))])
def test_lpips_is_that_of_its_package(name: str, short: str, size: tuple[int, int], tmp_path: Path) -> None:
    import lpips
    import torchvision

    build = {"vgg": torchvision.models.vgg16, "alex": torchvision.models.alexnet}[short]
    with torch.device("meta"):
        features = build().features
    classifier = torch.nn.ModuleDict({"features": features.to_empty(device="cpu")})
    saved(name, with_statistics(classifier).state_dict(), tmp_path)
    original = lpips.LPIPS(net=short, pnet_rand=True, verbose=False).eval()  # the heads are the published ones
    stages = [part for part in original.net.children() if isinstance(part, torch.nn.Sequential)]
    weights = {key: tensor for key, tensor in classifier.features.state_dict().items()}
    for stage in stages:
        stage.load_state_dict({key: weights[key] for key in stage.state_dict()})
    net = feature_nets.feature_net(name, str(tmp_path))
    pairs = frames(3, 2, *size, 3)
    pairs[2, 1] = pairs[2, 0]
    a, b = (torch.tensor(pairs[:, n]).movedim(-1, 1) / 255 for n in range(2))
    with torch.no_grad():
        want = original(a, b, normalize=True)[:, 0, 0].numpy()
    found = apply(net, pairs)
    assert originals.error(found, want) < TOLERANCE
    assert found[2, 0] == 0 < found[:2].min()
