"""ControlNet as a function to a Predictor: a frozen network that takes additions inside, and one that says which."""

from typing import Protocol

from vgen_jax.compose.avid import unconditioned
from vgen_jax.types import Array, Condition, Prediction, Predictor


class Controllable(Protocol):
    """A Predictor that adds ``control`` to features of its own. Not a black box: its parameters are at hand."""

    def __call__(
        self, x_t_BTHWC: Array, t_B: Array, condition: Condition, control: tuple[Array, ...]
    ) -> Prediction: ...


class Control(Protocol):
    """What to add, for the condition with its actions."""

    def __call__(self, x_t_BTHWC: Array, t_B: Array, condition: Condition) -> tuple[Array, ...]: ...


def controlled(base: Controllable, control: Control) -> Predictor:
    """The base, run without actions, under control."""

    def predict(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
        added = control(x_t_BTHWC, t_B, condition)
        return base(x_t_BTHWC, t_B, unconditioned(condition), added)

    return predict
