"""The metrics' feature networks from their published checkpoints.

==================  ==============================================  ================================================
metric              file in the weights folder                      what it is
==================  ==============================================  ================================================
``fid_inception``   ``pt_inception-2015-12-05-6726825d.pth``        pytorch-fid's release ``fid_weights``
``fvd_i3d``         ``i3d_pretrained_400.pt``                       VideoGPT's and TATS's I3D of Kinetics-400
``lpips_vgg``       ``vgg16-397923af.pth``                          torchvision's VGG-16, and LPIPS's heads
``lpips_alex``      ``alexnet-owt-7be5be79.pth``                    torchvision's AlexNet, and LPIPS's heads
``cosine_vgg16``    ``vgg16-397923af.pth``                          torchvision's VGG-16
``src_resnet18``    ``resnet18-f37072fd.pth``                       torchvision's ResNet-18
==================  ==============================================  ================================================

A file may also be the same tensors as ``.safetensors`` under the same stem. Eight hexadecimal digits in a name are the
beginning of the SHA-256 of the file that was published, and are checked. The heads are those inside the ``lpips``
package (``pip install 'vgen_jax[eval]'``). Nothing is downloaded.
"""

import functools
import hashlib
import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from vgen_jax.convert import files
from vgen_jax.convert.rules import CONV, Kind, Leaf, Rule, to_ours
from vgen_jax.metrics import lpips
from vgen_jax.metrics.feature_nets import classifiers, i3d, inception
from vgen_jax.metrics.features import FeatureNet
from vgen_jax.types import Array, Params, VgenError

ENVIRONMENT = "VGEN_WEIGHTS"
FROZEN_NORM: Kind = (
    Leaf("weight", "scale", "o -> o"),
    Leaf("bias", "bias", "o -> o"),
    Leaf("running_mean", "mean", "o -> o"),
    Leaf("running_var", "var", "o -> o"),
)
CONV_3D: Kind = (Leaf("weight", "kernel", "o i t h w -> t h w i o"), Leaf("bias", "bias", "o -> o"))
COUNTERS = r".*\.num_batches_tracked"  # of training, beside every norm


class Original(NamedTuple):
    """A published network.

    Attributes:
        file: its checkpoint's name.
        source: where that is published, for errors.
        module: the network here.
        example: the smallest shape that it takes.
        rules: from the checkpoint's names.
        ignored: tensors of it that are not needed.
    """

    file: str
    source: str
    module: nn.Module
    example: tuple[int, ...]
    rules: tuple[Rule, ...]
    ignored: tuple[str, ...]


def _inception_rules() -> tuple[Rule, ...]:
    paths = [(name, name.replace(".", "/")) for name in inception.unit_names()]
    convs = [Rule(f"{name}.conv", f"{path}/conv", CONV) for name, path in paths]
    return (*convs, *(Rule(f"{name}.bn", f"{path}/norm", FROZEN_NORM) for name, path in paths))


def _i3d_rules() -> tuple[Rule, ...]:
    names = [*i3d.STEM, *(f"{block}.{unit}" for block in i3d.BLOCKS for unit in i3d.UNITS)]
    rules = [Rule("logits.conv3d", "logits", CONV_3D)]
    for name in names:
        path = name.replace(".", "/")
        rules += [Rule(f"{name}.conv3d", f"{path}/conv", CONV_3D), Rule(f"{name}.bn", f"{path}/norm", FROZEN_NORM)]
    return tuple(rules)


def _resnet_rules() -> tuple[Rule, ...]:
    rules = [Rule("conv1", "stem/conv", CONV), Rule("bn1", "stem/norm", FROZEN_NORM)]
    block, ours = "layer{level}.{i}", "layer_{level}_{i}"
    rules += [
        Rule(f"{block}.conv{{n}}", f"{ours}/unit_{{n}}/conv", CONV),
        Rule(f"{block}.bn{{n}}", f"{ours}/unit_{{n}}/norm", FROZEN_NORM),
        Rule(f"{block}.downsample.0", f"{ours}/downsample/conv", CONV),
        Rule(f"{block}.downsample.1", f"{ours}/downsample/norm", FROZEN_NORM),
    ]
    return tuple(rules)


_TORCHVISION = "https://download.pytorch.org/models/"
_FEATURES = (Rule("features.{i}", "conv_{i}", CONV),)
ORIGINALS: dict[str, Original] = {
    "fid_inception": Original(
        "pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights",
        inception.InceptionV3(), (1, 75, 75, 3), _inception_rules(), (COUNTERS, r"fc\..*", r"AuxLogits\..*"),
    ),
    "fvd_i3d": Original(
        "i3d_pretrained_400.pt", "the repositories of VideoGPT and of TATS",
        i3d.I3D(), (1, 9, 193, 193, 3), _i3d_rules(), (COUNTERS,),
    ),
    "lpips_vgg": Original(
        "vgg16-397923af.pth", _TORCHVISION,
        classifiers.Stages(classifiers.VGG16), (1, 16, 16, 3), _FEATURES, (r"classifier\..*",),
    ),
    "lpips_alex": Original(
        "alexnet-owt-7be5be79.pth", _TORCHVISION,
        classifiers.Stages(classifiers.ALEXNET), (1, 31, 31, 3), _FEATURES, (r"classifier\..*",),
    ),
    "cosine_vgg16": Original(
        "vgg16-397923af.pth", _TORCHVISION,
        classifiers.Stages(classifiers.VGG16), (1, 16, 16, 3), _FEATURES, (r"classifier\..*",),
    ),
    "src_resnet18": Original(
        "resnet18-f37072fd.pth", _TORCHVISION,
        classifiers.ResNet18(), (1, 32, 32, 3), _resnet_rules(), (COUNTERS, r"fc\..*"),
    ),
}  # fmt: skip


