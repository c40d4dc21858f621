"""The episode contract and the command book."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from vgen_jax.data.schema import (
    SCHEMA_VERSION,
    ActionSpace,
    Command,
    CommandBook,
    DatasetInfo,
    ShardInfo,
    TextSpan,
    validate,
)
from vgen_jax.types import VgenError

GO = Command(0, "go forward", ("go forward", "walk ahead"), ((0.0, 1.0),))
LEFT = Command(1, "turn left", ("turn left", "look left"), ((5.0, 0.0),))


def test_a_paraphrase_finds_its_command() -> None:
    book = CommandBook([GO, LEFT])
    assert book["Walk  AHEAD "] is GO and book["turn left"] is LEFT
    assert "look left" in book and "jump" not in book


def test_an_unknown_text_lists_the_commands() -> None:
    with pytest.raises(VgenError, match="'jump'.*go forward, turn left"):
        CommandBook([GO, LEFT])["jump"]


def test_a_text_of_two_commands_is_refused() -> None:
    with pytest.raises(VgenError, match="walk ahead"):
        CommandBook([GO, dataclasses.replace(LEFT, texts=("Walk ahead",))])


def test_model_units() -> None:
    space = ActionSpace("continuous", ("turn", "forward"), (10.0, 0.5))
    np.testing.assert_array_equal(space.to_model(np.array([[5.0, 0.5]])), [[0.5, 1.0]])
    ids = ActionSpace("discrete", ("a", "b", "c"))
    np.testing.assert_array_equal(ids.to_model(np.array([2, 0])), [[0, 0, 1], [1, 0, 0]])
    with pytest.raises(VgenError, match="id 3"):
        ids.to_model(np.array([3]))
    with pytest.raises(VgenError, match="scale"):
        ActionSpace("continuous", ("turn",), (0.0,))


def _with(episode, **changes):
    return dataclasses.replace(episode, **changes)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda e: {"frames_THWC": e.frames_THWC[:1]}, "T >= 2"),
        (lambda e: {"frames_THWC": e.frames_THWC.astype(np.float32)}, "float32"),
        (lambda e: {"frames_THWC": e.frames_THWC[:-1]}, "16 continuous actions for 16 frames; expected 15"),
        (lambda e: {"actions": {"continuous": e.actions["continuous"].astype(np.float64)}}, "float64"),
        (lambda e: {"actions": {"continuous": np.where(e.actions["continuous"] == 9, np.nan, 0)
                                .astype(np.float32)}}, "action 9 is not finite"),
        (lambda e: {"actions": {"discrete": e.actions["discrete"] - 5}}, "negative"),
        (lambda e: {"actions": {"joystick": e.actions["discrete"]}}, "joystick"),
        (lambda e: {"texts": (TextSpan(0, 17, "go"),)}, r"\[0, 17\)"),
        (lambda e: {"texts": (TextSpan(0, 4, "go"), TextSpan(3, 5, "go"))}, r"\[3, 5\)"),
        (lambda e: {"extras": {"pose": e.extras["pose"][:-1]}}, "pose"),
        (lambda e: {"extras": {"pose": np.full((17, 4), np.inf, np.float32)}}, "row 0"),
        (lambda e: {"fps": 0.0}, "fps"),
    ],
)  # fmt: skip
def test_faults_are_named(episode: Callable, change: Callable, fault: str) -> None:
    good = episode(7)
    validate(good)
    with pytest.raises(VgenError, match=fault):
        validate(_with(good, **change(good)))


def _info() -> DatasetInfo:
    return DatasetInfo(
        source="s", simulator="v", simulator_version="1", fps=8.75, frame_shape=(64, 64, 3), content="frames", chunk=4,
        action_spaces={"continuous": ActionSpace("continuous", ("turn",), (5.0,))}, commands=(GO, LEFT),
        splits={"train": (ShardInfo("a", (17, 9), ("x", "y")),)},
    )  # fmt: skip


def test_info_cycles_through_json() -> None:
    assert DatasetInfo.from_json(_info().to_json(), "here") == _info()
    assert _info().frames("train") == 26


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            f'"schema_version": {SCHEMA_VERSION}',
            '"schema_version": 1',
            f"version 1, this library reads {SCHEMA_VERSION}",
        ),
        ('"chunk": 4', '"chnuk": 4', "chnuk"),
        ("{", "", "not valid JSON"),
        ('"kind": "continuous"', '"sort": "continuous"', "malformed"),
    ],
)
def test_a_wrong_info_is_refused(old: str, new: str, fault: str) -> None:
    with pytest.raises(VgenError, match=f"here.*{fault}"):
        DatasetInfo.from_json(_info().to_json().replace(old, new, 1), "here")
