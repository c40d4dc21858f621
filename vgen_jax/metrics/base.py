"""A metric over a data set: ``init`` -> ``update`` per batch -> ``merge`` across workers -> ``compute``.

States are small pytrees of float64 and int64 NumPy arrays on the host. JAX's default float32 would round a mean over a
data set differently for every batch size; here the sums carry their rounding error along as a second number, so the
result is the same however the data are cut into batches and workers.
"""

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, Protocol, TypeVar

import flax.struct
import jax
import numpy as np

from vgen_jax.types import VgenError

State = TypeVar("State")


class Metric(Protocol[State]):
    """Pure functions on a state. ``mask`` is True where an entry counts, False where it is padding."""

    def init(self) -> State: ...

    def update(self, state: State, *, mask: np.ndarray | None = None, **arrays: Any) -> State: ...

    def merge(self, a: State, b: State) -> State: ...

    def compute(self, state: State) -> dict[str, float]: ...


@flax.struct.dataclass
class MeanState:
    """Number of values, and their sum and sum of squares as (rounded, remainder) pairs.

    Attributes:
        count: () int64.
        total: (2,) float64; the sum is total[0] + total[1].
        squares: (2,) float64, likewise.
    """

    count: np.ndarray
    total: np.ndarray
    squares: np.ndarray


@flax.struct.dataclass
class Mean:
    """The mean of scalars, with the half-width of its 95 % confidence interval.

    The interval is the normal one, 1.96·s/√n, and takes the values as independent: give one value per clip rather than
    one per frame where frames of a clip resemble each other.

    Attributes:
        name: the key of the result; names the backbone where there is one (``fvd_i3d``).
    """

    name: str = flax.struct.field(pytree_node=False)

    def init(self) -> MeanState:
        return MeanState(count=np.zeros((), np.int64), total=np.zeros(2), squares=np.zeros(2))

    def update(self, state: MeanState, *, mask: np.ndarray | None = None, values: Any) -> MeanState:
        """Add ``values``, any shape; ``mask`` has the same shape, or that of the leading axes.

        Raises:
            VgenError: a mask of another shape.
        """
        numbers = np.asarray(jax.device_get(values), np.float64)
        if mask is not None:
            numbers = numbers[_leading_mask(self.name, mask, numbers.shape)]
        numbers = numbers.ravel()
        batch = MeanState(
            count=np.asarray(numbers.size, np.int64), total=_exact_sum(numbers), squares=_exact_sum(numbers**2)
        )
        return self.merge(state, batch)

    def merge(self, a: MeanState, b: MeanState) -> MeanState:
        return MeanState(
            count=a.count + b.count,
            total=_exact_sum([*a.total, *b.total]),
            squares=_exact_sum([*a.squares, *b.squares]),
        )

    def compute(self, state: MeanState) -> dict[str, float]:
        """``{name: mean, name_ci95: half-width, name_count: n}``; one value has NaN for a half-width.

        A value that was NaN or infinite makes the mean NaN or infinite, and the half-width NaN.

        Raises:
            VgenError: no value was added.
        """
        count = int(state.count)
        if count == 0:
            raise VgenError(f"{self.name}: no values to average; the data set, or what the mask leaves of it, is empty")
        results = {self.name: math.nan, f"{self.name}_ci95": math.nan, f"{self.name}_count": float(count)}
        if not np.isfinite(state.squares[0]):
            results[self.name] = float(state.total[0]) / count
            return results
        total, squares = (Fraction(float(pair[0])) + Fraction(float(pair[1])) for pair in (state.total, state.squares))
        results[self.name] = float(total / count)
        if count > 1:
            variance = max(Fraction(0), squares - total * total / count) / (count - 1)
            results[f"{self.name}_ci95"] = 1.96 * math.sqrt(variance / count)
        return results


def _leading_mask(name: str, mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.asarray(mask, bool)
    if mask.shape != shape[: mask.ndim]:
        raise VgenError(
            f"{name}: a mask of shape {mask.shape} does not fit values of shape {shape}; give one flag each"
        )
    return mask


def _exact_sum(terms: Iterable[float]) -> np.ndarray:
    """The sum as a (rounded, remainder) pair, 106 significant bits together."""
    terms = [float(term) for term in terms]
    if not all(map(math.isfinite, terms)):
        return np.array([np.sum(terms), 0.0])
    rounded = math.fsum(terms)
    return np.array([rounded, math.fsum([*terms, -rounded])])
