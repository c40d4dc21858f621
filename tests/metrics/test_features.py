"""Features of clips: the same on any batch and number of devices; what an FVD-like distance of them sees."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vgen_jax.metrics.features import FeatureNet, extractor
from vgen_jax.metrics.frechet import Frechet

CLIPS, FRAMES, SIDE, WIDTH = 128, 6, 12, 16


def apply(params: jax.Array, clips_BTHWC: jax.Array) -> jax.Array:
    """Rectified random filters over space and time, and their mean: what a video network is, at its smallest."""
    x = clips_BTHWC.astype(jnp.float32) / 255 - 0.5
    y = jax.lax.conv_general_dilated(x, params, (1, 1, 1), "VALID", dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))
    return jnp.abs(y).mean((1, 2, 3))


@cache
def net() -> FeatureNet:
    filters = np.random.default_rng(0).normal(size=(3, 3, 3, 3, WIDTH)).astype(np.float32)
    filters -= filters.mean((0, 1, 2))  # or brightness would drown all else
    return FeatureNet("fd_random", "clip", WIDTH, apply, filters, {})


@cache
def videos(seed: int) -> np.ndarray:
    """A smooth scene that the camera pans over, each at its own speed."""
    rng = np.random.default_rng(seed)
    scenes = gaussian_filter(rng.normal(size=(CLIPS, SIDE, 4 * SIDE, 3)), (0, 2, 2, 0))
    scenes = np.clip(128 + 100 * scenes / scenes.std(), 0, 255).astype(np.uint8)
    starts = rng.integers(0, 8, CLIPS)[:, None] + rng.integers(1, 4, CLIPS)[:, None] * np.arange(FRAMES)
    return np.stack([[scene[:, s : s + SIDE] for s in row] for scene, row in zip(scenes, starts, strict=True)])


@cache
def extract():
    return extractor(net(), 32)


def distance(real: np.ndarray, generated: np.ndarray) -> float:
    metric = Frechet("fd", WIDTH)
    sets = {"real": extract()(real[:, None]), "generated": extract()(generated[:, None])}
    return metric.compute(metric.update(metric.init(), **sets))["fd"]


def test_batches_and_devices_do_not_change_the_distance() -> None:
    metric = Frechet("fd", WIDTH)
    found = []
    everyone = jax.local_devices()
    assert len(everyone) == 8
    for devices in (everyone, everyone[:1]):
        for size in (1, 7, 32):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(jax, "local_devices", lambda devices=devices: devices)
                features = extractor(net(), size)
            sets = {"real": features(videos(0)[:, None]), "generated": features(videos(1)[:, None])}
            state = metric.update(metric.init(), **sets)
            found.append(metric.compute(state)["fd"])
    np.testing.assert_allclose(found, found[0], rtol=1e-6)


def test_what_spoils_a_video_moves_the_distance() -> None:
    real, other = videos(0), videos(1)
    rng = np.random.default_rng(0)
    noisy = lambda scale: np.clip(other + rng.normal(0, scale, other.shape), 0, 255).astype(np.uint8)  # noqa: E731
    blurred = lambda sigma: gaussian_filter(other, (0, 0, sigma, sigma, 0))  # noqa: E731
    base = distance(real, other)
    frozen = np.repeat(other[:, :1], FRAMES, axis=1)
    shuffled = other[:, [3, 0, 5, 1, 4, 2]]
    assert distance(real, real) < 1e-6 < base
    assert base < distance(real, blurred(1.0)) < distance(real, blurred(3.0))
    assert base < distance(real, noisy(25)) < distance(real, noisy(75))
    assert base < distance(real, frozen)
    assert base < distance(real, shuffled)


def test_no_rows_have_no_features() -> None:
    assert extract()(videos(0)[:0, None]).shape == (0, 1, WIDTH)
