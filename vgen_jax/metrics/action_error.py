"""Action error ratio (AVID §4.2, appendix 9.3): can the actions be read off generated videos as off real ones?

    discrete:    accuracy(real videos) / accuracy(generated videos)
    continuous:  MAE(generated videos) / MAE(real videos), of normalised actions

A network that was trained on real videos reads them. 1: as legible as real videos; larger: less. Blur and artefacts
that the network never saw raise it as wrong motion does. It compares videos of the same actions, and numbers of
different networks are different metrics, hence the name ``action_error_ratio_<data>``.
"""

import math
from typing import Literal

import flax.struct
import numpy as np

from vgen_jax.metrics.base import Mean, MeanState
from vgen_jax.types import VgenError

ActionKind = Literal["discrete", "continuous"]
DRAWS = 1000
SCORES: dict[ActionKind, str] = {"discrete": "accuracy", "continuous": "mae"}


def action_scores(kind: ActionKind, found_BTA: np.ndarray, wanted_BTA: np.ndarray) -> np.ndarray:
    """Accuracy (discrete) or mean absolute error (continuous) of each clip over its steps, float64 (B,).

    Args:
        found_BTA: logits or normalised values that the network gives.
        wanted_BTA: one-hot or normalised actions that were taken.

    Raises:
        VgenError: shapes that differ.
    """
    found, wanted = np.asarray(found_BTA, np.float64), np.asarray(wanted_BTA, np.float64)
    if found.shape != wanted.shape or found.ndim != 3:
        raise VgenError(f"action error: predictions {found.shape} for actions {wanted.shape}: give as many of each")
    if kind == "discrete":
        return (found.argmax(-1) == wanted.argmax(-1)).mean(1)
    return np.abs(found - wanted).mean((1, 2))


@flax.struct.dataclass
class RatioState:
    """Means over real and over generated clips."""

    real: MeanState
    generated: MeanState


@flax.struct.dataclass
class ActionErrorRatio:
    """The ratio as a metric: ``update(state, real=scores)``, ``update(state, generated=scores)`` of ``action_scores``.

    Attributes:
        name: the key of the result, ``action_error_ratio_vizdoom``.
        kind: of the actions.
    """

    name: str = flax.struct.field(pytree_node=False)
    kind: ActionKind = flax.struct.field(pytree_node=False)

    def _mean(self, role: str) -> Mean:
        return Mean(f"{self.name}_{SCORES[self.kind]}_{role}")

    def init(self) -> RatioState:
        return RatioState(self._mean("real").init(), self._mean("generated").init())

    def update(
        self,
        state: RatioState,
        *,
        mask: np.ndarray | None = None,
        real: np.ndarray | None = None,
        generated: np.ndarray | None = None,
    ) -> RatioState:
        """Adds one score a clip, of either set or of both."""
        if real is not None:
            state = state.replace(real=self._mean("real").update(state.real, mask=mask, values=real))  # type: ignore[attr-defined]
        if generated is not None:
            added = self._mean("generated").update(state.generated, mask=mask, values=generated)
            state = state.replace(generated=added)  # type: ignore[attr-defined]
        return state

    def merge(self, a: RatioState, b: RatioState) -> RatioState:
        mean = self._mean("real")
        return RatioState(mean.merge(a.real, b.real), mean.merge(a.generated, b.generated))

    def compute(self, state: RatioState) -> dict[str, float]:
        """``{name: ratio}`` and both means, ``<name>_accuracy_real`` or ``<name>_mae_real`` and so on."""
        parts = {role: self._mean(role).compute(getattr(state, role)) for role in ("real", "generated")}
        real, generated = (parts[role][self._mean(role).name] for role in ("real", "generated"))
        over, under = (real, generated) if self.kind == "discrete" else (generated, real)
        return {self.name: over / under if under else math.inf, **parts["real"], **parts["generated"]}


def ratio_interval(over_N: np.ndarray, under_N: np.ndarray, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of mean(over) / mean(under); both numbers of a clip are drawn together."""
    drawn = np.random.default_rng(seed).integers(0, len(over_N), (draws, len(over_N)))
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.percentile(over_N[drawn].mean(1) / under_N[drawn].mean(1), [2.5, 97.5])
    return float(low), float(high)
