"""How alike two visits to a place look: a PSNR, and a perceptual distance, between the frames of a pair.

A pair (i, j) of frames, i < j, shows the same view; the camera had left it in between. One number per video: the mean
over its pairs. A data set's result is their mean, ``Mean("revisit_psnr").update(state, values=per_video)``, with an
interval over videos, since the pairs of a video resemble each other.

The distance is LPIPS' (Zhang et al. 2018) without its learned weights: in each of a network's layers the channels of
every pixel are scaled to unit length, and the squared length of their difference is averaged over pixels; layers count
alike. 0 is equal, 2 is unrelated. It is named after its network, ``lpips_place_vizdoom``, and is never called LPIPS.
"""

from collections.abc import Callable, Sequence

import numpy as np

from vgen_jax.metrics.frames import PSNR_CAP
from vgen_jax.types import Array, VgenError

# uint8 frames (N, H, W, 3) -> activations (N, h, w, c), one array per layer
Layers = Callable[[np.ndarray], Sequence[Array]]
SLICE = 64  # pairs whose activations are held at once
_TINY = 1e-10  # keeps a pixel without activations finite


def pairwise_psnr(a_NHWC: np.ndarray, b_NHWC: np.ndarray) -> np.ndarray:
    """PSNR in dB of each pair of uint8 frames, float64 (N,), at most that of ``metrics.frames``.

    In NumPy: the number of pairs differs from video to video, and each would be compiled anew.

    Raises:
        VgenError: frames of another type, or shapes that differ.
    """
    if a_NHWC.dtype != np.uint8 or b_NHWC.dtype != np.uint8 or a_NHWC.shape != b_NHWC.shape:
        shapes = f"{a_NHWC.dtype} {a_NHWC.shape} and {b_NHWC.dtype} {b_NHWC.shape}"
        raise VgenError(f"psnr of pairs: needs two sets of uint8 frames of one shape, got {shapes}")
    error_N = ((a_NHWC / 255.0 - b_NHWC / 255.0) ** 2).mean((1, 2, 3))
    return -10.0 * np.log10(np.maximum(error_N, 10.0 ** (-PSNR_CAP / 10.0)))


def revisit_psnr(video_THWC: np.ndarray, pairs_N2: np.ndarray) -> float:
    """Mean PSNR in dB between the later and the earlier frames of a video's pairs.

    Args:
        video_THWC: uint8 frames.
        pairs_N2: numbers (i, j) of frames.

    Raises:
        VgenError: no pairs, or frames that the video lacks.
    """
    first, later = visits("revisit_psnr", video_THWC, pairs_N2)
    return float(pairwise_psnr(first, later).mean())


def revisit_distance(layers: Layers, video_THWC: np.ndarray, pairs_N2: np.ndarray) -> float:
    """Mean ``perceptual_distance`` between the later and the earlier frames of a video's pairs."""
    return float(perceptual_distance(layers, *visits("revisit distance", video_THWC, pairs_N2)).mean())


def perceptual_distance(layers: Layers, a_NHWC: np.ndarray, b_NHWC: np.ndarray) -> np.ndarray:
    """The module docstring's distance of each pair of uint8 frames, float64 (N,), in [0, 4]."""
    parts = []
    for at in range(0, len(a_NHWC), SLICE):
        pairs = zip(layers(a_NHWC[at : at + SLICE]), layers(b_NHWC[at : at + SLICE]), strict=True)
        parts.append(np.mean([_unit_distance(np.asarray(a), np.asarray(b)) for a, b in pairs], axis=0))
    return np.concatenate(parts)


def _unit_distance(a_NHWC: np.ndarray, b_NHWC: np.ndarray) -> np.ndarray:
    a, b = (x / (np.linalg.norm(x.astype(np.float64), axis=-1, keepdims=True) + _TINY) for x in (a_NHWC, b_NHWC))
    return ((a - b) ** 2).sum(-1).mean((1, 2))


def visits(name: str, video_THWC: np.ndarray, pairs_N2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The earlier and the later frames of a video's pairs.

    Args:
        name: of what needs them, for errors.

    Raises:
        VgenError: no pairs, or frames that the video lacks.
    """
    if not len(pairs_N2):
        raise VgenError(f"{name}: the video comes back to no place; leave it out")
    if pairs_N2.max() >= len(video_THWC) or pairs_N2.min() < 0:
        raise VgenError(f"{name}: a pair names frame {pairs_N2.max()} of a video of {len(video_THWC)} frames")
    return video_THWC[pairs_N2[:, 0]], video_THWC[pairs_N2[:, 1]]
