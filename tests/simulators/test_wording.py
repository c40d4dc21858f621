"""How commands are said, and what is kept for tests."""

import pytest

from vgen_jax.data.schema import CommandBook
from vgen_jax.simulators.commands import walker_commands
from vgen_jax.simulators.maze_layout import MazeConfig
from vgen_jax.types import VgenError

LONGEST = 47  # bytes that a text of 48 tokens has room for


def test_every_wording_says_one_command_and_held_out_phrases_are_no_others() -> None:
    many, held_out = walker_commands(4, "many"), walker_commands(4, "held_out")
    assert [c.name for c in many] == [c.name for c in held_out] == [c.name for c in walker_commands(4)]
    assert [c.actions for c in many] == [c.actions for c in walker_commands(4)]
    book = CommandBook(many)  # refuses a phrase of two commands
    CommandBook(held_out)
    for command in held_out:
        assert len(command.texts) >= 3
        assert not [text for text in command.texts if text in book]
    assert max(len(text) for c in (*many, *held_out) for text in c.texts) <= LONGEST


def test_every_held_out_word_is_known_from_other_phrases_of_its_command() -> None:
    for command, held_out in zip(walker_commands(4, "many"), walker_commands(4, "held_out"), strict=True):
        words = {word for text in command.texts for word in text.split()}
        assert {word for text in held_out.texts for word in text.split()} <= words


def test_an_unknown_wording_is_refused() -> None:
    with pytest.raises(VgenError, match="wording is 'rare': use few or many or held_out"):
        MazeConfig(9, 30, 12, False, False, 0, 10, 10, wording="rare")  # type: ignore[arg-type]
