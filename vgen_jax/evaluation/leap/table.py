"""The table of predictions, and what it says of the paper's claims: an action prior helps when the camera moves.

Two ways to put samples together, never mixed: ``<metric>`` is the mean over samples and frames of a clip, then over
clips; ``<metric>_best_of_<n>`` takes of each clip the sample whose mean over frames is best in that very metric.
Intervals are 95 %, bootstrap over clips; of differences both methods' numbers of a clip are drawn together.

No claim has a verdict unless SVG-LP beats the repeated last frame in PSNR, and every model's own actions beat the mean
action: before that nothing has been learnt that an action prior could help.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vgen_jax.evaluation.comparison import Estimate, bootstrap_distance, bootstrap_mean
from vgen_jax.evaluation.leap.predictions import BETTER_HIGH, REPEAT, Scored
from vgen_jax.metrics.frechet import Frechet

ACTION_ERROR, MEAN_ACTION, BASE = "action_error", "mean_action", "svg_lp"
CLAIMED = (("vg_leap", BASE), ("causal_leap", BASE), ("rafi", "river"))
FLOORS = (REPEAT, "slow")  # what every model is compared with
UNDECIDED = "undecided"


class Verdict(NamedTuple):
    """``better`` is claimed to be better than ``worse``; ``difference`` is positive where it is."""

    metric: str
    better: str
    worse: str
    difference: Estimate
    verdict: str


def per_clip(rows: np.ndarray) -> np.ndarray:
    """The mean over samples, frames and dimensions of each clip, (clips,)."""
    return rows.reshape(len(rows), -1).mean(1)


def best_of(name: str, rows_NST: np.ndarray) -> np.ndarray:
    """The best sample's mean over frames of each clip, (clips,)."""
    of_samples = rows_NST.mean(2)
    return of_samples.max(1) if name in BETTER_HIGH else of_samples.min(1)


def curve(rows: np.ndarray) -> np.ndarray:
    """The mean over clips, samples and dimensions at each frame, (frames,)."""
    return rows.reshape(*rows.shape[:3], -1).mean((0, 1, 3))


def cells(
    methods: Mapping[str, Scored], real: Mapping[str, np.ndarray], draws: int, seed: int
) -> dict[str, dict[str, Estimate]]:
    """Column -> method -> number; a method lacks the columns that it has no numbers for.

    Args:
        real: features of the recorded clips, for distances.
    """
    found: dict[str, dict[str, Estimate]] = {}

    def put(column: str, method: str, values_N: np.ndarray) -> None:
        estimate = Estimate(float(values_N.mean()), *bootstrap_mean(values_N, draws, seed))
        found.setdefault(column, {})[method] = estimate

    for method, scores in methods.items():
        for name, rows in scores.rows.items():
            put(name, method, per_clip(rows))
            if name != ACTION_ERROR and rows.shape[1] > 1:
                put(f"{name}_best_of_{rows.shape[1]}", method, best_of(name, rows))
        for name, features in scores.features.items():
            sets = {f"{name}.real": real[name], f"{name}.generated": features}
            metric = Frechet(name, features.shape[1])
            value = metric.distance(metric.update(metric.init(), real=real[name], generated=features))
            interval = bootstrap_distance(value, sets, name, draws, seed)
            found.setdefault(name, {})[method] = Estimate(value, *interval)
    return found


def difference(metric: str, better: np.ndarray, worse: np.ndarray, draws: int, seed: int) -> Estimate:
    """By how much ``better`` is better, clip by clip; rows as in ``Scored``."""
    sign = 1.0 if metric in BETTER_HIGH else -1.0
    values_N = sign * (per_clip(better) - per_clip(worse))
    return Estimate(float(values_N.mean()), *bootstrap_mean(values_N, draws, seed))


def reasons_to_wait(methods: Mapping[str, Scored], constant: np.ndarray, draws: int, seed: int) -> list[str]:
    """Why no claim can be judged yet; empty where claims can be.

    Args:
        constant: ``action_error`` of the mean action.
    """
    found = []
    if BASE not in methods or REPEAT not in methods:
        found.append(f"the table lacks {BASE} or {REPEAT}")
    elif difference("psnr", methods[BASE].rows["psnr"], methods[REPEAT].rows["psnr"], draws, seed).low <= 0:
        found.append(f"{BASE} does not beat the repeated last frame in PSNR")
    for name, scores in methods.items():
        if ACTION_ERROR in scores.rows:
            gain = difference(ACTION_ERROR, scores.rows[ACTION_ERROR], constant, draws, seed)
            if gain.low <= 0:
                found.append(f"the actions of {name} do not beat the mean action")
    return found


def verdicts(methods: Mapping[str, Scored], constant: np.ndarray, draws: int, seed: int) -> list[Verdict]:
    """The claims as far as the methods are there, in every metric of frames."""
    waits = bool(reasons_to_wait(methods, constant, draws, seed))
    models = [name for name in methods if name not in FLOORS]
    asked = [*CLAIMED, *((name, floor) for floor in FLOORS for name in models)]
    found = []
    for better, worse in asked:
        if better not in methods or worse not in methods:
            continue
        for metric in methods[better].rows:
            if metric == ACTION_ERROR or metric not in methods[worse].rows:
                continue
            gap = difference(metric, methods[better].rows[metric], methods[worse].rows[metric], draws, seed)
            found.append(Verdict(metric, better, worse, gap, UNDECIDED if waits else judged(gap)))
    return found


def judged(gap: Estimate) -> str:
    """Whether a claimed difference is one."""
    if gap.low > 0:
        return "holds"
    return "fails" if gap.high < 0 else UNDECIDED


def markdown(labels: Mapping[str, str], columns: Mapping[str, Mapping[str, Estimate]]) -> str:
    """The table, one row per method; what a method has no number for stays empty."""
    lines: list[Sequence[str]] = [("method", *columns), ("---",) * (1 + len(columns))]
    for method, label in labels.items():
        lines.append((label, *(str(column[method]) if method in column else "" for column in columns.values())))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def verdict_rows(found: Sequence[Verdict]) -> list[tuple[str, str, str]]:
    """(claim, difference, verdict) as texts."""
    return [(f"{one.metric}: {one.better} better than {one.worse}", str(one.difference), one.verdict) for one in found]
