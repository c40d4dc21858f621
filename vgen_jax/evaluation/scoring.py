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
from vgen_jax.files.progress import progress
from vgen_jax.metrics.action_error import ActionErrorRatio, ActionKind, action_scores, ratio_interval
from vgen_jax.metrics.base import Mean
from vgen_jax.metrics.features import FeatureNet, extractor
from vgen_jax.metrics.frames import psnr, ssim
from vgen_jax.metrics.frechet import Frechet
from vgen_jax.metrics.hosts import gather, merged
from vgen_jax.metrics.scene_cuts import scene_cuts
from vgen_jax.metrics.scene_return import scene_return
from vgen_jax.metrics.sharpness import absolute_laplacian, gradient_energy, sharpness
from vgen_jax.metrics.walls import ENOUGH, columns_right, shares_right
from vgen_jax.simulators.maze_view import wall_shades
from vgen_jax.types import VgenError

FRAME_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"psnr": psnr, "ssim": ssim}
SCUTS, SHARPNESS = "scuts", "sharpness"
LAST = 4  # frames
# Ratios of a set's mean sharpness to that of the real frames, over all frames or over the last ones of each video. A
# ratio for each video, as ``sharpness`` has, breaks down where a camera stands before a wall of one colour.
SHARPNESS_RATIOS = {
    "gradient_ratio": (gradient_energy, 0), "gradient_ratio_last": (gradient_energy, LAST),
    "laplacian_ratio": (absolute_laplacian, 0), "laplacian_ratio_last": (absolute_laplacian, LAST),
}  # fmt: skip
WALLS = "walls"  # of mazes, see ``metrics.walls``; the real videos' own score is beside it
PAIRS = ("psnr", "ssim", "lpips_vgg", "lpips_alex", SHARPNESS)
# Named after the data that a place encoder knows: fd_place_vizdoom, src_place_maze_plain. In-domain, for when no
# weights of ImageNet or Kinetics are at hand.
FD_PLACE, SRC_PLACE, SRC_RESNET = "fd_place_", "src_place_", "src_resnet18"
OF_PLACES = (FD_PLACE, SRC_PLACE)
# Named after the data that the action predictor knows: action_error_ratio_vizdoom, fd_action_procgen. The last three
# stand for FVD, FID and LPIPS where no weights of ImageNet or Kinetics are at hand.
RATIO, FD_ACTION, FD_FRAMES, LPIPS_ACTION = "action_error_ratio_", "fd_action_", "fd_frames_", "lpips_action_"
OF_ACTIONS = (RATIO, FD_ACTION, FD_FRAMES, LPIPS_ACTION)
NAMED = (*PAIRS, *SHARPNESS_RATIOS, WALLS, SCUTS, SRC_RESNET, "fid_inception", "fvd_i3d")
METRICS = (*NAMED, *(f"{prefix}<data>" for prefix in (*OF_PLACES, *OF_ACTIONS)))
FPS = 8.0  # of scene cuts, which are counted in frames


def is_distance(name: str) -> bool:
    """Whether a metric is a Fréchet distance of two sets."""
    return name in ("fid_inception", "fvd_i3d") or name.startswith((FD_PLACE, FD_ACTION, FD_FRAMES))


def is_known(name: str) -> bool:
    """Whether there is such a metric; data may have any name."""
    of_data = (*OF_PLACES, *OF_ACTIONS)
    return name in NAMED or (name.startswith(of_data) and name not in of_data)


def is_of_pairs(name: str) -> bool:
    """Whether a metric is a mean over pairs of frames, a generated one and the real one."""
    return name in PAIRS or name.startswith(LPIPS_ACTION)


def is_return(name: str) -> bool:
    """Whether a metric compares the frames of a video that comes back to a place."""
    return name == SRC_RESNET or name.startswith(SRC_PLACE)


def needs_pairs(name: str) -> bool:
    """Whether a metric is of a generated video and the real one of the same name."""
    return is_of_pairs(name) or is_return(name) or name in (*SHARPNESS_RATIOS, WALLS) or name.startswith(RATIO)


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """What to measure.

    Attributes:
        metrics: of ``METRICS``, with the name of the place encoder's or action predictor's data for ``<data>``.
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
        **_wall_values(real, generated, config),
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
        elif name in SHARPNESS_RATIOS:
            found = _sharpness_ratio(name, real, generated)
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
    for name in (name for name in config.metrics if is_return(name)):
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


def _wall_values(real: Clips, generated: Clips, config: ScoreConfig) -> dict[str, dict[int, float]]:
    """The share of right columns, of right frames, and whether the columns suffice, of either video of a maze."""
    values: dict[str, dict[int, float]] = {}
    if WALLS not in config.metrics:
        return values
    for role, ending in (("generated", ""), ("real", "_real")):
        for (number,) in _batches(real, 1, f"{WALLS} {role}"):
            wanted_TW = real.walls(number)
            if wanted_TW is None:
                raise VgenError(
                    f"{real.paths[number]} does not say where walls are: store their colours as 'walls' (.npz), or "
                    f"leave {WALLS} out"
                )
            (at,) = [number] if role == "real" else _partners(real, generated, [number])
            video = (real if role == "real" else generated).read([at])[0]
            columns, frames = shares_right(columns_right(video, wanted_TW, wall_shades()))
            found = {"columns": columns, "frames": frames, "clips": float(columns >= ENOUGH)}
            for name, share in found.items():
                values.setdefault(f"{WALLS}_{name}{ending}", {})[number] = share
    return values


def _sharpness_ratio(name: str, real: Clips, generated: Clips) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Mean sharpness of the generated set over that of the real one, with its bootstrap interval over videos."""
    measure, last = SHARPNESS_RATIOS[name]
    mine: dict[str, dict[int, float]] = {"over": {}, "under": {}}
    for (number,) in _batches(real, 1, name):
        pair = (("over", generated, _partners(real, generated, [number])), ("under", real, [number]))
        for role, clips, at in pair:
            mine[role][number] = float(measure(clips.read(at)[0][-last:]).mean())
    over_N, under_N = (_in_order(mine[role]) for role in ("over", "under"))
    if not under_N.mean():
        raise VgenError(f"{name}: the real frames are flat; leave it out")
    low, high = ratio_interval(over_N, under_N)
    results = {name: float(over_N.mean() / under_N.mean()), f"{name}_low": low, f"{name}_high": high}
    return results, {f"{name}.over": over_N, f"{name}.under": under_N}


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
