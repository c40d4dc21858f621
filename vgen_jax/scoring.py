"""Scores of generated videos against real ones: every metric over two folders, on every process.

Videos are dealt out to the processes by number; states of metrics are merged exactly (``metrics.hosts``), so the result
does not depend on the batch, the devices or the processes.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from vgen_jax.clips import Clips
from vgen_jax.log import progress
from vgen_jax.metrics.base import Mean
from vgen_jax.metrics.features import FeatureNet, extractor
from vgen_jax.metrics.frames import psnr, ssim
from vgen_jax.metrics.frechet import Frechet
from vgen_jax.metrics.hosts import gather, merged
from vgen_jax.metrics.scene_cuts import scene_cuts
from vgen_jax.types import VgenError

FRAME_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"psnr": psnr, "ssim": ssim}
SCUTS = "scuts"
PAIRS = ("psnr", "ssim", "lpips_vgg", "lpips_alex")
FD_PLACE = "fd_place_vizdoom"  # in-domain, for when no weights of ImageNet or Kinetics are at hand
DISTANCES = ("fid_inception", "fvd_i3d", FD_PLACE)
METRICS = (*PAIRS, SCUTS, *DISTANCES)
FPS = 8.0  # of scene cuts, which are counted in frames


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """What to measure.

    Attributes:
        metrics: of ``METRICS``.
        paired: whether a generated video is a prediction of the real one of the same name.
        batch_size: videos at a time, over all devices of a process; changes memory and speed only.
    """

    metrics: tuple[str, ...]
    paired: bool
    batch_size: int

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in METRICS:
                raise VgenError(f"config key score.metrics has '{name}': use some of {', '.join(METRICS)}")
            if name in PAIRS and not self.paired:
                raise VgenError(f"score.metrics has {name}, which compares pairs: leave it out or set score.paired")
        if not self.metrics or self.batch_size < 1:
            raise VgenError("score.metrics is empty or score.batch_size below 1: name a metric and use 1 or more")


class Scores(NamedTuple):
    """Results of two folders.

    Attributes:
        results: flat scalars, see ``Mean`` and ``Frechet``.
        rows: what bootstraps draw from. Of a mean: (videos,). Of a distance of clips: its features, under
            ``<name>.real`` and ``<name>.generated``, (videos, width).
    """

    results: dict[str, float]
    rows: dict[str, np.ndarray]


def score(real: Clips, generated: Clips, config: ScoreConfig, nets: dict[str, FeatureNet]) -> Scores:
    """Every metric; a collective.

    Args:
        nets: the networks of the metrics that have one.
    """
    results: dict[str, float] = {}
    rows: dict[str, np.ndarray] = {}
    values = {**_pair_values(real, generated, config, nets), **_cut_values(generated, config)}
    for name, mine in values.items():
        metric = Mean(name)
        results |= metric.compute(merged(metric.merge, metric.update(metric.init(), values=list(mine.values()))))
        rows[name] = _in_order(mine)
    for name in config.metrics:
        if name in DISTANCES:
            found, features = _distance(real, generated, config.batch_size, nets[name])
            results |= found
            rows |= features
    return Scores(results, rows)


def _batches(clips: Clips, size: int, what: str) -> Iterator[list[int]]:
    """Numbers of this process's videos, ``size`` at a time."""
    mine = list(range(jax.process_index(), len(clips), jax.process_count()))
    batches = [mine[start : start + size] for start in range(0, len(mine), size)]
    yield from progress(batches, total=len(batches), desc=what, unit="batch")


def _pair_values(
    real: Clips, generated: Clips, config: ScoreConfig, nets: dict[str, FeatureNet]
) -> dict[str, dict[int, float]]:
    """Of each pair metric: number of the video -> its mean over frames."""
    names = [name for name in config.metrics if name in PAIRS]
    values: dict[str, dict[int, float]] = {name: {} for name in names}
    extract = {name: extractor(nets[name], config.batch_size) for name in names if name in nets}
    for numbers in _batches(real, config.batch_size, "pairs") if names else ():
        truth = real.read(numbers)
        partners = [generated.names.index(real.names[number]) for number in numbers]
        other = generated.read(partners)
        for name in names:
            if name in extract:
                found = extract[name](np.stack([other, truth], axis=2))[..., 0]
            else:
                found = FRAME_METRICS[name](_unit(other), _unit(truth))
            values[name] |= dict(zip(numbers, np.asarray(found, np.float64).mean(1), strict=True))
    return values


def _cut_values(generated: Clips, config: ScoreConfig) -> dict[str, dict[int, float]]:
    if SCUTS not in config.metrics:
        return {}
    batches = _batches(generated, 1, SCUTS)
    return {SCUTS: {number: float(scene_cuts(generated.read([number])[0], FPS)) for (number,) in batches}}


def _distance(
    real: Clips, generated: Clips, batch_size: int, net: FeatureNet
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    metric = Frechet(net.name, net.width)
    state = metric.init()
    extract = extractor(net, batch_size)
    rows = {}
    for role, clips in (("real", real), ("generated", generated)):
        mine: dict[int, np.ndarray] = {}
        for numbers in _batches(clips, batch_size, f"{net.name} {role}"):
            videos = clips.read(numbers)
            features = extract(videos[:, None] if net.rows == "clip" else videos)
            state = metric.update(state, **{role: features})
            if net.rows == "clip":
                mine |= dict(zip(numbers, features[:, 0], strict=True))
        if net.rows == "clip":
            rows[f"{net.name}.{role}"] = _in_order(mine)
    return metric.compute(merged(metric.merge, state)), rows


def _in_order(mine: dict) -> np.ndarray:
    """All processes' values by number."""
    tree = {"numbers": np.asarray(list(mine), np.int64), "values": np.asarray(list(mine.values()))}
    parts = [part for part in gather(tree) if len(part["numbers"])]
    order = np.argsort(np.concatenate([part["numbers"] for part in parts]))
    return np.concatenate([part["values"] for part in parts])[order]


def _unit(frames: np.ndarray) -> np.ndarray:
    return frames.astype(np.float32) / 255.0
