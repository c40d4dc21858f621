"""Likeness between visits: known values, and what must not matter does not."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from vgen_jax.metrics import revisit
from vgen_jax.types import VgenError

PAIRS = np.array([[0, 4], [1, 3]])


def video(frames: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, 8, 8, 3), np.uint8)


def layers(frames_NHWC: np.ndarray) -> list[np.ndarray]:
    """Two layers of fixed random channels."""
    rng = np.random.default_rng(1)
    x = frames_NHWC / 255.0
    return [np.maximum(x @ rng.normal(size=(3, 5)), 0), x[:, ::2, ::2] @ rng.normal(size=(3, 7))]


def test_psnr_agrees_with_scikit_image() -> None:
    ours = revisit.pairwise_psnr(video()[:2], video()[2:4])
    theirs = [peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(video()[:2], video()[2:4], strict=True)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_only_the_pairs_frames_count() -> None:
    changed = video()
    changed[[2, 5]] = 0
    assert revisit.revisit_psnr(video(), PAIRS) == revisit.revisit_psnr(changed, PAIRS)
    assert revisit.revisit_distance(layers, video(), PAIRS) == revisit.revisit_distance(layers, changed, PAIRS)


def test_equal_visits_are_at_the_ends_of_the_scales() -> None:
    same = video()[[0, 1, 2, 1, 0, 5]]
    assert revisit.revisit_psnr(same, PAIRS) == revisit.PSNR_CAP
    assert revisit.revisit_distance(layers, same, PAIRS) == 0.0
    assert revisit.revisit_distance(layers, video(), PAIRS) > 0.1


def test_the_distance_is_that_of_unit_vectors() -> None:
    """Orthogonal activations are at squared distance 2, whatever their lengths; half of the pixels are equal."""

    def ahead(frames_NHWC: np.ndarray) -> list[np.ndarray]:
        first = frames_NHWC[:, 0, 0, 0] > 0
        out = np.zeros((len(frames_NHWC), 1, 2, 2))
        out[:, :, 0, 0] = 3.0
        out[first, :, 1, 0], out[~first, :, 1, 1] = 7.0, 0.2
        return [out]

    bright, dark = np.full((1, 8, 8, 3), 255, np.uint8), np.zeros((1, 8, 8, 3), np.uint8)
    assert revisit.perceptual_distance(ahead, bright, dark) == pytest.approx([1.0])


def test_slices_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = video()[:3], video()[3:]
    whole = revisit.perceptual_distance(layers, a, b)
    monkeypatch.setattr(revisit, "SLICE", 2)
    np.testing.assert_array_equal(revisit.perceptual_distance(layers, a, b), whole)


@pytest.mark.parametrize("pairs", [np.zeros((0, 2), int), np.array([[0, 6]])])
def test_pairs_that_do_not_fit_are_refused(pairs: np.ndarray) -> None:
    with pytest.raises(VgenError, match="revisit_psnr"):
        revisit.revisit_psnr(video(), pairs)
