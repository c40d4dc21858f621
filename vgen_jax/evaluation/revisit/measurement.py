"""Does a memory bring a place back as it was? (SlowFast-VGen §4.1 and appendix E.) What is measured, and how.

Metrics are computed on decoded frames in memory.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vgen_jax.config import section
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.evaluation.place_encoder import Place
from vgen_jax.evaluation.revisit import paths as paths_of
from vgen_jax.evaluation.revisit.cells import Cell, load_cell, save_cell
from vgen_jax.evaluation.revisit.paths import PROTOCOLS, Protocol
from vgen_jax.evaluation.revisit.scores import NETWORKS, PLAIN, TRUTH, Extract, compared, metric_names, score
from vgen_jax.files.log import forget_peak, peak_mib
from vgen_jax.files.progress import progress
from vgen_jax.types import VgenError
from vgen_jax.worlds.assembly import slow_world
from vgen_jax.worlds.memories import MemoryConfig
from vgen_jax.worlds.rollout import rollout
from vgen_jax.worlds.slow import SlowModel, frame_size
from vgen_jax.worlds.slow_world import SlowWorld

PAIRS = 16  # pairs of frames that a published network sees at once
# What a cell says of costs -> its name relative to ``none``.
COSTS = {"seconds_per_chunk": "time_ratio", "held_mib": "held_ratio", "peak_mib": "peak_ratio"}
WARM_UP = 2  # chunks of a rollout that are not timed: they compile


@dataclasses.dataclass(frozen=True)
class RevisitConfig:
    """What is measured.

    Attributes:
        split: of the paths, without the length: paths of 200 frames are in split ``<split>_200``.
        lengths: frames after the first one; multiples of ``future``.
        paths: per length; a multiple of ``batch``.
        batch: videos at once.
        protocols: ``generated``, ``primed``.
        future: f_g.
        guidance: scale of classifier-free guidance; 1 for none.
        seed: of the noise.
        decode_frames: frames decoded at once.
        shown_paths: how many paths' videos are in the report, ...
        shown_memories: ... and of which memories, of those that are measured.
        memories: the names of those that are measured; empty for all. Processes that share a work directory may each
            measure some; a start with all of them then gathers what they found.
        networks: published networks that score as well, of ``NETWORKS``.
    """

    split: str
    lengths: tuple[int, ...]
    paths: int
    batch: int
    protocols: tuple[str, ...]
    future: int
    guidance: float
    seed: int
    decode_frames: int
    shown_paths: int
    shown_memories: tuple[str, ...]
    memories: tuple[str, ...]
    networks: tuple[str, ...]

    def __post_init__(self) -> None:
        if wrong := [name for name in self.protocols if name not in PROTOCOLS]:
            raise VgenError(f"config key revisit.protocols has '{wrong[0]}': use {' or '.join(PROTOCOLS)}")
        if unknown := [name for name in self.networks if name not in NETWORKS]:
            raise VgenError(f"config key revisit.networks has '{unknown[0]}': use some of {', '.join(NETWORKS)}")
        if self.paths < 2 or self.paths % self.batch:
            raise VgenError(f"revisit.paths is {self.paths}: use a multiple of revisit.batch {self.batch}, at least 2")
        if wrong_lengths := [length for length in self.lengths if length < 1 or length % self.future]:
            raise VgenError(f"revisit.lengths has {wrong_lengths[0]}: use multiples of revisit.future {self.future}")
        if not 0 <= self.shown_paths <= self.paths:
            raise VgenError(f"revisit.shown_paths is {self.shown_paths}: use at most revisit.paths {self.paths}")


@dataclasses.dataclass(frozen=True)
class Contender:
    """A memory that is measured.

    Attributes:
        past: f_p of its rollouts.
    """

    memory: MemoryConfig
    past: int


class Bench(NamedTuple):
    """What all cells share.

    Attributes:
        model: is measured.
        networks: the features of ``RevisitConfig.networks``.
        identity: what a cell must have been made with, besides its own settings.
    """

    settings: RevisitConfig
    sampler: Sampler
    model: SlowModel
    place: Place
    networks: dict[str, Extract]
    identity: dict[str, Any]


def contenders_of(sections: dict[str, Any], settings: RevisitConfig) -> dict[str, Contender]:
    """The memories that are measured, by name, ``none`` first.

    Raises:
        VgenError: a name that cannot be, or one to be shown or measured that is not there.
    """
    contenders = {name: section(Contender, values, f"memories.{name}") for name, values in sections.items()}
    if TRUTH in contenders:
        raise VgenError(f"config key memories.{TRUTH}: that name is the recording's; use another")
    for key in ("shown_memories", "memories"):
        if unknown := [name for name in getattr(settings, key) if name not in contenders]:
            raise VgenError(f"config key revisit.{key} has '{unknown[0]}': memories has {', '.join(contenders)}")
    wanted = {name: contenders[name] for name in settings.memories or contenders}
    return dict(sorted(wanted.items(), key=lambda item: item[0] != PLAIN))  # what others are compared with first


def measured(
    bench: Bench,
    memory: str,
    contender: Contender | None,
    paths: Mapping[int, list[paths_of.RecordedPath]],
    folder: Path,
) -> list[Cell]:
    """All cells of a contender (``None``: the recording), from disk where they are there; it is compiled once."""
    cells, world = [], None
    for length, of_length in paths.items():
        for protocol in (name for name in PROTOCOLS if name in bench.settings.protocols):
            place = folder / f"{length}-{protocol}-{memory}"
            made_with = {**bench.identity, "length": length, "contender": contender and dataclasses.asdict(contender)}
            cell = load_cell(place, made_with)
            if cell is None:
                if contender is not None and world is None:
                    world = world_of(bench, contender)
                cell = Cell(length, protocol, memory, *played(bench, world, of_length, protocol, place.name))
                save_cell(place, cell, made_with)
            cells.append(cell)
    return cells


def world_of(bench: Bench, contender: Contender) -> SlowWorld:
    """The model with a contender's memory, not yet compiled."""
    at = bench.settings
    return slow_world(
        bench.model, bench.sampler, contender.memory, contender.past, at.future, at.guidance, at.decode_frames
    )  # fmt: skip


