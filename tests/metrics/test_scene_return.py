"""SRC, and retrieval, on codes whose cosines are known."""

import numpy as np
import pytest

from vgen_jax.metrics.retrieval import retrieval_hits
from vgen_jax.metrics.scene_return import SceneReturn, scene_return
from vgen_jax.types import VgenError

PAIRS = np.asarray([[0, 2], [1, 3]])


def pixels(frames: np.ndarray) -> np.ndarray:
    return frames.reshape(len(frames), -1).astype(float)


METRIC = SceneReturn("pixels", pixels)


def video(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, (4, 2, 2, 3), np.uint8)


def test_it_is_the_mean_cosine_of_the_pairs() -> None:
    code = np.asarray([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [0.0, -5.0]])
    assert scene_return(code, PAIRS) == pytest.approx(100 * (np.sqrt(0.5) - 1) / 2)
    assert scene_return(code, np.asarray([[0, 0]])) == pytest.approx(100.0)


def test_every_video_counts_once_however_many_pairs_it_has() -> None:
    videos, pairs = np.stack([video(0), video(1)]), [PAIRS, PAIRS[:1]]
    state = METRIC.update(METRIC.init(), video_BTHWC=videos, pairs_BN2=pairs)
    each = [scene_return(pixels(v), p) for v, p in zip(videos, pairs, strict=True)]
    results = METRIC.compute(state)
    assert results["src_pixels"] == pytest.approx(np.mean(each)) and results["src_pixels_count"] == 2
    assert results["src_pixels_ci95"] > 0


def test_batches_and_workers_change_nothing() -> None:
    videos = np.stack([video(seed) for seed in range(5)])
    whole = METRIC.update(METRIC.init(), video_BTHWC=videos, pairs_BN2=[PAIRS] * 5)
    a = METRIC.update(METRIC.init(), video_BTHWC=videos[:2], pairs_BN2=[PAIRS] * 2)
    b = METRIC.update(METRIC.init(), video_BTHWC=videos[2:], pairs_BN2=[PAIRS] * 3)
    assert METRIC.compute(METRIC.merge(a, b)) == METRIC.compute(whole)


def test_padding_does_not_count() -> None:
    videos = np.stack([video(0), video(1)])
    mask = np.asarray([True, False])
    state = METRIC.update(METRIC.init(), video_BTHWC=videos, pairs_BN2=[PAIRS, PAIRS[:0]], mask=mask)
    assert METRIC.compute(state)["src_pixels"] == pytest.approx(scene_return(pixels(videos[0]), PAIRS))


def test_no_pairs_and_frames_that_are_not_there_are_refused() -> None:
    with pytest.raises(VgenError, match="comes back to no place"):
        scene_return(np.ones((4, 2)), PAIRS[:0])
    with pytest.raises(VgenError, match="names frame 4 of a video of 4"):
        scene_return(np.ones((4, 2)), np.asarray([[0, 4]]))


def test_retrieval_wants_the_own_place_first() -> None:
    gallery = np.eye(3)
    query = np.asarray([[5.0, 1, 0], [2, 1, 0], [0, 0, 0.1]])
    np.testing.assert_array_equal(retrieval_hits(query, gallery), [True, False, True])
    with pytest.raises(VgenError, match="two or more codes"):
        retrieval_hits(query[:1], gallery[:1])
