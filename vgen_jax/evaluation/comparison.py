"""Results of several runs side by side: refused where their contracts differ, with intervals where they can be had.

Intervals are 95 % bootstrap intervals over videos: all rows of a video are drawn together, with replacement. Drawing
twice what is once in the set makes any Fréchet distance larger; its interval is therefore the spread of the draws about
their own median, laid about the distance. Distances of frames' features (FID) have none: their features are not kept.
"""

import dataclasses
import json
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vgen_jax.evaluation.scoring import FD_ACTION, FD_FRAMES, LPIPS_ACTION, RATIO
from vgen_jax.metrics.action_error import ratio_interval
from vgen_jax.metrics.frechet import Frechet
from vgen_jax.metrics.normalised import BOUNDS, HIGHER_IS_BETTER, normalised_score
from vgen_jax.types import VgenError

RESULTS_FILE, SCORES_FILE = "results.json", "scores.npz"
# What may differ: who is compared, where and when. Everything else in a contract decides what the numbers mean.
FREE = (
    "generated", "generated_sha256", "generated_files", "generated_windows", "commit", "device", "seed", "model_sha256",
    "sampler", "chunk_frames", "memory",
)  # fmt: skip
SUFFIXES = ("_ci95", "_count", "_count_real", "_count_generated", "_low", "_high")
PERCENTILES = (2.5, 97.5)
COMPARED, NORMALISED = "compared", "normalised_score"
# What AVID's score calls a metric, where it is not called so here.
FAMILIES = {"fvd_i3d": "fvd", "fid_inception": "fid", "lpips_vgg": "lpips"}
# Named after data; the last three stand in, where results are compared with each other, for what is not there.
STAND_INS = (FD_ACTION, FD_FRAMES, LPIPS_ACTION)
NAMED_AFTER_DATA = {RATIO: "action_error_ratio", FD_ACTION: "fvd", FD_FRAMES: "fid", LPIPS_ACTION: "lpips"}


@dataclasses.dataclass(frozen=True)
class ComparisonConfig:
    """Attributes:
    results: folders of runs that wrote ``results.json`` with a contract.
    names: what to call them; empty for their folders' names.
    draws: of each bootstrap.
    seed: of the draws.
    normalise: AVID's normalised score beside each result (``metrics.normalised``): between the bounds of its tables,
        ``rt1`` or ``coinrun``, or between the worst and the best of the results ``compared``; empty for none.
    """

    results: tuple[str, ...]
    names: tuple[str, ...]
    draws: int
    seed: int
    normalise: str

    def __post_init__(self) -> None:
        if self.normalise not in ("", COMPARED, *BOUNDS):
            raise VgenError(f"compare.normalise is '{self.normalise}': use {COMPARED}, {', '.join(BOUNDS)} or leave it")
        if len(self.results) < 2:
            raise VgenError("compare.results names fewer than two folders: give --config.compare.results=\"('A','B')\"")
        if self.names and len(self.names) != len(self.results):
            raise VgenError(f"compare.names has {len(self.names)} names for {len(self.results)} folders: give one each")
        if self.draws < 100:
            raise VgenError(f"compare.draws is {self.draws}: use 100 or more")


class Result(NamedTuple):
    """A run's numbers, their contract, and what bootstraps draw from (see ``evaluation.scoring.Scores.rows``)."""

    folder: Path
    scalars: dict[str, float]
    contract: dict[str, Any]
    rows: dict[str, np.ndarray]


