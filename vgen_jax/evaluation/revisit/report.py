"""The page of the revisit benchmark: verdicts, tables, similarity against time, memories side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vgen_jax.evaluation.revisit.cells import Cell
from vgen_jax.evaluation.revisit.paths import Protocol
from vgen_jax.evaluation.revisit.scores import PLAIN, TRUTH, clearly_better, higher_is_better, metric_names
from vgen_jax.files import media, report
from vgen_jax.types import VgenError

BASELINES = (PLAIN, "context")  # by the names that configs/eval/revisit.py gives them
AS_SHARP = 0.95
ABOUT = """Every memory follows the same scripted paths, which leave a place and come back. Generated: one real frame,
everything after it generated. Primed: the first visit is real and the memory watches it, the way back is generated and
compared with the recording.

± is half of a 95 % interval over paths. A gain is the mean difference to memory 'none' on the same paths. The row
'truth' is the recording itself: the best that can be reached."""


def write_page(
    workdir: Path,
    results: Mapping[str, float],
    cells: Sequence[Cell],
    contract: Mapping[str, Any],
    shown: Sequence[str],
    networks: Sequence[str],
    fps: float,
    config: Mapping[str, Any],
) -> Path:
    """Writes ``report.html`` and the videos in it, ``samples/*.mp4``.

    Args:
        shown: memories whose videos stand beside the recording.
        networks: published networks that scored as well.
    """
    sections: list[report.Section] = [report.Text(ABOUT)]
    groups: dict[tuple[int, Protocol], dict[str, Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.length, cell.protocol), {})[cell.memory] = cell
    for (length, protocol), found in groups.items():
        title = f"{length} frames, {protocol}"
        metrics = metric_names(protocol, contract["backbone"], networks)
        sections.append(score_table(results, found, length, metrics, title))
        sections.append(verdict_table(results, found, length, protocol, contract["backbone"], title))
        sections.append(similarity_plot(found, title))
        if protocol == "primed":
            continue
        sections.append(cost_table(results, found, length, title))
    for (length, protocol), found in groups.items():
        for number in range(len(found[TRUTH].videos)):
            path = workdir / "samples" / f"{length}-{protocol}-{number}.mp4"
            write_comparison(path, found, number, shown, fps)
            caption = f"{found[TRUTH].names[number]}, {length} frames, {protocol}"
            sections.append(report.Video(path, title=path.stem, caption=caption))
    sections.append(report.Table(("contract", "value"), [(k, str(v)) for k, v in sorted(contract.items())], "Contract"))
    return report.write_report(workdir, "Revisit benchmark", sections, config=config)


def score_table(
    results: Mapping[str, float], found: Mapping[str, Cell], length: int, metrics: Sequence[str], title: str
) -> report.Table:
    """A row per memory: each metric with its interval, and with its gain over ``none``."""
    columns = ["memory"]
    for metric in metrics:
        better = "↑" if higher_is_better(metric) else "↓"
        columns += [f"{metric.removeprefix('primed_')} {better}", "gain"]
    rows = []
    for memory in found:
        row: list[str] = [memory]
        for metric in metrics:
            row.append(_with_interval(results, f"{metric}/{memory}/{length}"))
            row.append(_with_interval(results, f"{metric}_gain/{memory}/{length}", "+"))
            if memory not in (PLAIN, TRUTH) and PLAIN in found:
                row[-1] += " *" if clearly_better(metric, results, memory, PLAIN, length) else ""
        rows.append(row)
    caption = "* the memory's interval and that of 'none' do not overlap, and it is the better one."
    return report.Table(columns, rows, title=title, caption=caption)


def verdict_table(
    results: Mapping[str, float], found: Mapping[str, Cell], length: int, protocol: Protocol, backbone: str, title: str
) -> report.Table:
    """Whether each memory beats the baselines, ``none`` and ``context``, where places come back, and stays as sharp.

    It beats one if its interval does not overlap the other's; it is as sharp if it has at least ``AS_SHARP`` of the
    sharpness of ``none``.
    """
    prefix, likeness = ("", "revisit_psnr") if protocol == "generated" else ("primed_", "primed_psnr")
    metrics = f"{prefix}src_{backbone}", likeness
    baselines = [name for name in BASELINES if name in found]
    columns = ["memory", "all", "sharpness ÷ none", *(f"{metric} > {name}" for metric in metrics for name in baselines)]
    rows = []
    for memory in (name for name in found if name not in (*BASELINES, TRUTH)):
        beats = [clearly_better(metric, results, memory, name, length) for metric in metrics for name in baselines]
        row = [memory, "", "", *("yes" if better else "no" for better in beats)]
        if PLAIN in found:
            sharp, plain = (results[f"{prefix}sharpness/{name}/{length}"] for name in (memory, PLAIN))
            row[1:3] = "yes" if all(beats) and sharp >= AS_SHARP * plain else "no", f"{sharp / plain:.2f}"
        rows.append(row)
    caption = f"> means that the intervals do not overlap; all: every one of them, and at least {AS_SHARP} as sharp."
    return report.Table(columns, rows, title=f"{title}: does a memory win?", caption=caption)


def _with_interval(results: Mapping[str, float], key: str, sign: str = "") -> str:
    return f"{results[key]:{sign}.2f} ± {results[f'{key}_ci95']:.2f}" if key in results else ""


def cost_table(results: Mapping[str, float], found: Mapping[str, Cell], length: int, title: str) -> report.Table:
    """Seconds of a chunk of a whole batch, the arrays held between chunks, peak memory, each relative to ``none``."""
    names = ("seconds_per_chunk", "time_ratio", "held_mib", "held_ratio", "peak_mib", "peak_ratio")
    columns = (
        "memory",
        "seconds per chunk and batch",
        "relative to none",
        "MiB held",
        "relative to none",
        "peak MiB",
        "relative to none",
    )
    rows = [
        (memory, *(results[key] if (key := f"{name}/{memory}/{length}") in results else "" for name in names))
        for memory in found
        if memory != TRUTH
    ]
    return report.Table(columns, rows, title=f"{title}: cost")


def similarity_plot(found: Mapping[str, Cell], title: str) -> report.Plot:
    """Likeness of every frame to the first one, mean over paths."""
    curves = {}
    for memory, cell in found.items():
        mean_T = np.mean([score["similarity"] for score in cell.scores], axis=0)
        curves[memory] = (list(range(len(mean_T))), [float(value) for value in mean_T])
    return report.Plot(curves, title=f"{title}: similarity to the first frame", x_label="frame", y_label="cosine x 100")


def write_comparison(path: Path, found: Mapping[str, Cell], number: int, shown: Sequence[str], fps: float) -> None:
    """One path's videos beside the recording, as mp4."""
    names = [TRUTH, *(name for name in shown if name in found)]
    if lacking := [name for name in names if number >= len(found[name].videos)]:
        raise VgenError(f"cell of memory {lacking[0]} keeps no video {number}: use the former revisit.shown_paths")
    frames = media.side_by_side([found[name].videos[number] for name in names], names, min_height=128)
    with media.VideoWriter(path, fps, frames.shape[1:3]) as writer:
        writer.write(frames)
