"""Solvers of flow matching's ODE, dx/ds = u(x, s), at continuous flow times: one scan over a table of numbers.

The explicit Runge-Kutta methods with J stages differ in their tableau alone (c, a, b):

    k_j = u(x_n + h · sum_i a_ji k_i, s_n + c_j h),      x_{n+1} = x_n + h · sum_j b_j k_j

* ``euler``: one stage, order 1. On the schedule ``flow`` it is a step of DDIM (``diffusion.samplers``).
* ``midpoint``: c = (0, 1/2), b = (0, 1), order 2.
* ``heun``: c = (0, 1), b = (1/2, 1/2), order 2.
* ``rk4``: the 3/8 rule, c = (0, 1/3, 2/3, 1), b = (1/8, 3/8, 3/8, 1/8), order 4: what torchdiffeq calls ``rk4``.

A row of the table is one evaluation, so that a network is compiled once whatever the method. Flow time runs from s = 1,
noise, to s = 0, data; papers that count the other way are meant with t = 1 - s. Each evaluation may draw at random (a
context frame, say): it is given its number.

With sigma the width of the noise that is left at the data (sigma_min of Lipman et al. 2023),

    x_s = (1 - s) x_0 + (sigma + (1 - sigma) s) eps,      u = dx_s/ds = (1 - sigma) eps - x_0

``start`` below 1 is a warm start: the ODE begins at x_s of a guess of x_0, the last frame for example.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from vgen_jax.types import Array, VgenError

SolverKind = Literal["euler", "midpoint", "heun", "rk4"]
# (x, flow time s of every sample (B,), number of the evaluation) -> dx/ds
Field = Callable[[Array, Array, Array], Array]
_Carry = tuple[jax.Array, jax.Array, jax.Array]  # x at the step's beginning, slopes, number of the evaluation

# The rows of a below the diagonal, and b; c is the sum of each row of a.
_TABLEAUS: dict[str, tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]] = {
    "euler": (((),), (1.0,)),
    "midpoint": (((), (0.5,)), (0.0, 1.0)),
    "heun": (((), (1.0,)), (0.5, 0.5)),
    "rk4": (((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)),
}


@dataclasses.dataclass(frozen=True)
class Solver:
    """How the ODE is solved.

    Attributes:
        kind: ``euler``, ``midpoint``, ``heun`` or ``rk4``.
        steps: intervals of equal length; "100 steps" of torchdiffeq are 100 points, 99 of these.
        start: the flow time at which it begins, in (0, 1]; 1 is pure noise, less is a warm start.
    """

    kind: SolverKind
    steps: int
    start: float

    def __post_init__(self) -> None:
        if self.kind not in _TABLEAUS:
            raise VgenError(f"solver.kind '{self.kind}' is unknown: use one of {', '.join(_TABLEAUS)}")
        if self.steps < 1:
            raise VgenError(f"solver.steps is {self.steps}: use at least 1")
        if not 0.0 < self.start <= 1.0:
            raise VgenError(f"solver.start is {self.start}: use a flow time in (0, 1]")

    @property
    def evaluations(self) -> int:
        """Calls of the network for one sample."""
        return self.steps * len(_TABLEAUS[self.kind][1])


@dataclasses.dataclass(frozen=True)
class SolverTable:
    """One row per evaluation, J stages: float32 but for ``stage``.

    Attributes:
        time: s at which the field is asked, (N,).
        stage: j, (N,).
        before: h · a_j, by which the slopes of this step are weighted before it is asked, (N, J).
        after: h · b in the last row of a step, else 0, (N, J).
    """

    time: np.ndarray
    stage: np.ndarray
    before: np.ndarray
    after: np.ndarray


def solver_table(solver: Solver) -> SolverTable:
    """The numbers, computed in float64; h is negative."""
    rows, b = _TABLEAUS[solver.kind]
    stages = len(b)
    a = np.zeros((stages, stages))
    for j, row in enumerate(rows):
        a[j, : len(row)] = row
    grid = np.linspace(solver.start, 0.0, solver.steps + 1)
    h = np.diff(grid)
    time = (grid[:-1, None] + h[:, None] * a.sum(1)).reshape(-1)
    last = np.arange(stages) == stages - 1
    before = (h[:, None, None] * a).reshape(-1, stages)
    after = (h[:, None, None] * last[:, None] * np.asarray(b)).reshape(-1, stages)
    stage = np.tile(np.arange(stages, dtype=np.int32), solver.steps)
    return SolverTable(time.astype(np.float32), stage, before.astype(np.float32), after.astype(np.float32))


def solve(field: Field, solver: Solver, x: Array) -> Array:
    """x at s = 0, float32, from ``x`` at ``solver.start``.

    Args:
        x: (B, …); noise, or ``noised`` for a warm start.
    """
    table = solver_table(solver)
    columns = {name: jnp.asarray(column) for name, column in dataclasses.asdict(table).items()}
    begin: jax.Array = jnp.asarray(x, jnp.float32)
    slopes = jnp.zeros((table.before.shape[1], *begin.shape), jnp.float32)

    def evaluate(carry: _Carry, row: dict[str, jax.Array]) -> tuple[_Carry, None]:
        x, slopes, number = carry
        at = x + jnp.tensordot(row["before"], slopes, 1)
        slope = jnp.asarray(field(at, jnp.full(x.shape[:1], row["time"]), number), jnp.float32)
        slopes = slopes.at[row["stage"]].set(slope)
        return (x + jnp.tensordot(row["after"], slopes, 1), slopes, number + 1), None

    (end, _, _), _ = jax.lax.scan(evaluate, (begin, slopes, jnp.zeros((), jnp.int32)), columns)
    return end


def noised(x_0: Array, eps: Array, s_B: Array, sigma: float) -> Array:
    """x_s; see the module's docstring. ``s_B`` (B,) holds for all of a sample."""
    s = s_B.reshape(-1, *(1,) * (x_0.ndim - 1))
    return (1.0 - s) * x_0 + (sigma + (1.0 - sigma) * s) * eps


def velocity(x_0: Array, eps: Array, sigma: float) -> Array:
    """u = dx_s/ds, from the data to the noise."""
    return (1.0 - sigma) * eps - x_0
