"""Any objective around a base model, with the base asked outside of the compiled step.

A base that is asked by a callback within the step has a weakness: when it does not answer, the step has begun, and the
state that it was to replace is gone. So the step is cut in two. What the objective asks of its base (x_t, t, the
condition) depends on the batch and the key alone. It is computed first, the base is asked on the host, and the answer
travels with the batch into the step, in which the base is that answer. One batch is asked for ahead, so that base and
step work at the same time. The key is the one that the training loop gives to the step, so the numbers are those of the
same base within the step.
"""

import concurrent.futures
from collections.abc import Callable
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vgen_jax.learning.slow import DataIterator, Task, TrainConfig, step_key
from vgen_jax.types import Array, Condition, Key, Objective, Params, Prediction, PredictionKind, Predictor, VgenError


class Around(Protocol):
    """An objective for every base. A ``Partial``: whatever it holds frozen are its leaves."""

    def __call__(self, base: Predictor) -> Objective: ...


class Answer(Protocol):
    """What the base says, on the host: an ``Ask`` of ``black_box.ask``."""

    def __call__(self, x_t_BTHWC: np.ndarray, t_B: np.ndarray, condition: Condition) -> np.ndarray: ...


@flax.struct.dataclass
class Answered:
    """A batch with the base's answer to what the objective will ask about it."""

    batch: Any
    base: Prediction


def answered_task(
    init: Callable[[Key], Params],
    around: Around,
    data: DataIterator,
    ask: Answer,
    kind: PredictionKind,
    config: TrainConfig,
) -> Task:
    """A task that trains ``around(base)`` with a base that only ``ask`` knows.

    Args:
        data: its position is ``{"batch": number of updates before the one that takes the batch}``.
        ask: is called in a thread of its own.
        kind: what the base predicts.

    Raises:
        VgenError: for a training that accumulates micro-batches, or among several processes.
    """
    if config.accumulate > 1:
        raise VgenError(
            f"train.accumulate is {config.accumulate}: a black box answers whole batches, use 1 and smaller ones"
        )
    if jax.process_count() > 1:
        raise VgenError("a black box is asked by one process: train on one host")
    shapes = jax.eval_shape(init, jax.random.key(0))
    question = jax.jit(lambda around, batch, rng: _question(around, shapes, batch, rng, kind))

    def answered(batch: Any, number: int) -> Answered:
        x_t, t, condition = jax.tree.map(np.asarray, question(around, batch, step_key(config.seed, number)))
        if not all(np.isfinite(a).all() for a in jax.tree.leaves((x_t, condition)) if a.dtype.kind == "f"):
            raise VgenError(
                f"what the base is asked of batch {number} is not finite: check the data, and that the question does "
                "not depend on what is trained"
            )
        return Answered(batch, Prediction(np.asarray(ask(x_t, t, condition), np.float32), kind))

    return Task(init, Partial(_loss, around), AnsweredBatches(data, answered))


def _question(
    around: Around, params: Any, batch: Any, rng: Key, kind: PredictionKind
) -> tuple[Array, Array, Condition]:
    """What the objective asks its base; the compiler drops all the rest. ``params`` gives shapes."""
    asked: list[tuple[Array, Array, Condition]] = []

    def base(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
        asked.append((x_t_BTHWC, t_B, condition))
        return Prediction(jnp.zeros_like(x_t_BTHWC), kind)

    # Not numbers, so that a question that depends on the parameters does not pass unnoticed.
    around(base)(jax.tree.map(lambda p: jnp.full(p.shape, jnp.nan, p.dtype), params), batch, rng)
    if len(asked) != 1:
        raise VgenError(f"this objective asks its base {len(asked)} times a step: a black box answers one question")
    return asked[0]


def _loss(around: Around, params: Params, answered: Answered, rng: Key) -> tuple[Array, dict[str, Array]]:
    def base(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
        return jax.lax.stop_gradient(answered.base)

    return around(base)(params, answered.batch, rng)


class AnsweredBatches:
    """Batches with the base's answers, one of them ahead.

    Args:
        answered: asks about a batch of that number; called in a thread.

    Raises:
        VgenError: by ``next``, when the base does not answer; the position stays, so that the next ``next`` asks again.
    """

    def __init__(self, data: DataIterator, answered: Callable[[Any, int], Answered]):
        self._data, self._answered = data, answered
        self._asker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="black-box")
        self._position = dict(data.get_state())
        self._ahead: concurrent.futures.Future[tuple[Answered, dict[str, Any]]] | None = None

    def _ask(self) -> tuple[Answered, dict[str, Any]]:
        """The next batch, and the position after it."""
        number = int(self._data.get_state()["batch"])
        answered = self._answered(next(self._data), number)
        return answered, dict(self._data.get_state())

    def __next__(self) -> Answered:
        asked, self._ahead = self._ahead or self._asker.submit(self._ask), None
        try:
            answered, position = asked.result()
        except VgenError:
            self._data.set_state(self._position)
            raise
        self._position = position
        self._ahead = self._asker.submit(self._ask)
        return answered

    def get_state(self) -> dict[str, Any]:
        """The position after the last batch that was handed out."""
        return dict(self._position)

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where another iterator's ``get_state`` was."""
        if self._ahead is not None:
            concurrent.futures.wait([self._ahead])
            self._ahead = None
        self._data.set_state(state)
        self._position = dict(state)
