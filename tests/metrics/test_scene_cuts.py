"""Cuts are counted where a video has them, at any size."""

import numpy as np
import pytest

from vgen_jax.metrics.scene_cuts import scene_cuts
from vgen_jax.types import VgenError

SCENE = 20  # frames; the detector asks for at least 15 between two cuts


def with_cuts(cuts: int, size: int) -> np.ndarray:
    """Scenes of flickering noise around a colour of their own; none is red, around which hue wraps."""
    rng = np.random.default_rng(0)
    colours = np.array([[40, 200, 100], [40, 40, 200], [200, 200, 40], [150, 40, 200]])[: cuts + 1]
    frames = [c + rng.integers(-3, 4, (size, size, 3)) for c in colours for _ in range(SCENE)]
    return np.stack(frames).astype(np.uint8)


@pytest.mark.parametrize(("cuts", "size"), [(0, 32), (1, 48), (3, 32), (3, 288)])
def test_every_cut_counts_once(cuts: int, size: int) -> None:
    """48 leaves a rest when enlarged to 256, 288 is reduced."""
    assert scene_cuts(with_cuts(cuts, size), fps=8.75) == cuts


def test_a_slow_change_is_no_cut() -> None:
    ramp = np.linspace(0, 255, 60)[:, None, None, None]
    assert scene_cuts(np.broadcast_to(ramp, (60, 32, 32, 3)).astype(np.uint8), fps=8.0) == 0


def test_the_factor_does_not_change_the_count() -> None:
    """Whole enlargement keeps the means over pixels on which a cut depends."""
    video = with_cuts(2, 32)
    large = video.repeat(4, axis=1).repeat(4, axis=2)
    assert scene_cuts(video, fps=8.0) == scene_cuts(large, fps=8.0) == 2


def test_other_frames_are_refused() -> None:
    with pytest.raises(VgenError, match="uint8"):
        scene_cuts(np.zeros((3, 8, 8, 3), np.float32), fps=8.0)
