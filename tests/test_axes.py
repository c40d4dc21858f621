"""The check of axes itself: what it finds, and that it is gone afterwards."""

from typing import NamedTuple

import numpy as np
import pytest

from tests import axes
from vgen_jax.diffusion import samplers
from vgen_jax.diffusion.samplers import sample
from vgen_jax.types import Condition


class Pair(NamedTuple):
    """A result with a suffix."""

    x_BT: np.ndarray


@axes.checked
def add(x_BT: np.ndarray, y_BT: np.ndarray, scale_1: float = 1.0, condition: Condition | None = None) -> Pair:
    return Pair(np.asarray(scale_1 * (x_BT + y_BT[:, -1:])))


def test_names_say_axes() -> None:
    names = {
        "x_BTHWC": "BTHWC",
        "inside_BTHW1": "BTHW1",
        "t_B": "B",
        "N": "",
        "past": "",
        "FPS_B": "",
        "x_bt": "",
        "x_T": "",
    }
    assert {name: axes.axes_of(name) for name in names} == names


def test_what_fits_passes() -> None:
    assert add(np.ones((2, 3)), np.ones((2, 3)), condition=Condition(action_BTA=np.ones((2, 9, 4)))).x_BT.shape == (
        2,
        3,
    )


@pytest.mark.parametrize(
    ("x", "y", "condition", "named"),
    [
        ((2, 3, 1), (2, 3), None, r"add: x_BT has shape \(2, 3, 1\)"),
        ((2, 3), (2, 4), None, r"y_BT has shape \(2, 4\), but T is 3"),
        ((2, 3), (2, 3), Condition(action_BTA=np.ones((3, 9, 4))), "Condition: action_BTA .* but B is 2"),
        ((2, 3), (2, 3), Condition(action_BTA=np.ones((2, 9))), r"action_BTA has shape \(2, 9\)"),
    ],
)
def test_what_does_not_is_named(x: tuple, y: tuple, condition: Condition | None, named: str) -> None:
    with pytest.raises(axes.WrongAxes, match=named):
        add(np.ones(x), np.ones(y), condition=condition)


def test_a_result_is_checked() -> None:
    with pytest.raises(axes.WrongAxes, match="Pair: x_BT"):
        axes.checked(lambda: Pair(np.ones(3)))()


def test_functions_are_checked_wherever_they_are_imported_to_and_only_then() -> None:
    original = sample
    with axes.checking("vgen_jax.diffusion.samplers") as count:
        assert count > 1 and samplers.sample is sample is not original
    assert samplers.sample is sample is original
