"""Long videos: a World, stepped with one command after another.

The next command is asked for only when what the last one led to has been handed out, so that a person may decide on it
after seeing that. Memory does not grow with the length of the video, unless the World's own does.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from vgen_jax.types import Command, Step, World


class Generated(NamedTuple):
    """A step of a rollout: its number, the state after it, and what it showed."""

    number: int
    state: Any
    step: Step


def rollout(world: World, state: Any, commands: Iterable[Command | None], first: int = 0) -> Iterator[Generated]:
    """Steps a World for as long as ``commands`` goes on. ``first`` is the number of the first step."""
    for number, command in enumerate(commands, first):
        state, step = world.step(state, command)
        yield Generated(number, state, step)
