"""Scores of generated videos against real ones: every metric over two folders, on every process.

Videos are dealt out to the processes by number; states of metrics are merged exactly (``metrics.hosts``), so the result
does not depend on the batch, the devices or the processes.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np

from vgen_jax.evaluation.clips import Clips
from vgen_jax.files.log import progress
from vgen_jax.metrics.action_error import ActionErrorRatio, ActionKind, action_scores, ratio_interval
from vgen_jax.metrics.base import Mean
from vgen_jax.metrics.features import FeatureNet, extractor
from vgen_jax.metrics.frames import psnr, ssim
from vgen_jax.metrics.frechet import Frechet
from vgen_jax.metrics.hosts import gather, merged
from vgen_jax.metrics.scene_cuts import scene_cuts
from vgen_jax.metrics.scene_return import scene_return
from vgen_jax.metrics.sharpness import sharpness
from vgen_jax.types import VgenError

FRAME_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"psnr": psnr, "ssim": ssim}
SCUTS, SHARPNESS = "scuts", "sharpness"
PAIRS = ("psnr", "ssim", "lpips_vgg", "lpips_alex", SHARPNESS)
FD_PLACE = "fd_place_vizdoom"  # in-domain, for when no weights of ImageNet or Kinetics are at hand
RETURNS = ("src_resnet18", "src_place_vizdoom")
# Named after the data that the action predictor knows: action_error_ratio_vizdoom, fd_action_procgen. The last three
# stand for FVD, FID and LPIPS where no weights of ImageNet or Kinetics are at hand.
RATIO, FD_ACTION, FD_FRAMES, LPIPS_ACTION = "action_error_ratio_", "fd_action_", "fd_frames_", "lpips_action_"
OF_ACTIONS = (RATIO, FD_ACTION, FD_FRAMES, LPIPS_ACTION)
NAMED = (*PAIRS, SCUTS, *RETURNS, "fid_inception", "fvd_i3d", FD_PLACE)
METRICS = (*NAMED, *(f"{prefix}<data>" for prefix in OF_ACTIONS))
FPS = 8.0  # of scene cuts, which are counted in frames


def is_distance(name: str) -> bool:
    """Whether a metric is a Fréchet distance of two sets."""
    return name in ("fid_inception", "fvd_i3d", FD_PLACE) or name.startswith((FD_ACTION, FD_FRAMES))


def is_known(name: str) -> bool:
    """Whether there is such a metric; data may have any name."""
    return name in NAMED or (name.startswith(OF_ACTIONS) and name not in OF_ACTIONS)


def is_of_pairs(name: str) -> bool:
    """Whether a metric is a mean over pairs of frames, a generated one and the real one."""
    return name in PAIRS or name.startswith(LPIPS_ACTION)


def needs_pairs(name: str) -> bool:
    """Whether a metric is of a generated video and the real one of the same name."""
    return is_of_pairs(name) or name in RETURNS or name.startswith(RATIO)


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """What to measure.

    Attributes:
        metrics: of ``METRICS``, with the name of the action predictor's data for ``<data>``.
        paired: whether a generated video is a prediction of the real one of the same name.
        batch_size: videos at a time, over all devices of a process; changes memory and speed only.
    """

    metrics: tuple[str, ...]
    paired: bool
    batch_size: int

    def __post_init__(self) -> None:
        for name in self.metrics:
            if not is_known(name):
                raise VgenError(f"config key score.metrics has '{name}': use some of {', '.join(METRICS)}")
            if needs_pairs(name) and not self.paired:
                raise VgenError(f"score.metrics has {name}, which compares pairs: leave it out or set score.paired")
        if not self.metrics or self.batch_size < 1:
            raise VgenError("score.metrics is empty or score.batch_size below 1: name a metric and use 1 or more")


class Scores(NamedTuple):
    """Results of two folders.

    Attributes:
        results: flat scalars, see ``Mean``, ``Frechet`` and ``ActionErrorRatio``.
        rows: what bootstraps draw from. Of a mean: (videos,). Of a distance of clips: its features, under
            ``<name>.real`` and ``<name>.generated``, (videos, width). Of a ratio: ``<name>.over`` and ``<name>.under``,
            (videos,).
    """

    results: dict[str, float]
    rows: dict[str, np.ndarray]


class ActionTest(NamedTuple):
    """How actions are read off clips.

    Attributes:
        kind: of the actions.
        wanted: a clip's stored actions as the network writes them, (T, A).
    """

    kind: ActionKind
    wanted: Callable[[np.ndarray], np.ndarray]


def score(
    real: Clips,
    generated: Clips,
    config: ScoreConfig,
    nets: Mapping[str, FeatureNet],
    actions: ActionTest | None = None,
) -> Scores:
    """Every metric; a collective.

    Args:
        nets: the networks of the metrics that have one.
        actions: for the action error ratio, whose network gives all steps of ``Clips.steps`` at once, flat.

    Raises:
        VgenError: a video that lacks what a metric needs.
    """
    results: dict[str, float] = {}
    rows: dict[str, np.ndarray] = {}
    values = {
        **_pair_values(real, generated, config, nets),
        **_cut_values(generated, config),
        **_return_values(real, generated, config, nets),
    }
    for name, mine in values.items():
        metric = Mean(name)
        results |= metric.compute(merged(metric.merge, metric.update(metric.init(), values=list(mine.values()))))
        rows[name] = _in_order(mine)
    for name in config.metrics:
        found: tuple[dict[str, float], dict[str, np.ndarray]] = {}, {}
        if is_distance(name):
            found = _distance(real, generated, config.batch_size, nets[name])
        elif name.startswith(RATIO):
            if actions is None:
                raise VgenError(f"{name} needs an action predictor: give one, or leave it out")
            found = _action_ratio(real, generated, config.batch_size, nets[name], actions)
        results |= found[0]
        rows |= found[1]
    return Scores(results, rows)


def _batches(clips: Clips, size: int, what: str) -> Iterator[list[int]]:
    """Numbers of this process's videos, ``size`` at a time."""
    mine = list(range(jax.process_index(), len(clips), jax.process_count()))
    batches = [mine[start : start + size] for start in range(0, len(mine), size)]
    yield from progress(batches, total=len(batches), desc=what, unit="batch")


