"""LPIPS (Zhang et al. 2018, version 0.1): the distance of two pictures in a classifier's features.

Each of five feature maps is scaled to unit length over its channels; squared differences are weighted by a learned
non-negative weight per channel, summed over channels, averaged over the pixels, and added up over the maps. Frames are
compared at their own resolution. Names carry the classifier: ``lpips_vgg``, ``lpips_alex``.

``unweighted_distance`` is the same of any network's maps, without learned weights; it is named after its network
(``lpips_action_procgen``) and is never called LPIPS.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from vgen_jax.metrics.feature_nets.classifiers import ALEXNET, VGG16, Stages, preprocess
from vgen_jax.types import Array, VgenError

# What brings [-1, 1] to the classifiers' input: ImageNet's mean and deviation, as the original rounds them.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
EPSILON = 1e-10
STAGES = {"lpips_vgg": VGG16, "lpips_alex": ALEXNET}
SMALLEST_SIDE = {"lpips_vgg": 16, "lpips_alex": 31}  # below it the last pool has nothing left


def lpips(name: str, params: Any, pairs_BPHWC: Array) -> Array:
    """The distance of each pair of frames.

    Args:
        name: ``lpips_vgg`` or ``lpips_alex``.
        params: ``{"net": the classifier's, "heads": {"0": (C,), …}}``.
        pairs_BPHWC: uint8, or float in [0, 1]; axis P has the two frames of a pair.

    Returns:
        float32 (B, 1), at least 0; 0 for identical frames.

    Raises:
        VgenError: frames too small for the classifier.
    """
    height, width = pairs_BPHWC.shape[2:4]
    if min(height, width) < SMALLEST_SIDE[name]:
        least = SMALLEST_SIDE[name]
        raise VgenError(f"{name}: frames of {height}x{width} are too small; it needs {least}x{least} or more")
    x = jnp.asarray(pairs_BPHWC)
    x = x.astype(jnp.float32) / 255.0 if jnp.issubdtype(x.dtype, jnp.integer) else x
    x = (2.0 * x - 1.0 - jnp.asarray(SHIFT)) / jnp.asarray(SCALE)
    maps: Any = Stages(STAGES[name]).apply({"params": params["net"]}, x.reshape(-1, *x.shape[2:]))
    weighted = [
        (difference * params["heads"][str(n)]).sum(-1).mean((1, 2)) for n, difference in enumerate(_differences(maps))
    ]
    return jnp.stack(weighted).sum(0)[:, None]


def unweighted_distance(maps: Sequence[Array]) -> Array:
    """The distance of each pair of frames in any network's maps: all channels and all maps count alike.

    Args:
        maps: activations (2B, h, w, C); the frames of a pair lie one behind the other.

    Returns:
        float32 (B, 1), in [0, 4]; 0 for identical frames.
    """
    each = [difference.sum(-1).mean((1, 2)) for difference in _differences(maps)]
    return jnp.stack(each).mean(0)[:, None]


def cosine_vgg16(params: Any, pairs_BPHWC: Array) -> Array:
    """The cosine of each pair of frames in VGG-16's last pooled features, 7x7x512 of frames at 224x224, flattened.

    LeAP's measure; the weights are torchvision's, of which the paper's may be others.

    Args:
        params: the classifier's.
        pairs_BPHWC: uint8; axis P has the two frames of a pair.

    Returns:
        float32 (B, 1), in [0, 1]; 1 for identical frames.
    """
    x = preprocess(pairs_BPHWC.reshape(-1, *pairs_BPHWC.shape[2:]))
    maps: Any = Stages(VGG16).apply({"params": params}, x)
    pooled = nn.max_pool(maps[-1], (2, 2), (2, 2)).reshape(len(pairs_BPHWC), 2, -1)
    length = jnp.linalg.norm(pooled, axis=-1) + EPSILON
    return ((pooled[:, 0] * pooled[:, 1]).sum(-1) / (length[:, 0] * length[:, 1]))[:, None]


def _differences(maps: Sequence[Array]) -> list[Array]:
    """Of each map, the squared difference (B, h, w, C) of a pair's channels, which are scaled to unit length."""
    found = []
    for features in maps:
        squared = (features**2).sum(-1, keepdims=True)
        # The root of 0 has no gradient, and LPIPS is a training loss as well.
        length = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
        features = features / (length + EPSILON)
        pair = features.reshape(-1, 2, *features.shape[1:])
        found.append((pair[:, 0] - pair[:, 1]) ** 2)
    return found
