"""PSNR and SSIM against scikit-image, an implementation of its own."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vgen_jax.metrics.frames import psnr, ssim
from vgen_jax.types import VgenError


def videos(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """A pair of float32 (2, 3, 24, 32, 3) videos. Smooth and flat frames are where float32 arithmetic would show."""
    rng = np.random.default_rng(0)
    video = rng.random((2, 3, 24, 32, 3))
    if kind == "smooth":
        video = gaussian_filter(video, (0, 0, 3, 3, 0))
    if kind == "flat":
        video = 0.5 + 0.001 * video
    other = np.clip(video + 0.02 * rng.standard_normal(video.shape), 0, 1)
    return video.astype(np.float32), other.astype(np.float32)


def reference_ssim(a: np.ndarray, b: np.ndarray) -> float:
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return structural_similarity(a.astype(np.float64), b.astype(np.float64), channel_axis=-1, **settings)


@pytest.mark.parametrize("kind", ["noise", "smooth", "flat"])
def test_both_agree_with_scikit_image(kind: str) -> None:
    a, b = videos(kind)
    for row in range(2):
        for t in range(3):
            expected = peak_signal_noise_ratio(a[row, t].astype(np.float64), b[row, t].astype(np.float64), data_range=1)
            assert psnr(a, b)[row, t] == pytest.approx(expected, abs=1e-6)
            assert ssim(a, b)[row, t] == pytest.approx(reference_ssim(a[row, t], b[row, t]), abs=1e-6)


def test_identical_frames_give_the_cap_and_one() -> None:
    a, _ = videos("noise")
    np.testing.assert_array_equal(psnr(a, a), np.full((2, 3), 100.0))
    np.testing.assert_allclose(ssim(a, a), np.ones((2, 3)), atol=1e-12)


def test_a_known_error_gives_known_decibels() -> None:
    black = np.zeros((1, 1, 16, 16, 3), np.float32)
    assert psnr(black, black + np.float32(0.1))[0, 0] == pytest.approx(20.0, abs=1e-6)


def test_frames_do_not_influence_each_other() -> None:
    a, b = videos("noise")
    np.testing.assert_array_equal(ssim(a, b)[:1], ssim(a[:1], b[:1]))
    spoilt = b.copy()
    spoilt[0, 0] = 0
    assert (psnr(a, spoilt) != psnr(a, b)).sum() == 1


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_unfit_input_is_refused(metric) -> None:
    a, b = videos("noise")
    with pytest.raises(VgenError, match="divide bytes by 255"):
        metric((a * 255).astype(np.uint8), (b * 255).astype(np.uint8))
    with pytest.raises(VgenError, match="got shapes"):
        metric(a, b[:, :2])
    with pytest.raises(VgenError, match="got shapes"):
        metric(a[0], b[0])


def test_frames_smaller_than_the_window_are_refused() -> None:
    small = np.zeros((1, 1, 8, 16, 3), np.float32)
    with pytest.raises(VgenError, match="8x16 are smaller"):
        ssim(small, small)
