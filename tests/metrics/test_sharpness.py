"""Blur lowers it, noise raises it, a real video has 1."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vgen_jax.metrics.sharpness import absolute_laplacian, gradient_energy, sharpness
from vgen_jax.types import VgenError


def video() -> np.ndarray:
    frames = gaussian_filter(np.random.default_rng(0).random((4, 24, 24, 3)), (0, 1, 1, 0))
    return (255 * (frames - frames.min()) / np.ptp(frames)).astype(np.uint8)


def test_a_video_is_as_sharp_as_itself() -> None:
    assert sharpness(video(), video()) == 1.0


def test_blur_lowers_and_noise_raises_it() -> None:
    noise = np.random.default_rng(1).normal(0, 20, video().shape)
    noisy = np.clip(video() + noise, 0, 255).astype(np.uint8)
    blurred = [gaussian_filter(video(), (0, sigma, sigma, 0)) for sigma in (1, 2)]
    assert 1 > sharpness(blurred[0], video()) > sharpness(blurred[1], video())
    assert sharpness(noisy, video()) > 1


def test_a_known_ramp() -> None:
    """White minus black over one step, in one direction, in half of the columns."""
    stripes = np.zeros((1, 4, 5, 3), np.uint8)
    stripes[:, :, 2:] = 255
    assert gradient_energy(stripes) == pytest.approx([1 / 4])


def test_flat_real_frames_are_refused() -> None:
    with pytest.raises(VgenError, match="flat"):
        sharpness(video(), np.zeros_like(video()))


def test_the_laplacian_of_one_bright_pixel() -> None:
    """Four times its height at the pixel, once at each of its four neighbours; a ramp has none."""
    frames = np.zeros((2, 7, 8, 3), np.uint8)
    frames[0, 3, 4] = 255
    frames[1] = np.arange(8, dtype=np.uint8)[:, None] * 9
    np.testing.assert_allclose(absolute_laplacian(frames), [8 / (5 * 6), 0], atol=1e-12)
    blurred = gaussian_filter(video(), (0, 1, 1, 0))
    assert absolute_laplacian(blurred).mean() < absolute_laplacian(video()).mean()
    with pytest.raises(VgenError, match="uint8"):
        absolute_laplacian(frames.astype(np.float32))
