"""The Fréchet distance of two sets of features, taken as Gaussian (Heusel et al. 2017; Unterthiner et al. 2018).

    d² = |μ₁ - μ₂|² + tr C₁ + tr C₂ - 2 tr (C₁ C₂)^½

The covariances are the unbiased ones (divided by N - 1), as in FID's and FVD's reference code. All is float64.

The root's trace is taken as the sum of the singular values of A₁ᵀA₂, with Cᵢ = Aᵢ Aᵢᵀ by eigenvectors. A root of the
product itself turns a rounding error ε of a vanishing eigenvalue into √ε; with fewer samples than dimensions there are
hundreds of those, and the distance of a set to itself would not be zero. Eigenvalues below D·ε·λmax are such errors and
are left out, which makes the product as small as the sets' ranks.
"""

from typing import Any

import flax.struct
import numpy as np
from absl import logging

from vgen_jax.types import VgenError


@flax.struct.dataclass
class Moments:
    """Number of samples, their mean, and the sum of outer products of their deviations from it.

    Attributes:
        count: () int64.
        mean_D: float64.
        scatter_DD: float64.
    """

    count: np.ndarray
    mean_D: np.ndarray
    scatter_DD: np.ndarray


@flax.struct.dataclass
class FrechetState:
    """Moments of the two sets, which may have different sizes and arrive in any order."""

    real: Moments
    generated: Moments


@flax.struct.dataclass
class Frechet:
    """Fréchet distance as a metric: ``update(state, real=features)``, ``update(state, generated=features)``.

    Attributes:
        name: the key of the result, with the backbone in it: ``fid_inception``, ``fvd_i3d``, ``fd_place_vizdoom``.
        width: D, dimensions of a feature.
    """

    name: str = flax.struct.field(pytree_node=False)
    width: int = flax.struct.field(pytree_node=False)

    def init(self) -> FrechetState:
        empty = Moments(np.zeros((), np.int64), np.zeros(self.width), np.zeros((self.width, self.width)))
        return FrechetState(empty, empty)

    def update(
        self, state: FrechetState, *, mask: np.ndarray | None = None, real: Any = None, generated: Any = None
    ) -> FrechetState:
        """Add features (…, D) of either set, or of both with one ``mask`` of their leading shape.

        Raises:
            VgenError: features of another width, a mask of another shape, or features that are not finite.
        """
        added = [self._moments(features, mask) for features in (real, generated)]
        return self.merge(state, FrechetState(*added))

    def merge(self, a: FrechetState, b: FrechetState) -> FrechetState:
        return FrechetState(_together(a.real, b.real), _together(a.generated, b.generated))

    def compute(self, state: FrechetState) -> dict[str, float]:
        """``{name: distance, name_count_real, name_count_generated}``.

        Warns where a set has no more samples than dimensions: its covariance is singular then, and the distance grows
        with every sample that is missing.

        Raises:
            VgenError: a set of fewer than two samples.
        """
        sets = {"real": state.real, "generated": state.generated}
        for which, moments in sets.items():
            if moments.count < 2:
                raise VgenError(f"{self.name}: {int(moments.count)} {which} samples; give 2 or more")
        fewest = int(min(state.real.count, state.generated.count))
        if fewest <= self.width:
            logging.warning(
                "%s: %d samples for %d dimensions, so a covariance is singular and the distance too large: compare it "
                "only with results of the same number of samples", self.name, fewest, self.width,
            )  # fmt: skip
        counts = {f"{self.name}_count_{which}": float(moments.count) for which, moments in sets.items()}
        return {self.name: self.distance(state), **counts}

    def distance(self, state: FrechetState) -> float:
        """The bare number, for bootstraps."""
        return frechet_distance(*_gaussian(state.real), *_gaussian(state.generated))

    def _moments(self, features: Any, mask: np.ndarray | None) -> Moments:
        rows = np.zeros((0, self.width)) if features is None else np.asarray(features, np.float64)
        if rows.shape[-1:] != (self.width,):
            raise VgenError(f"{self.name}: features of shape {rows.shape}; their last axis must be {self.width}")
        if mask is not None and features is not None:
            if np.shape(mask) != rows.shape[:-1]:
                raise VgenError(f"{self.name}: a mask of shape {np.shape(mask)} for features of shape {rows.shape}")
            rows = rows[np.asarray(mask, bool)]
        rows = rows.reshape(-1, self.width)
        if not np.isfinite(rows).all():
            raise VgenError(f"{self.name}: features are not finite; look for NaN in the frames or in the weights")
        return moments_of(rows)


def moments_of(rows_ND: np.ndarray) -> Moments:
    """Moments of float64 features; those of none are zero."""
    mean = rows_ND.mean(0) if len(rows_ND) else np.zeros(rows_ND.shape[1])
    deviations = rows_ND - mean
    return Moments(np.asarray(len(rows_ND), np.int64), mean, deviations.T @ deviations)


def _together(a: Moments, b: Moments) -> Moments:
    """Moments of both sets' samples (Chan et al. 1979); nothing cancels, whatever the means."""
    if not (a.count and b.count):
        return a if a.count else b
    count = a.count + b.count
    step = b.mean_D - a.mean_D
    scatter = a.scatter_DD + b.scatter_DD + np.outer(step, step) * (a.count * b.count / count)
    return Moments(np.asarray(count), a.mean_D + step * (b.count / count), scatter)


def _gaussian(moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    return moments.mean_D, moments.scatter_DD / (moments.count - 1)


def frechet_distance(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """d² of two Gaussians; at least 0. Means (D,), covariances (D, D), float64."""
    root = np.linalg.svd(_factor(cov_a).T @ _factor(cov_b), compute_uv=False).sum()
    distance = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2.0 * root
    return max(0.0, float(distance))


def _factor(cov_DD: np.ndarray) -> np.ndarray:
    """A (D, R) with A Aᵀ the covariance and R its numerical rank, at least 1."""
    values, vectors = np.linalg.eigh(cov_DD)
    kept = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
    kept[-1] = True
    return vectors[:, kept] * np.sqrt(np.maximum(values[kept], 0.0))
