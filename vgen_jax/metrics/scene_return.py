"""Scene Revisit Consistency (SlowFast-VGen §4.1): how alike a place looks when the camera comes back to it.

SRC = 100 · cosine(features(frame i), features(frame j)) over the pairs (i, j) of first and later visits. The paper has
features of a ResNet-18; here they come from a function, and the result is named after its backbone. A blank video
has an SRC of 100, so it is read beside a measure of sharpness, or of likeness to the truth.
"""

from collections.abc import Callable, Sequence

import flax.struct
import numpy as np

from vgen_jax.metrics.base import Mean, MeanState
from vgen_jax.types import VgenError

# uint8 frames (N, H, W, 3) -> (N, D); vectors need not have unit length
Features = Callable[[np.ndarray], np.ndarray]


def scene_return(features_TD: np.ndarray, pairs_N2: np.ndarray) -> float:
    """SRC of one video: the mean over its pairs, in [-100, 100].

    Args:
        features_TD: of each frame.
        pairs_N2: (i, j), frame j shows the view of frame i again (``data.revisits``).

    Raises:
        VgenError: no pairs, or frames that the video lacks.
    """
    if not len(pairs_N2):
        raise VgenError("src: the video comes back to no place; leave it out")
    if pairs_N2.min() < 0 or pairs_N2.max() >= len(features_TD):
        raise VgenError(f"src: a pair names frame {pairs_N2.max()} of a video of {len(features_TD)} frames")
    unit_TD = np.asarray(features_TD, np.float64)
    unit_TD = unit_TD / np.linalg.norm(unit_TD, axis=-1, keepdims=True)
    first, later = unit_TD[pairs_N2[:, 0]], unit_TD[pairs_N2[:, 1]]
    return float(100.0 * (first * later).sum(-1).mean())


@flax.struct.dataclass
class SceneReturn:
    """SRC over a data set: the mean over videos, each of which counts once, with its interval.

    Attributes:
        backbone: names the result, ``src_<backbone>``.
        features: see ``Features``.
    """

    backbone: str = flax.struct.field(pytree_node=False)
    features: Features = flax.struct.field(pytree_node=False)

    @property
    def mean(self) -> Mean:
        return Mean(f"src_{self.backbone}")

    def init(self) -> MeanState:
        return self.mean.init()

    def update(
        self,
        state: MeanState,
        *,
        mask: np.ndarray | None = None,
        video_BTHWC: np.ndarray,
        pairs_BN2: Sequence[np.ndarray],
    ) -> MeanState:
        """Adds videos (uint8), each with its own pairs (N, 2).

        Raises:
            VgenError: a video without pairs, or pairs that it lacks the frames of.
        """
        keep = np.ones(len(video_BTHWC), bool) if mask is None else np.asarray(mask, bool)
        rows = zip(video_BTHWC[keep], [pairs for pairs, kept in zip(pairs_BN2, keep, strict=True) if kept], strict=True)
        return self.mean.update(state, values=[scene_return(self.features(video), pairs) for video, pairs in rows])

    def merge(self, a: MeanState, b: MeanState) -> MeanState:
        return self.mean.merge(a, b)

    def compute(self, state: MeanState) -> dict[str, float]:
        """``src_<backbone>``, its ``_ci95`` and ``_count``."""
        return self.mean.compute(state)
