"""Frame-by-frame likeness of two videos, by dm_pix: PSNR and SSIM. Values are in [0, 1], the dynamic range is 1.

SSIM (Wang et al. 2004): 11x11 Gaussian window with sigma 1.5, k1 0.01, k2 0.03, population covariances, each colour
channel on its own, averaged over channels and over the pixels whose window lies wholly inside the frame. That is
scikit-image's ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1``, which likewise leaves a
border of 5 pixels out.

Both are computed in float64 on the CPU, whatever the accelerator: SSIM subtracts E[x]^2 from E[x^2], which in float32
costs up to 2e-5 on smooth frames, and a result must not depend on the hardware. A data set's result:
``Mean("psnr").update(state, values=psnr(prediction, target), mask=frames_that_count)``.
"""

from collections.abc import Callable
from typing import Any

import dm_pix
import jax
import numpy as np

from vgen_jax.types import Array, VgenError

PSNR_CAP = 100.0
SSIM_WINDOW = 11

_PSNR = jax.jit(dm_pix.psnr)
_SSIM = jax.jit(dm_pix.ssim)


def psnr(prediction_BTHWC: Any, target_BTHWC: Any) -> np.ndarray:
    """Peak signal-to-noise ratio of each frame in dB, float64 (B, T): -10·log10(mean squared error).

    Identical frames, and all whose error is below 1e-10, count as 100 dB, so that a mean stays finite.

    Args:
        prediction_BTHWC: float in [0, 1].
        target_BTHWC: likewise, of the same shape.

    Raises:
        VgenError: integer frames, or shapes that differ.
    """
    return np.minimum(_per_frame("psnr", _PSNR, prediction_BTHWC, target_BTHWC), PSNR_CAP)


def ssim(prediction_BTHWC: Any, target_BTHWC: Any) -> np.ndarray:
    """Structural similarity of each frame, float64 (B, T), in [-1, 1]; 1 for identical frames.

    Args:
        prediction_BTHWC: float in [0, 1]; H and W at least 11.
        target_BTHWC: likewise, of the same shape.

    Raises:
        VgenError: integer frames, shapes that differ, or frames smaller than the window.
    """
    height, width = np.shape(prediction_BTHWC)[-3:-1]
    if min(height, width) < SSIM_WINDOW:
        raise VgenError(f"ssim: frames of {height}x{width} are smaller than its 11x11 window; use psnr for them")
    return _per_frame("ssim", _SSIM, prediction_BTHWC, target_BTHWC)


def _per_frame(name: str, function: Callable[[Array, Array], Array], prediction: Any, target: Any) -> np.ndarray:
    """Clip by clip, so that memory is bounded by a clip."""
    prediction, target = (np.asarray(jax.device_get(video)) for video in (prediction, target))
    if prediction.shape != target.shape or prediction.ndim != 5:
        raise VgenError(f"{name}: needs two videos (B, T, H, W, C), got shapes {prediction.shape} and {target.shape}")
    if not all(jax.numpy.issubdtype(video.dtype, np.floating) for video in (prediction, target)):
        raise VgenError(f"{name}: needs floats in [0, 1], got {prediction.dtype}, {target.dtype}; divide bytes by 255")
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise VgenError(f"{name}: computed on the CPU, which JAX_PLATFORMS excludes; add ',cpu' to it") from error
    with jax.enable_x64(True), jax.default_device(cpu):
        clips = zip(prediction.astype(np.float64), target.astype(np.float64), strict=True)
        return np.stack([np.asarray(function(*clip)) for clip in clips])
