"""The Fréchet distance: closed forms, other implementations, and any cut of the data into batches and workers."""

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from vgen_jax.metrics.frechet import Frechet, FrechetState, frechet_distance
from vgen_jax.types import VgenError

WIDTH = 12
METRIC = Frechet("fvd_i3d", WIDTH)


def features(seed: int, count: int = 300, width: int = WIDTH) -> np.ndarray:
    """Correlated, far from zero, and of scales over three decades, as features of networks are."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width)) * 10.0 ** np.linspace(-2, 1, width)
    return (5.0 + 0.3 * seed + rng.normal(size=(count, width)) @ mixing).astype(np.float32)


def distance(real: np.ndarray, generated: np.ndarray) -> float:
    metric = Frechet("fd", real.shape[1])
    return metric.compute(metric.update(metric.init(), real=real, generated=generated))["fd"]


class Itself(torch.nn.Module):
    """Takes features for images."""

    num_features = WIDTH

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, 0, 0]


def test_it_is_that_of_torchmetrics() -> None:
    reference = FrechetInceptionDistance(feature=Itself(), input_img_size=(WIDTH, 1, 1), normalize=True)
    reference.set_dtype(torch.float64)
    a, b = features(1), features(2, 200)
    for rows, real in ((a, True), (b, False)):
        # It resizes and rounds pictures; what it does with their features is what is compared.
        reference.orig_dtype = torch.float64
        sums = torch.tensor(rows, dtype=torch.float64)
        prefix = "real" if real else "fake"
        setattr(reference, f"{prefix}_features_sum", sums.sum(0))
        setattr(reference, f"{prefix}_features_cov_sum", sums.T @ sums)
        setattr(reference, f"{prefix}_features_num_samples", torch.tensor(len(rows)))
    assert distance(a, b) == pytest.approx(float(reference.compute()), rel=1e-6)


def test_known_gaussians_have_the_closed_form() -> None:
    """Diagonal covariances: |μ|² + Σ (σ₁ - σ₂)²; and the root of commuting matrices in any basis."""
    mean, s1, s2 = np.array([1.0, -2.0, 0.5]), np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 4.0])
    want = (mean**2).sum() + ((s1 - s2) ** 2).sum()
    assert frechet_distance(mean, np.diag(s1**2), 0 * mean, np.diag(s2**2)) == pytest.approx(want, rel=1e-12)
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turned = [basis @ np.diag(s**2) @ basis.T for s in (s1, s2)]
    assert frechet_distance(mean, turned[0], 0 * mean, turned[1]) == pytest.approx(want, rel=1e-6)


def test_samples_with_known_moments_have_the_closed_form() -> None:
    """Four corners scaled to the unbiased variance: one set is the other, moved and stretched."""
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * np.sqrt(3 / 4)
    assert distance(corners, 3 * corners + np.array([2.0, 0.0])) == pytest.approx(4 + 2 * 4, rel=1e-12)


@pytest.mark.parametrize("count", [5, 40, 300])
def test_a_set_is_at_no_distance_from_itself(count: int) -> None:
    """The fewest samples leave most eigenvalues zero, where a plain root loses half of the digits."""
    rows = features(1, count, 64) * 100
    assert distance(rows, rows) < 1e-6
    assert distance(rows, rows[::-1]) < 1e-6


def test_it_is_symmetric_and_sees_any_shift() -> None:
    a, b = features(1), features(2)
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-9)
    assert distance(a, a + 1) == pytest.approx(WIDTH, rel=1e-5)
    assert distance(a, 1.5 * a) > distance(a, 1.1 * a) > 0


@pytest.mark.parametrize("size", [1, 7, 32])
def test_batches_padding_and_workers_do_not_change_it(size: int) -> None:
    a, b = features(1, 128), features(2, 128)
    want = METRIC.compute(METRIC.update(METRIC.init(), real=a, generated=b))
    states: list[FrechetState] = [METRIC.init() for _ in range(3)]
    for number, start in enumerate(range(0, 128, size)):
        batches = [rows[start : start + size] for rows in (a, b)]
        missing = size - len(batches[0])
        padded = [np.concatenate([rows, np.full((missing, WIDTH), np.nan, np.float32)]) for rows in batches]
        mask = np.arange(size) < len(batches[0])
        states[number % 3] = METRIC.update(states[number % 3], mask=mask, real=padded[0], generated=padded[1])
    found = METRIC.compute(METRIC.merge(states[2], METRIC.merge(states[0], states[1])))
    assert found["fvd_i3d"] == pytest.approx(want["fvd_i3d"], rel=1e-9)
    assert found["fvd_i3d_count_real"] == found["fvd_i3d_count_generated"] == 128


def test_too_few_samples_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(VgenError, match="fvd_i3d: 1 generated samples; give 2 or more"):
        METRIC.compute(METRIC.update(METRIC.init(), real=features(1), generated=features(2, 1)))
    METRIC.compute(METRIC.update(METRIC.init(), real=features(1), generated=features(2, WIDTH + 1)))
    assert not caplog.records
    METRIC.compute(METRIC.update(METRIC.init(), real=features(1), generated=features(2, WIDTH)))
    assert "12 samples for 12 dimensions" in caplog.text


def test_unfit_features_are_refused() -> None:
    with pytest.raises(VgenError, match="last axis must be 12"):
        METRIC.update(METRIC.init(), real=np.zeros((4, 13)))
    with pytest.raises(VgenError, match="not finite"):
        METRIC.update(METRIC.init(), real=np.full((4, WIDTH), np.nan))
    with pytest.raises(VgenError, match=r"a mask of shape \(3,\)"):
        METRIC.update(METRIC.init(), real=np.zeros((4, WIDTH)), mask=np.ones(3))
