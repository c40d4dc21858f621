"""A simulator as a World, on one that turns and steps along a line."""

import jax
import numpy as np
import pytest

from vgen_jax.data.units import DOOM, units_of
from vgen_jax.simulators.base import Observation
from vgen_jax.simulators.commands import walker_commands, walker_space
from vgen_jax.simulators.maze import MazeSimulator
from vgen_jax.simulators.vizdoom import VizDoomSimulator
from vgen_jax.simulators.world import SimulatorWorld
from vgen_jax.types import VgenError, World


class Line:
    """Shows where it stands; ends beyond 100."""

    name, version, fps, units = "line", "1", 8.0, DOOM
    action_space, commands = walker_space(4), walker_commands(4)

    def __init__(self) -> None:
        self.place, self.steps = 0.0, 0

    def reset(self, seed: int, scene: str) -> Observation:
        self.place = float(seed % 7)
        return self._seen()

    def step(self, action: np.ndarray) -> Observation:
        self.place += float(action[1]) * 10
        self.steps += 1
        return self._seen()

    def _seen(self) -> Observation:
        frame = np.full((8, 8, 3), int(self.place) % 256, np.uint8)
        return Observation(frame, np.zeros(4, np.float32), self.place > 100)


def test_a_state_can_be_forked_and_only_then_is_played_again() -> None:
    simulator = Line()
    world = SimulatorWorld(simulator, "line/1")
    assert isinstance(world, World)
    start = world.start(key=jax.random.key(1))
    first = int(world.look(start)[0, 0, 0])
    one, ahead = world.step(start, "go forward")
    two, _ = world.step(one, "walk ahead")
    assert simulator.steps == 8 and ahead.frames_BTHWC.shape == (1, 4, 8, 8, 3) and ahead.text == "go forward"
    np.testing.assert_array_equal(ahead.frames_BTHWC[0, :, 0, 0, 0], first + 5 * np.arange(1, 5))
    _, back = world.step(one, 2)  # "step back"
    assert simulator.steps == 8 + 4 + 4
    np.testing.assert_array_equal(back.frames_BTHWC[0, -1], world.look(start))
    np.testing.assert_array_equal(world.step(start, "go forward")[1].frames_BTHWC, ahead.frames_BTHWC)
    rows = world.step(start, np.asarray([[0.0, 0.5, 0.0]] * 4))[1]
    np.testing.assert_array_equal(rows.frames_BTHWC, ahead.frames_BTHWC)
    assert two.action_TA.shape == (8, 3)


def test_what_it_cannot_do_is_one_line() -> None:
    world = SimulatorWorld(Line(), "line/1")
    state = world.start()
    for wrong, named in ((None, "does not choose its actions"), ("fly", "unknown command"), (99, "ids go from 0 to")):
        with pytest.raises(VgenError, match=named):
            world.step(state, wrong)
    with pytest.raises(VgenError, match="rows of 3 numbers"):
        world.step(state, np.zeros(2))
    with pytest.raises(VgenError, match="starts where its seed leads"):
        world.start(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(VgenError, match="has ended here"):
        world.step(state, np.asarray([[0.0, 11.0, 0.0]]))


def test_every_walker_declares_the_units_that_its_recordings_are_judged_by() -> None:
    for simulator in (VizDoomSimulator, MazeSimulator):
        assert simulator.units == units_of(simulator.name)


def test_units_that_nobody_declared_are_said_to_be_dooms(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="absl"):
        assert units_of("a new simulator") == DOOM == units_of("a new simulator")
    assert [record.getMessage() for record in caplog.records] == [
        "simulator 'a new simulator' declares no units: poses are judged by Doom's (data/units.py)"
    ]