class Estimate(NamedTuple):
    """A number with its 95 % interval; NaN bounds where there is none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def read_result(folder: str | Path) -> Result:
    """Raises VgenError where a file is missing or damaged, or the numbers came without a contract."""
    folder = Path(folder).expanduser()
    path = folder / RESULTS_FILE
    if not path.is_file():
        raise VgenError(f"{path} is missing: name the work directory of a run that has finished")
    try:
        raw = json.loads(path.read_text())
    except ValueError as error:
        raise VgenError(f"{path} is damaged ({error}): run it again") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("contract"), dict):
        raise VgenError(f"{path} holds no contract, so nobody knows what its numbers mean: evaluate again")
    scalars = {k: math.nan if v is None else float(v) for k, v in raw.items() if isinstance(v, int | float | None)}
    return Result(folder, scalars, raw["contract"], _read_rows(folder / SCORES_FILE))


def _read_rows(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise VgenError(f"{path} is damaged ({error}): evaluate again") from error


def check_contracts(results: Sequence[Result]) -> None:
    """Raises VgenError, naming the first entry of a contract that differs and must not."""
    first = results[0]
    for other in results[1:]:
        for key in sorted(first.contract.keys() | other.contract.keys()):
            values = [result.contract[key] if key in result.contract else None for result in (first, other)]
            if key not in FREE and values[0] != values[1]:
                raise VgenError(
                    f"{first.folder} and {other.folder} cannot be compared: {key} is {values[0]} in one and "
                    f"{values[1]} in the other; evaluate both alike"
                )


def table(results: Sequence[Result], draws: int, seed: int) -> dict[str, list[Estimate]]:
    """Of each metric that all results have, its cells in the order of the results."""
    check_contracts(results)
    shared = set.intersection(*(set(result.scalars) for result in results))
    names = [name for name in results[0].scalars if name in shared and not name.endswith(SUFFIXES)]
    return {name: [estimate(result, name, draws, seed) for result in results] for name in names}


def normalised(cells: Mapping[str, Sequence[Estimate]], normalise: str) -> list[Estimate]:
    """AVID's normalised score of each result, without intervals.

    ``compared`` takes the metrics that are there, and stand-ins for those that are not (``fd_action_…`` for FVD,
    ``fd_frames_…`` for FID, ``lpips_action_…`` for LPIPS); the bounds of a table need all six, as they were measured.

    Raises:
        VgenError: a metric is missing.
    """
    values: dict[str, list[float]] = {}
    for name, column in sorted(cells.items(), key=lambda item: _stands_in(item[0])):
        family = _family(name, normalise == COMPARED)
        if family in HIGHER_IS_BETTER and family not in values:
            values[family] = [found.value for found in column]
    if normalise == COMPARED:
        bounds = {family: (min(column), max(column)) for family, column in values.items()}
    else:
        bounds = BOUNDS[normalise]
    count = max((len(column) for column in cells.values()), default=0)
    each = [{family: column[n] for family, column in values.items()} for n in range(count)]
    return [Estimate(normalised_score(one, bounds), math.nan, math.nan) for one in each]


def _stands_in(name: str) -> bool:
    """Whether a metric stands for one whose network is not there."""
    return name.startswith(STAND_INS)


def _family(name: str, stand_ins: bool) -> str:
    """What AVID's score calls a metric; ``""`` for one that is no part of it."""
    if re.search(r"_(accuracy|mae)_(real|generated)$", name) or (_stands_in(name) and not stand_ins):
        return ""
    prefix = next((prefix for prefix in NAMED_AFTER_DATA if name.startswith(prefix)), "")
    return NAMED_AFTER_DATA[prefix] if prefix else FAMILIES[name] if name in FAMILIES else name


def estimate(result: Result, name: str, draws: int, seed: int) -> Estimate:
    """A metric of a result, with a bootstrap interval where its rows were kept, else with that which the run gave."""
    value = result.scalars[name]
    if name in result.rows:
        return Estimate(value, *bootstrap_mean(result.rows[name], draws, seed))
    if f"{name}.over" in result.rows:
        over, under = (result.rows[f"{name}.{part}"] for part in ("over", "under"))
        return Estimate(value, *ratio_interval(over, under, draws, seed))
    if f"{name}.real" in result.rows:
        return Estimate(value, *bootstrap_distance(value, result.rows, name, draws, seed))
    if f"{name}_low" in result.scalars and f"{name}_high" in result.scalars:
        return Estimate(value, result.scalars[f"{name}_low"], result.scalars[f"{name}_high"])
    half = result.scalars[f"{name}_ci95"] if f"{name}_ci95" in result.scalars else math.nan
    return Estimate(value, value - half, value + half)


def bootstrap_mean(values_N: np.ndarray, draws: int, seed: int) -> tuple[float, float]:
    """The 95 % interval of a mean over videos."""
    drawn = np.random.default_rng(seed).integers(0, len(values_N), (draws, len(values_N)))
    low, high = np.percentile(values_N[drawn].mean(1), PERCENTILES)
    return float(low), float(high)


def bootstrap_distance(
    value: float, rows: Mapping[str, np.ndarray], name: str, draws: int, seed: int
) -> tuple[float, float]:
    """The 95 % interval of a Fréchet distance; both sets are drawn anew. A tenth of the draws: each costs a root."""
    rng = np.random.default_rng(seed)
    sets = {role: rows[f"{name}.{role}"] for role in ("real", "generated")}
    metric = Frechet(name, sets["real"].shape[1])
    found = []
    for _ in range(draws // 10):
        drawn = {role: features[rng.integers(0, len(features), len(features))] for role, features in sets.items()}
        found.append(metric.distance(metric.update(metric.init(), **drawn)))
    low, middle, high = np.percentile(found, (PERCENTILES[0], 50.0, PERCENTILES[1]))
    return max(0.0, float(value + low - middle)), float(value + high - middle)


def markdown(names: Sequence[str], cells: Mapping[str, Sequence[Estimate]]) -> str:
    """The table in Markdown, one row per result."""
    header = ["result", *cells]
    lines = [header, ["---"] * len(header)]
    lines += [
        [name.replace("|", "\\|"), *(str(column[n]) for column in cells.values())] for n, name in enumerate(names)
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