def load(name: str, path: Path) -> Params:
    """The parameters of a network of ``ORIGINALS`` from a checkpoint file.

    Raises:
        VgenError: if the file is damaged or holds another network.
    """
    original = ORIGINALS[name]
    example = jax.ShapeDtypeStruct(original.example, np.float32)
    expected = jax.eval_shape(original.module.init, jax.random.key(0), example)["params"]
    return to_ours(files.read_file(path), original.rules, expected, path, ignored=original.ignored)


def locate(name: str, weights_dir: str) -> Path:
    """The checkpoint of a metric in ``weights_dir`` or, if that is empty, in the folder that VGEN_WEIGHTS names.

    Raises:
        VgenError: if it is in neither, or not the file that was published under its name.
    """
    original = ORIGINALS[name]
    folder = weights_dir or os.environ.get(ENVIRONMENT, "")
    published = re.search(r"-([0-9a-f]{8})\.pth$", original.file)
    candidates = [Path(folder).expanduser() / original.file] if folder else []
    candidates += [path.with_suffix(".safetensors") for path in candidates]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        digest = f", SHA-256 {published[1]}…" if published else ""
        where = f"is not in {folder}" if folder else "was not looked for, no folder is named"
        raise VgenError(
            f"{name} needs {original.file} ({original.source}{digest}), which {where}: put it into the folder of "
            f"--config.weights_dir or of the environment variable {ENVIRONMENT}"
        )
    if published and found.name == original.file and not sha256(found).startswith(published[1]):
        raise VgenError(
            f"{found} is not the file of that name from {original.source}: its SHA-256 begins with "
            f"{sha256(found)[:8]}, not {published[1]}; download it again"
        )
    return found


@functools.cache
def sha256(path: Path) -> str:
    """Of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def heads_file(name: str) -> Path:
    """Where the installed ``lpips`` package keeps the heads (version 0.1) of ``lpips_vgg`` or ``lpips_alex``.

    Raises:
        VgenError: if it is not installed.
    """
    found = importlib.util.find_spec("lpips")  # found and not imported: that would bring torchvision along
    if found is None or not found.submodule_search_locations:
        raise VgenError(f"{name} needs the heads in the lpips package: pip install 'vgen_jax[eval]'")
    return Path(found.submodule_search_locations[0]) / "weights" / "v0.1" / f"{name.removeprefix('lpips_')}.pth"


def load_heads(path: Path, channels: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The weight of each channel of each of LPIPS's five feature maps, ``{"0": (C,), …}``.

    Raises:
        VgenError: if the file is damaged or of another classifier.
    """
    stored = files.read_file(path)
    heads = {}
    for n, width in enumerate(channels):
        key = f"lin{n}.model.1.weight"
        if key not in stored or stored[key].shape != (1, width, 1, 1):
            raise VgenError(f"{path} has no {key} of {width} channels: install the lpips package again")
        heads[str(n)] = np.asarray(stored[key].read(), np.float32).reshape(width)
    return heads


def feature_net(name: str, weights_dir: str) -> FeatureNet:
    """A metric's network with its weights.

    Args:
        name: a key of ``ORIGINALS``.
        weights_dir: see ``locate``.

    Raises:
        VgenError: for a file that is missing, damaged or another one.
    """
    path = locate(name, weights_dir)
    contract = {"weights": path.name, "sha256": sha256(path)}
    if name.startswith("lpips"):
        return _lpips_net(name, load(name, path), contract)
    if name == "cosine_vgg16":
        shown = {**contract, "input": "224x224 bilinear with antialiasing, less ImageNet's mean; last pool, flattened"}
        return FeatureNet(name, "pair", 1, lpips.cosine_vgg16, load(name, path), shown)
    rows, width, preprocess, resized = PROTOCOLS[name]
    apply = functools.partial(_apply, ORIGINALS[name].module, preprocess)
    return FeatureNet(name, rows, width, apply, load(name, path), {**contract, "input": resized})


def _apply(module: nn.Module, preprocess: Callable[[Array], Array], params: Params, rows: Array) -> Array:
    features: Any = module.apply({"params": params}, preprocess(rows))
    return features


def _lpips_net(name: str, net: Params, contract: dict[str, str]) -> FeatureNet:
    channels = tuple(stage.layers[-1].features for stage in lpips.STAGES[name])
    path = heads_file(name)
    params = {"net": net, "heads": load_heads(path, channels)}
    shown = {**contract, "heads_sha256": sha256(path), "input": "own resolution, [-1, 1] less ImageNet's mean"}
    return FeatureNet(name, "pair", 1, functools.partial(lpips.lpips, name), params, shown)


# What a row is, the width of its features, what is done to bytes, and how the contract puts that.
PROTOCOLS: dict[str, tuple[str, int, Callable[[Array], Array], str]] = {
    "fid_inception": (
        "frame", inception.WIDTH, inception.preprocess, "299x299 bilinear without antialiasing, [-1, 1]",
    ),
    "fvd_i3d": (
        "clip", i3d.WIDTH, i3d.preprocess,
        f"224x224 bilinear without antialiasing, [-1, 1]; norm epsilon {i3d.EPSILON}",
    ),
    "src_resnet18": (
        "frame", classifiers.RESNET_WIDTH, classifiers.preprocess,
        "224x224 bilinear with antialiasing, less ImageNet's mean",
    ),
}  # fmt: skip
