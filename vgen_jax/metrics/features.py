"""Feature networks as the metrics see them, and their application to any number of frames, clips or pairs."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vgen_jax.types import Array


class FeatureNet(NamedTuple):
    """A network whose features a metric compares.

    Attributes:
        name: of the metric, with the backbone in it (``fvd_i3d``).
        rows: what one row of the input is: a ``frame`` (H, W, 3), a ``clip`` (T, H, W, 3) or a ``pair`` (2, H, W, 3).
        width: of a row's features.
        apply: (params, uint8 rows) -> float32 (B, width); any size of frames, resizing included.
        params: its parameters.
        contract: what has to be the same for two results to be comparable: weights, input size, filter, range.
    """

    name: str
    rows: str
    width: int
    apply: Callable[[Any, Array], Array]
    params: Any
    contract: dict[str, str]


def extractor(net: FeatureNet, batch_size: int) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 videos (N, R, …) of R rows each -> features (N, R, width), float32, on all of this process's devices.

    A device takes its videos one after another, so that a video passes through the same program alone, among others and
    on any number of devices: kernels chosen by the batch would change the last digits, and distances by more.

    Args:
        batch_size: videos at a time, over all devices together; rounded up to a multiple of their number. The last
            batch is padded, so that the network is compiled once for each shape of a video.
    """
    devices = jax.local_devices()
    size = math.ceil(batch_size / len(devices)) * len(devices)
    mesh = Mesh(np.asarray(devices), ("videos",))
    split, whole = PartitionSpec("videos"), PartitionSpec()
    params = jax.device_put(net.params, NamedSharding(mesh, whole))

    def one_by_one(params: Any, videos: Array) -> Array:
        return jax.lax.map(functools.partial(net.apply, params), videos)

    apply = jax.jit(jax.shard_map(one_by_one, mesh=mesh, in_specs=(whole, split), out_specs=split))

    def extract(videos: np.ndarray) -> np.ndarray:
        features = [np.zeros((0, videos.shape[1], net.width), np.float32)]
        for start in range(0, len(videos), size):
            part = np.asarray(videos[start : start + size])
            padded = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            placed = jax.device_put(padded, NamedSharding(mesh, split))
            features.append(np.asarray(apply(params, placed))[: len(part)])
        return np.concatenate(features)

    return extract