def played(
    bench: Bench, world: SlowWorld | None, paths: list[paths_of.RecordedPath], protocol: Protocol, name: str
) -> tuple[list[dict[str, Any]], list[np.ndarray], list[str], float, float, float]:
    """The rest of a ``Cell``: scores, videos, names, seconds, MiB held, peak MiB. ``name`` is the progress bar's."""
    settings, fps = bench.settings, bench.model.data.fps
    scores: dict[int, dict[str, Any]] = {}
    videos: dict[int, np.ndarray] = {}
    seconds: list[float] = []
    held, peak = 0.0, math.nan
    groups = list(paths_of.batches(paths, settings.batch, protocol))
    for group in progress(groups, desc=name, unit="batch"):
        found = [path.video_THWC for path in group]
        if world is not None:
            found, times, mib, most = followed(bench, world, group, protocol)
            seconds, held, peak = seconds + times, max(held, mib), float(np.fmax(most, peak))
        for path, video_THWC in zip(group, found, strict=True):
            scores[path.number] = score(bench.place, path, video_THWC, settings.future, fps, protocol, bench.networks)
            if path.number < settings.shown_paths:
                videos[path.number] = video_THWC
    shown = paths[: settings.shown_paths]
    median = statistics.median(seconds) if seconds else float("nan")
    in_order = [scores[path.number] for path in paths]
    return in_order, [videos[path.number] for path in shown], [path.name for path in shown], median, held, peak


def followed(
    bench: Bench, world: SlowWorld, group: list[paths_of.RecordedPath], protocol: Protocol
) -> tuple[list[np.ndarray], list[float], float, float]:
    """The videos of a batch of paths, uint8, frame 0 the real one; the seconds of its timed chunks; MiB held, peak."""
    future = world.future
    watched = max(path.watched for path in group) if protocol == "primed" else 0
    first = np.stack([path.video_THWC[:1] for path in group])
    numbers = np.asarray([path.number for path in group], np.int32)
    parts, seconds, before = [first], [], time.perf_counter()
    state = world.start(first, None, jax.random.key(bench.settings.seed), numbers)
    driven = paths_of.Watching(world, group) if watched else world
    for chunk in rollout(driven, state, paths_of.actions_of(group, future)):
        parts.append(np.asarray(chunk.step.frames_BTHWC))
        jax.block_until_ready(chunk.state)
        if chunk.number >= watched + WARM_UP:
            seconds.append(time.perf_counter() - before)
        elif chunk.number == watched + WARM_UP - 1:
            forget_peak()
        before = time.perf_counter()
    held = sum(array.nbytes for array in jax.live_arrays()) / 2**20
    videos = list(np.concatenate(parts, axis=1))
    if protocol == "primed":  # what was watched is the recording, not what the autoencoder makes of it
        for path, video_THWC in zip(group, videos, strict=True):
            seen = 1 + path.watched * future
            video_THWC[:seen] = path.video_THWC[:seen]
    return videos, seconds, held, peak_mib() if seconds else math.nan


def gathered(
    settings: RevisitConfig, cells: list[Cell], backbone: str, beside: tuple[str, ...] = ()
) -> dict[str, float]:
    """All numbers under flat keys ``<metric>/<memory>/<length>``, with ``_ci95`` and ``_count``.

    Args:
        beside: what scored beside the place encoder, see ``metric_names``.
    """
    results: dict[str, float] = {}
    for length in settings.lengths:
        for protocol in PROTOCOLS:
            found = {cell.memory: cell for cell in cells if (cell.length, cell.protocol) == (length, protocol)}
            if not found:
                continue
            for metric in metric_names(protocol, backbone, beside):
                results |= compared(metric, {m: [s[metric] for s in c.scores] for m, c in found.items()}, length)
            prefix = "" if protocol == "generated" else "primed_"
            costs = {memory: cell for memory, cell in found.items() if memory != TRUTH}
            for memory, cell in costs.items():
                for name, ratio in COSTS.items():
                    results[f"{prefix}{name}/{memory}/{length}"] = getattr(cell, name)
                    if PLAIN in costs:
                        of_plain = getattr(cell, name) / getattr(costs[PLAIN], name)
                        results[f"{prefix}{ratio}/{memory}/{length}"] = of_plain
    return results


def contract(bench: Bench) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        **bench.identity,
        "backbone": bench.place.name,
        "resolution": "x".join(str(n) for n in frame_size(bench.model)),
        "fps": bench.model.data.fps,
        "scuts": "PySceneDetect AdaptiveDetector, defaults, frames enlarged to at most 256 pixels by repetition",
        "interval": "normal, 95 %, over paths",
        "device": jax.devices()[0].device_kind,
    }
