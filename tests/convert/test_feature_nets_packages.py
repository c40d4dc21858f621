"""Inception and LPIPS equal the networks of the packages that define them, pytorch-fid and lpips.

Both need torchvision, which has to be built for the PyTorch that is installed; hence an extra of their own.
"""

import importlib.util
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from tests.convert import originals
from tests.convert.checkpoints import TOLERANCE, apply, frames, saved, theirs, with_statistics
from vgen_jax.convert import feature_nets

if not all(importlib.util.find_spec(name) for name in ("lpips", "pytorch_fid", "torchvision")):
    pytest.skip("lpips or pytorch-fid is not installed: pip install -e '.[parity]'", allow_module_level=True)

import lpips
import pytorch_fid.inception as pytorch_fid
import torchvision


@pytest.mark.slow
def test_inception_is_that_of_pytorch_fid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
@pytest.mark.parametrize(("name", "short", "size"), [("lpips_vgg", "vgg", (32, 40)), ("lpips_alex", "alex", (64, 71))])
def test_lpips_is_that_of_its_package(name: str, short: str, size: tuple[int, int], tmp_path: Path) -> None:
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
