"""Sharpness relative to real frames, so that blur cannot win.

A model that shows the mean of all places is alike wherever it stands: it scores high on every measure of likeness
between visits. The energy of its gradients gives it away. 1 is as sharp as real, 0 is flat; noise is above 1. The mean
absolute Laplacian counts an edge by its height and not by its square, so that a few strong edges do not decide.
"""

import numpy as np

from vgen_jax.types import VgenError

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def gradient_energy(video_THWC: np.ndarray) -> np.ndarray:
    """Mean squared difference between neighbouring pixels' brightness (in [0, 1]) of each frame, float64 (T,).

    Args:
        video_THWC: uint8 frames.

    Raises:
        VgenError: frames of another type.
    """
    luma_THW = _luma(video_THWC)
    return (np.diff(luma_THW, axis=1) ** 2).mean((1, 2)) + (np.diff(luma_THW, axis=2) ** 2).mean((1, 2))


def absolute_laplacian(video_THWC: np.ndarray) -> np.ndarray:
    """Mean absolute difference of a pixel's brightness (in [0, 1]) from its four neighbours', times 4, float64 (T,).

    Args:
        video_THWC: uint8 frames.

    Raises:
        VgenError: frames of another type.
    """
    luma_THW = _luma(video_THWC)
    inner = luma_THW[:, 1:-1, 1:-1]
    around = luma_THW[:, :-2, 1:-1] + luma_THW[:, 2:, 1:-1] + luma_THW[:, 1:-1, :-2] + luma_THW[:, 1:-1, 2:]
    return np.abs(around - 4.0 * inner).mean((1, 2))


def _luma(video_THWC: np.ndarray) -> np.ndarray:
    if video_THWC.dtype != np.uint8 or video_THWC.ndim != 4 or video_THWC.shape[-1] != 3:
        got = f"{video_THWC.dtype} of shape {video_THWC.shape}"
        raise VgenError(f"sharpness: needs uint8 frames (T, H, W, 3), got {got}")
    return video_THWC @ LUMA / 255.0


def sharpness(generated_THWC: np.ndarray, real_THWC: np.ndarray) -> float:
    """Gradient energy of a generated video over that of real frames of the same episode, each a mean over its frames.

    Raises:
        VgenError: the real frames have no gradients at all.
    """
    real = gradient_energy(real_THWC).mean()
    if real == 0:
        raise VgenError("sharpness: the real frames are flat; leave this episode out")
    return float(gradient_energy(generated_THWC).mean() / real)