def _pair_values(
    real: Clips, generated: Clips, config: ScoreConfig, nets: Mapping[str, FeatureNet]
) -> dict[str, dict[int, float]]:
    """Of each pair metric: number of the video -> its mean over frames."""
    names = [name for name in config.metrics if is_of_pairs(name)]
    values: dict[str, dict[int, float]] = {name: {} for name in names}
    extract = {name: extractor(nets[name], config.batch_size) for name in names if name in nets}
    for numbers in _batches(real, config.batch_size, "pairs") if names else ():
        truth = real.read(numbers)
        other = generated.read(_partners(real, generated, numbers))
        for name in names:
            if name == SHARPNESS:
                found = np.array([[sharpness(a, b)] for a, b in zip(other, truth, strict=True)])
            elif name in extract:
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


def _partners(real: Clips, generated: Clips, numbers: list[int]) -> list[int]:
    """The numbers of the generated videos that have the names of these real ones."""
    return [generated.names.index(real.names[number]) for number in numbers]


def _return_values(
    real: Clips, generated: Clips, config: ScoreConfig, nets: Mapping[str, FeatureNet]
) -> dict[str, dict[int, float]]:
    """SRC of every generated video that comes back to a place, and under ``<name>_real`` that of the real one."""
    values: dict[str, dict[int, float]] = {}
    for name in (name for name in config.metrics if name in RETURNS):
        extract = extractor(nets[name], 1)
        for role, key in (("generated", name), ("real", f"{name}_real")):
            values[key] = {}
            for (number,) in _batches(real, 1, f"{name} {role}"):
                if len(pairs := real.visits(number)):
                    (at,) = [number] if role == "real" else _partners(real, generated, [number])
                    video = (real if role == "real" else generated).read([at])
                    values[key][number] = scene_return(extract(video)[0], pairs)
        if not sum(len(part) for part in gather(np.asarray(list(values[name]), np.int64))):
            raise VgenError(
                f"{name}: no video in {real.folder} says where it comes back: store pairs of frames as 'visits' "
                "(.npz), or leave it out"
            )
    return values


def _action_ratio(
    real: Clips, generated: Clips, batch_size: int, net: FeatureNet, test: ActionTest
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    metric = ActionErrorRatio(net.name, test.kind)
    state, extract = metric.init(), extractor(net, batch_size)
    mine: dict[str, dict[int, float]] = {"real": {}, "generated": {}}
    for numbers in _batches(real, batch_size, net.name):
        wanted = np.stack([test.wanted(actions) for actions in real.actions(numbers)])
        for role, clips, at in (("real", real, numbers), ("generated", generated, _partners(real, generated, numbers))):
            found = extract(clips.steps(at)[:, None])[:, 0].reshape(wanted.shape)
            scores = action_scores(test.kind, found, wanted)
            state = metric.update(state, **{role: scores})
            mine[role] |= dict(zip(numbers, scores, strict=True))
    over, under = ("real", "generated") if test.kind == "discrete" else ("generated", "real")
    over_N, under_N = _in_order(mine[over]), _in_order(mine[under])
    rows = {f"{net.name}.over": over_N, f"{net.name}.under": under_N}
    results = metric.compute(merged(metric.merge, state))
    low, high = ratio_interval(over_N, under_N)
    return {**results, f"{net.name}_low": low, f"{net.name}_high": high}, rows


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
