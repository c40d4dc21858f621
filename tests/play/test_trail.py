"""A tree of states: the last ones in memory, older ones as files, then forgotten."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgen_jax.play.lanes import Lane
from vgen_jax.play.trail import NO_PARENT, Node, States, Trail
from vgen_jax.types import VgenError

LANES = (Lane("none", 1, 1.0),)


def grown(trail: Trail, steps: int) -> list[int]:
    """A chain of nodes whose states and frames are their numbers; what has been forgotten."""
    gone = []
    for n in range(steps):
        node = Node(0, n - 1 if n else NO_PARENT, n, (f"go {n}",), "", LANES, None, 0, (), False)
        state = {"x": jnp.full(3, n, jnp.float32), "key": jax.random.key(n), "chunks": n}
        _, some = trail.add(node, States((state,), real=("simulator", n)), np.full((1, 2, 4, 4, 3), n, np.uint8))
        gone += some
    return gone


def test_states_come_back_as_they_were_from_memory_and_from_disk(tmp_path: Path) -> None:
    trail = Trail(tmp_path / "trail", kept=5, in_memory=2)
    gone = grown(trail, 9)
    assert gone == [1, 2, 3] and trail.reachable() == [0, 4, 5, 6, 7, 8]
    assert len(list((tmp_path / "trail").glob("*.safetensors"))) == 4
    for number in trail.reachable():
        (state,), real = trail.states(number)
        assert state["chunks"] == number and isinstance(state["chunks"], int) and real == ("simulator", number)
        np.testing.assert_array_equal(state["x"], np.full(3, number))
        assert (jax.random.key_data(state["key"]) == jax.random.key_data(jax.random.key(number))).all()


def test_frames_and_commands_are_never_forgotten(tmp_path: Path) -> None:
    trail = Trail(tmp_path / "trail", kept=2, in_memory=1)
    grown(trail, 9)
    assert [node.lines[0] for node in trail.path(8)] == [f"go {n}" for n in range(9)]
    for number in range(9):
        np.testing.assert_array_equal(trail.frames(number), np.full((1, 2, 4, 4, 3), number))


def test_what_is_gone_or_never_was_is_said(tmp_path: Path) -> None:
    trail = Trail(tmp_path / "trail", kept=2, in_memory=1)
    grown(trail, 5)
    with pytest.raises(VgenError, match="step 1 cannot be gone back to: the last 2 are kept"):
        trail.states(1)
    with pytest.raises(VgenError, match="there is no step 77"):
        trail.frames(77)
    trail.close()
    assert not (tmp_path / "trail").exists()
