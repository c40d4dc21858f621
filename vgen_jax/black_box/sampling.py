"""Sampling over a black box on any number of devices: the box is asked between the compiled steps.

A callback within a compiled program (``black_box.ask.from_ask``) holds one device's thread while others may wait for
it, and a fault of it ends the program. Here a sampler's step is cut in two, as ``black_box.training`` does with a
training's: what the composition asks its base is computed first, then the step with the answers in the place of the
base. The numbers are those of ``diffusion.samplers.sample``.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vgen_jax.black_box.ask import Ask, answer
from vgen_jax.diffusion.samplers import Sampling, steps_of, trajectory
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.types import Array, Condition, Key, Prediction, PredictionKind, Predictor, VgenError


def sample_black_box(
    around: Callable[[Predictor], Predictor],
    ask: Ask,
    kind: PredictionKind,
    schedule: Schedule,
    sampler: Sampling,
    x_T: Array,
    condition: Condition,
    key_B: Key,
) -> Array:
    """Runs the sampler with ``around(base)``; see ``samplers.sample`` for what is not said here.

    Args:
        around: a composition, for example ``lambda base: avid(base, adapter)``; may ask its base several times a step.
        ask: the base, which predicts ``kind``.

    Raises:
        VgenError: what the base is asked depends on what it answered in the same step.
    """
    way = trajectory(sampler, schedule)

    @jax.jit
    def questions(x: Array, row: Any, condition: Condition) -> list[tuple[Array, Array, Condition]]:
        asked: list[tuple[Array, Array, Condition]] = []

        def base(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
            asked.append((x_t_BTHWC, t_B, condition))
            return Prediction(jnp.full_like(x_t_BTHWC, jnp.nan), kind)  # seen if another question depends on it

        around(base)(x, steps_of(x, row), condition)
        return asked

    @jax.jit
    def step(carry: Any, row: Any, answers: list[np.ndarray], condition: Condition, key_B: Key) -> Any:
        left: Iterator[np.ndarray] = iter(answers)

        def base(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
            return Prediction(jax.lax.stop_gradient(next(left)), kind)

        return way.step(around(base), condition, key_B, carry, row)

    carry, rows = way.start(x_T), way.rows()
    for number in range(len(way.table.t)):
        row = {name: column[number] for name, column in rows.items()}
        asked = jax.tree.map(np.asarray, questions(carry[0], row, condition))
        for x, _, _ in asked:
            if not np.isfinite(x).all():
                raise VgenError("what the black box is asked depends on its own answer, or is not finite: ask it once")
        carry = step(carry, row, [answer(ask, *one) for one in asked], condition, key_B)
    return carry[0]
