"""Run ``revisit``: does a memory bring a place back as it was? (SlowFast-VGen §4.1 and appendix E.)

Every memory follows the same scripted paths, which leave a place and come back to it, at every length and in both
protocols (``runs.revisit_paths``). A finished (length, protocol, memory) is kept in ``cells/`` and not done again.
Metrics are computed on decoded frames in memory; mp4 is made for the report only.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from vgen_jax import build, runs
from vgen_jax.checkpoint import digest
from vgen_jax.convert.feature_nets import feature_net
from vgen_jax.data.records import INFO_FILE, EpisodeSource, read_info
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.log import forget_peak, peak_mib, progress
from vgen_jax.metrics.features import extractor
from vgen_jax.rollout import SampleChunk, rollout
from vgen_jax.runs import revisit_paths as paths_of
from vgen_jax.runs.folder import keep_config, resolved, write_results
from vgen_jax.runs.generate import chunk_decoder
from vgen_jax.runs.memory import MemoryConfig, chunk_sampler, make_memory
from vgen_jax.runs.place import Place, load_place
from vgen_jax.runs.revisit_cells import Cell, load_cell, save_cell
from vgen_jax.runs.revisit_paths import PROTOCOLS, Protocol
from vgen_jax.runs.revisit_report import write_page
from vgen_jax.runs.revisit_scores import NETWORKS, PLAIN, TRUTH, WALLS, Extract, compared, metric_names, score
from vgen_jax.types import Array, Memory, VgenError

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
    """A memory that is measured, with the f_p of its rollouts."""

    memory: MemoryConfig
    past: int


class Bench(NamedTuple):
    """What all cells share.

    Attributes:
        model: is measured.
        encode, decode: its autoencoder, compiled once.
        networks: the features of ``RevisitConfig.networks``.
        identity: what a cell must have been made with, besides its own settings.
    """

    settings: RevisitConfig
    sampler: Sampler
    model: build.SlowModel
    encode: paths_of.Encode
    decode: Callable[[Array], list[Array]]
    place: Place
    networks: dict[str, Extract]
    identity: dict[str, Any]


class Runner(NamedTuple):
    """A contender, compiled."""

    sample_chunk: SampleChunk
    memory: Memory
    past: int


def run(config: ConfigDict, workdir: Path) -> None:
    """Measures; writes ``cells/``, ``samples/*.mp4``, ``results.json``, ``report.html``."""
    keep_config(config, workdir)
    settings = build.section(RevisitConfig, config.revisit, "revisit")
    contenders = contenders_of(config.memories.to_dict(), settings)
    bench = bench_of(config, settings)
    paths = {
        length: paths_of.load_paths(bench.model, source, settings.paths, length, settings.future)
        for length, source in open_paths(config, settings).items()
    }
    cells: list[Cell] = []
    for memory, contender in {TRUTH: None, **contenders}.items():
        cells += measured(bench, memory, contender, paths, workdir / "cells")
    beside = (*settings.networks, *(WALLS if all(p.walls_TW is not None for of in paths.values() for p in of) else ()))
    results, about = gathered(settings, cells, bench.place.name, beside), contract(bench)
    write_results(workdir, {**results, "contract": about})
    shown = tuple(name for name in settings.shown_memories if name in contenders)
    page = write_page(workdir, results, cells, about, shown, beside, bench.model.data.fps, config.to_dict())
    print(f"report: {page}", flush=True)


def contenders_of(sections: dict[str, Any], settings: RevisitConfig) -> dict[str, Contender]:
    """The memories that are measured, by name, ``none`` first.

    Raises:
        VgenError: a name that cannot be, or one to be shown or measured that is not there.
    """
    contenders = {name: build.section(Contender, values, f"memories.{name}") for name, values in sections.items()}
    if TRUTH in contenders:
        raise VgenError(f"config key memories.{TRUTH}: that name is the recording's; use another")
    for key in ("shown_memories", "memories"):
        if unknown := [name for name in getattr(settings, key) if name not in contenders]:
            raise VgenError(f"config key revisit.{key} has '{unknown[0]}': memories has {', '.join(contenders)}")
    wanted = {name: contenders[name] for name in settings.memories or contenders}
    return dict(sorted(wanted.items(), key=lambda item: item[0] != PLAIN))  # what others are compared with first


def bench_of(config: ConfigDict, settings: RevisitConfig) -> Bench:
    """Loads the model, the place encoder and the published networks."""
    sampler = build.section(Sampler, config.sampler, "sampler")
    model = build.load_slow_model(Path(config.model_dir))
    nets = {name: feature_net(name, config.weights_dir) for name in settings.networks}
    encode = jax.jit(lambda encode, frames: encode(frames))
    identity = {
        "model_sha256": digest(Path(config.model_dir)),
        "place_sha256": digest(Path(config.place_dir)),
        "sampler": dataclasses.asdict(sampler),
        **{name: net.contract for name, net in nets.items()},
        **{key: getattr(settings, key) for key in ("split", "paths", "future", "guidance", "seed", "shown_paths")},
    }
    return Bench(
        settings, sampler, model, lambda frames: encode(model.autoencoder.encode, frames),
        chunk_decoder(model, settings.decode_frames), load_place(Path(config.place_dir)),
        {name: extractor(net, 1 if net.rows == "frame" else PAIRS) for name, net in nets.items()}, identity,
    )  # fmt: skip


def measured(
    bench: Bench, memory: str, contender: Contender | None, paths: Mapping[int, list[paths_of.Path]], folder: Path
) -> list[Cell]:
    """All cells of a contender (``None``: the recording), from disk where they are there; it is compiled once."""
    cells, runner = [], None
    for length, of_length in paths.items():
        for protocol in (name for name in PROTOCOLS if name in bench.settings.protocols):
            place = folder / f"{length}-{protocol}-{memory}"
            made_with = {**bench.identity, "length": length, "contender": contender and dataclasses.asdict(contender)}
            cell = load_cell(place, made_with)
            if cell is None:
                if contender is not None and runner is None:
                    runner = prepared(bench, contender)
                cell = Cell(length, protocol, memory, *played(bench, runner, of_length, protocol, place.name))
                save_cell(place, cell, made_with)
            cells.append(cell)
    return cells


def open_paths(config: ConfigDict, settings: RevisitConfig) -> dict[int, EpisodeSource]:
    """The recorded paths by length; they are recorded first where ``config.collect`` says how and some are missing.

    Raises:
        VgenError: there are none; it names the command that records them.
    """
    folder, splits = Path(config.data_dir), {length: f"{settings.split}_{length}" for length in settings.lengths}
    recorded = read_info(folder).splits if (folder / INFO_FILE).is_file() else {}
    if missing := [split for split in splits.values() if split not in recorded]:
        if not config.collect:
            raise VgenError(
                f"{folder} has no paths of split {missing[0]}: record them with "
                f"python -m vgen_jax.main --config=configs/data/revisit.py --workdir={folder}"
            )
        print(f"recording paths into {folder}", flush=True)
        runs.start(resolved(config.collect, folder), folder)
    return {length: EpisodeSource(folder, split) for length, split in splits.items()}


def prepared(bench: Bench, contender: Contender) -> Runner:
    """A contender's sampler and memory, not yet compiled."""
    settings, memory = bench.settings, contender.memory
    sample_chunk, _ = chunk_sampler(
        bench.model, bench.sampler, settings.guidance, settings.future, memory.sampling, memory.guidance
    )
    made = make_memory(memory, bench.model, contender.past, settings.future)
    return Runner(sample_chunk, made.memory, contender.past)


def played(
    bench: Bench, runner: Runner | None, paths: list[paths_of.Path], protocol: Protocol, name: str
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
        if runner is not None:
            found, times, mib, most = followed(bench, runner, group, protocol)
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
    bench: Bench, runner: Runner, group: list[paths_of.Path], protocol: Protocol
) -> tuple[list[np.ndarray], list[float], float, float]:
    """The videos of a batch of paths, uint8, frame 0 the real one; the seconds of its timed chunks; MiB held, peak."""
    future = bench.settings.future
    sample_chunk, watched = runner.sample_chunk, 0
    if protocol == "primed":
        sample_chunk = paths_of.watching(sample_chunk, group, future, bench.encode)
        watched = max(path.watched for path in group)
    start, rng = paths_of.start_of(group, runner.past, bench.encode), jax.random.key(bench.settings.seed)
    actions = paths_of.actions_of(group, future)
    parts, seconds, before = [np.stack([path.video_THWC[:1] for path in group])], [], time.perf_counter()
    for chunk in rollout(sample_chunk, runner.memory, start, actions, future, rng, view=bench.decode):
        parts += [np.asarray(part) for part in chunk.view]
        jax.block_until_ready(chunk.memory)
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
        "resolution": "x".join(str(n) for n in build.frame_size(bench.model)),
        "fps": bench.model.data.fps,
        "scuts": "PySceneDetect AdaptiveDetector, defaults, frames enlarged to at most 256 pixels by repetition",
        "interval": "normal, 95 %, over paths",
        "device": jax.devices()[0].device_kind,
    }
