"""What the revisit benchmark measures of a path's video, and how numbers of paths become results.

A path has one number per metric. Results are means over paths with their 95 % interval, and the mean of the paired
differences to memory ``none`` (``<metric>_gain``), which is the sharper comparison: paths differ more than memories do.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vgen_jax.evaluation.place_encoder import Place
from vgen_jax.evaluation.revisit.paths import Protocol, RecordedPath
from vgen_jax.metrics.base import Mean
from vgen_jax.metrics.revisit import pairwise_psnr, perceptual_distance, revisit_psnr, visits
from vgen_jax.metrics.scene_cuts import scene_cuts
from vgen_jax.metrics.scene_return import scene_return
from vgen_jax.metrics.sharpness import sharpness
from vgen_jax.metrics.walls import columns_right, shares_right
from vgen_jax.simulators.maze_view import wall_shades

# Published networks that may score beside the place encoder, each by its metric's name (``convert.feature_nets``).
NETWORKS = ("src_resnet18", "lpips_vgg", "lpips_alex")
WALLS = ("walls_columns", "walls_frames")  # of mazes, see ``metrics.walls``; needs no network
Extract = Callable[[np.ndarray], np.ndarray]  # see ``metrics.features.extractor``
PLAIN, TRUTH = "none", "truth"  # the memory that others are compared with, and the recording itself


def metric_names(protocol: Protocol, backbone: str, networks: Sequence[str] = ()) -> tuple[str, ...]:
    """The metrics of a protocol; those of *primed* carry its name, since they are of the way back alone.

    Args:
        networks: of ``NETWORKS``, and ``WALLS`` where the paths are of mazes.
    """
    names = f"src_{backbone}", "revisit_psnr", f"lpips_{backbone}", *networks, "scuts", "sharpness"
    if protocol == "generated":
        return names
    return tuple(f"primed_{name}" for name in ("psnr", *names))


def higher_is_better(metric: str) -> bool:
    """Which way a metric of ``metric_names`` goes."""
    return not metric.removeprefix("primed_").startswith(("lpips_", "scuts"))


def score(
    place: Place,
    path: RecordedPath,
    video_THWC: np.ndarray,
    future: int,
    fps: float,
    protocol: Protocol,
    networks: Mapping[str, Extract],
) -> dict:
    """The metrics of one video.

    *generated*: of all pairs, both visits generated. *primed*: of the pairs whose later visit is generated; their
    earlier visit was watched. ``primed_psnr`` and the distance compare every generated frame with the recording, frame
    by frame.

    Args:
        video_THWC: uint8, frame 0 is the path's.
        future: f_g.
        networks: the features of those in ``NETWORKS`` that score as well.

    Returns:
        ``metric_names``, and ``similarity``: cosine x 100 of every frame to frame 0.
    """
    begin = 1 if protocol == "generated" else 1 + path.watched * future
    truth, pairs = path.video_THWC, path.pairs_N2
    if protocol == "primed":
        pairs = pairs[(pairs[:, 1] >= begin) & (pairs[:, 0] < begin)]
    features = np.asarray(place.embed(video_THWC), np.float64)
    values: dict[str, Any] = {
        f"src_{place.name}": scene_return(features, pairs),
        "revisit_psnr": revisit_psnr(video_THWC, pairs),
        "scuts": float(scene_cuts(video_THWC[begin:], fps)),
        "sharpness": sharpness(video_THWC[begin:], truth[begin:]),
    }
    two = visits("revisit", video_THWC, pairs) if protocol == "generated" else (video_THWC[begin:], truth[begin:])
    values[f"lpips_{place.name}"] = float(perceptual_distance(place.layers, *two).mean())
    if path.walls_TW is not None:
        right_TW = columns_right(video_THWC[begin:], path.walls_TW[begin:], wall_shades())
        values |= dict(zip(WALLS, shares_right(right_TW), strict=True))
    for name, extract in networks.items():
        if name.startswith("src_"):
            values[name] = scene_return(extract(video_THWC[None])[0], pairs)
        else:  # rows are pairs of frames
            values[name] = float(extract(np.stack(two, axis=1)[:, None]).mean())
    if protocol == "primed":
        values["psnr"] = float(pairwise_psnr(*two).mean())
        values = {f"primed_{name}": value for name, value in values.items()}
    return {**values, "similarity": np.round(100.0 * features @ features[0], 2).tolist()}


def mean_of(name: str, values: Any) -> dict[str, float]:
    """Mean, 95 % half-width and count of one number per path."""
    metric = Mean(name)
    return metric.compute(metric.update(metric.init(), values=np.asarray(values)))


def compared(metric: str, cells: Mapping[str, list[float]], length: int) -> dict[str, float]:
    """``<metric>/<memory>/<length>`` for every memory, and ``<metric>_gain/…`` against ``none`` where that is there.

    Args:
        cells: memory -> a number per path, the same paths in the same order.
    """
    results: dict[str, float] = {}
    for memory, values in cells.items():
        results |= mean_of(f"{metric}/{memory}/{length}", values)
        if PLAIN in cells and memory not in (PLAIN, TRUTH):
            difference = np.asarray(values) - np.asarray(cells[PLAIN])
            results |= mean_of(f"{metric}_gain/{memory}/{length}", difference)
    return results


def clearly_better(metric: str, results: Mapping[str, float], memory: str, other: str, length: int) -> bool:
    """Whether a memory's interval lies on the better side of the other's, without overlap."""
    a, b = (f"{metric}/{name}/{length}" for name in (memory, other))
    sign = 1.0 if higher_is_better(metric) else -1.0
    return sign * (results[a] - results[b]) > results[f"{a}_ci95"] + results[f"{b}_ci95"]
