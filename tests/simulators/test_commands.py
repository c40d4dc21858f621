"""The commands can be told apart, and a chunk does what its name says."""

import numpy as np
import pytest

from vgen_jax.data.schema import CommandBook
from vgen_jax.simulators.commands import walker_commands, walker_space


@pytest.mark.parametrize("chunk", [1, 4, 8])
def test_commands(chunk: int) -> None:
    commands = walker_commands(chunk)
    book = CommandBook(commands)  # refuses a text of two commands
    for n, command in enumerate(commands):
        assert command.id == n and len(command.actions) == chunk and len(command.texts) >= 4
        assert command.texts[0] == command.name and all(book[text] is command for text in command.texts)
    turned = {c.name: np.sum(c.actions, 0)[0] for c in commands}
    assert turned["turn left"] == pytest.approx(30) and turned["turn right"] == pytest.approx(-30)
    assert turned["turn around"] == pytest.approx(180) and turned["stay"] == 0
    actions = np.concatenate([np.asarray(c.actions) for c in commands])
    assert len({c.actions for c in commands}) == len(commands)
    assert np.abs(walker_space(chunk).to_model(actions)).max(0) == pytest.approx([3.0, 1.0, 1.0])
