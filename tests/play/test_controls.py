"""Keys become lines of an actions file, which mean what was held."""

import dataclasses
import json

import numpy as np
import pytest

from tests import tiny
from vgen_jax.data.schema import ActionSpace, DatasetInfo
from vgen_jax.play.controls import bindings, lines, typed
from vgen_jax.simulators.commands import walker_commands, walker_space
from vgen_jax.types import VgenError
from vgen_jax.worlds.actions import ActionCodec

CHUNK = 4


def info(**changes: object) -> DatasetInfo:
    spaces = {"continuous": walker_space(CHUNK), "discrete": tiny.SPACES["discrete"]}
    values = {"chunk": CHUNK, "commands": walker_commands(CHUNK), "action_spaces": spaces, **changes}
    return dataclasses.replace(tiny.info(), **values)


WALKER = ActionCodec(info(), "continuous", 8, CHUNK)


@pytest.mark.parametrize(
    ("held", "command"),
    [
        ((), "stay"), (("KeyW",), "go forward"), (("ArrowUp",), "go forward"), (("KeyS",), "step back"),
        (("KeyA",), "turn left"), (("KeyD",), "turn right"), (("KeyQ",), "strafe left"), (("KeyE",), "strafe right"),
        (("KeyW", "KeyA"), "go forward and turn left"), (("ArrowRight", "KeyW"), "go forward and turn right"),
        (("KeyA", "KeyE"), "circle left"), (("KeyW", "KeyS"), "stay"), (("KeyW", "ArrowUp"), "go forward"),
        (("KeyZ",), "stay"),
    ],
)  # fmt: skip
def test_held_keys_are_the_command_that_they_add_up_to(held: tuple[str, ...], command: str) -> None:
    assert lines(WALKER, held) == (command,)


def test_what_is_no_command_is_told_by_its_actions() -> None:
    (line,) = lines(WALKER, ("KeyW", "KeyE"))
    assert json.loads(line) == {"text": "", "actions": [[0.0, 0.5, 0.6]] * CHUNK}
    (chunk,) = WALKER.chunks([line])
    np.testing.assert_allclose(chunk.action_TA, [[0.0, 1.0, 1.0]] * CHUNK, rtol=1e-6)


def test_a_step_of_several_chunks_has_a_line_for_each() -> None:
    codec = WALKER._replace(frames=2 * CHUNK)
    assert lines(codec, ["KeyW"]) == ("go forward",) * 2
    assert typed(codec, " turn  left, go forward ") == ("turn left", "go forward")
    assert typed(codec, "stay") == ("stay",) * 2
    with pytest.raises(VgenError, match="3 commands are not a step's"):
        typed(codec, "stay, stay, stay")
    for nothing in (" ", "# turn left"):
        with pytest.raises(VgenError, match="type a command"):
            typed(codec, nothing)


def test_other_actions_have_two_keys_an_axis_as_strong_as_their_scale() -> None:
    space = ActionSpace("continuous", ("grip", "lift"), (2.0, 3.0))
    codec = ActionCodec(info(commands=(), action_spaces={"continuous": space}), "continuous", 0, CHUNK)
    assert {key.codes[0]: key.row for key in bindings(codec)} == {
        "KeyW": (2.0, 0.0), "KeyS": (-2.0, 0.0), "KeyD": (0.0, 3.0), "KeyA": (0.0, -3.0),
    }  # fmt: skip
    assert json.loads(lines(codec, ["KeyW", "KeyA"])[0])["actions"] == [[2.0, -3.0]] * CHUNK


def test_discrete_actions_are_digits_and_the_last_one_held_counts() -> None:
    space = ActionSpace("discrete", ("left", "noop", "right"))
    codec = ActionCodec(info(commands=(), action_spaces={"discrete": space}), "discrete", 0, CHUNK)
    assert [key.codes for key in bindings(codec)] == [("Digit1",), ("Digit2",), ("Digit3",)]
    assert json.loads(lines(codec, ["Digit1", "Digit3"])[0])["actions"] == [2] * CHUNK
    assert json.loads(lines(codec, [])[0])["actions"] == [1] * CHUNK
    without = codec._replace(info=info(commands=(), action_spaces={"discrete": ActionSpace("discrete", ("a", "b"))}))
    with pytest.raises(VgenError, match="hold a key"):
        lines(without, [])


def test_a_model_of_ids_is_told_the_nearest_command() -> None:
    codec = WALKER._replace(space="discrete")
    assert lines(codec, ["KeyW", "KeyA"]) == ("go forward and turn left",)
    assert lines(codec, ["KeyW", "KeyE", "KeyA"])[0] in {command.name for command in walker_commands(CHUNK)}


def test_a_model_of_free_text_has_no_keys() -> None:
    codec = ActionCodec(info(commands=(), action_spaces={}), "none", 8, CHUNK)
    assert bindings(codec) == () and typed(codec, "a cat, asleep") == ("a cat, asleep",)
    with pytest.raises(VgenError, match="driven by text"):
        lines(codec, ["KeyW"])
