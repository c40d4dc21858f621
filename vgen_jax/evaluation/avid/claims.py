"""What AVID's paper finds at equal trainable size, asked of our own table with intervals over paired clips.

Every claim is a mean difference over clips; its interval is a 95 % bootstrap over clips, both methods' numbers of a
clip drawn together. It holds where the interval lies on the claimed side of 0, fails where it lies on the other.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vgen_jax.evaluation.comparison import Result
from vgen_jax.evaluation.scoring import RATIO
from vgen_jax.metrics.normalised import HIGHER_IS_BETTER

FRAMEWISE = ("ssim", "psnr", "lpips_")  # how metrics begin that every clip has a number of
BEATEN_BY_AVID = ("diffusion", "product_of_experts", "action_guidance")
AVID, BASE, FINETUNED = "avid", "base", "finetune"


class Claim(NamedTuple):
    """``better`` is claimed to be better than ``worse``; ``difference`` is positive where it is."""

    metric: str
    better: str
    worse: str
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        if self.low > 0:
            return "holds"
        return "fails" if self.high < 0 else "undecided"


def claims(results: Mapping[str, Result], draws: int, seed: int) -> list[Claim]:
    """The paper's findings as far as the results have what they need."""
    names = set(results)
    measured = dict.fromkeys(name for result in results.values() for name in result.rows)
    framewise = [name for start in FRAMEWISE for name in measured if name.startswith(start)]
    asked = [(metric, AVID, other) for other in BEATEN_BY_AVID for metric in framewise]
    asked += [("", other, BASE) for other in sorted(names - {BASE})]
    asked += [(metric, FINETUNED, other) for other in sorted(names - {FINETUNED}) for metric in (*framewise, "")]
    found = []
    for metric, better, worse in asked:
        if {better, worse} <= names:
            pair = [_values(results[name], metric) for name in (better, worse)]
            if pair[0] is not None and pair[1] is not None:
                name = metric or "action accuracy"
                found.append(Claim(name, better, worse, *_difference(pair[0] - pair[1], draws, seed)))
    return found


def _values(result: Result, metric: str) -> np.ndarray | None:
    """A number per clip, larger is better; of actions (``""``) the accuracy on the generated clip."""
    if not metric:
        ratios = [rows for name, rows in result.rows.items() if name.startswith(RATIO) and name.endswith(".under")]
        return ratios[0] if ratios else None
    if metric not in result.rows:
        return None
    family = "lpips" if metric.startswith("lpips_") else metric
    return result.rows[metric] if HIGHER_IS_BETTER[family] else -result.rows[metric]


def _difference(values_N: np.ndarray, draws: int, seed: int) -> tuple[float, float, float]:
    drawn = np.random.default_rng(seed).integers(0, len(values_N), (draws, len(values_N)))
    low, high = np.percentile(values_N[drawn].mean(1), [2.5, 97.5])
    return float(values_N.mean()), float(low), float(high)
