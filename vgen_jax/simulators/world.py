"""A simulator as a World: what a model's users step can be the true world as well.

A simulator runs one way, and a World's states can be gone back to. So a state is what leads to it, the seed and the
actions since; stepping from another state than the last one plays those actions again, which takes as long as it took.
"""

import flax.struct
import jax
import numpy as np

from vgen_jax.data.schema import CommandBook
from vgen_jax.simulators.base import Observation, Simulator
from vgen_jax.types import Array, ChunkAction, Command, Key, Step, VgenError


@flax.struct.dataclass
class SimulatorState:
    """The seed of the start, and the raw actions since, (T, A). It grows by a row a frame."""

    seed: int
    action_TA: np.ndarray


class SimulatorWorld:
    """One video at a time, on one scene. A step is a command, or rows of actions.

    Attributes:
        fps, units: the simulator's.
        commands: the names of the commands; an id is a place here.
    """

    def __init__(self, simulator: Simulator, scene: str):
        self._simulator, self._scene = simulator, scene
        self._book = CommandBook(simulator.commands)
        self._at: SimulatorState | None = None
        self._last: Observation | None = None  # of the state that it is at
        self.commands = tuple(command.name for command in simulator.commands)
        self.fps, self.units = simulator.fps, simulator.units

    def start(
        self,
        frames: np.ndarray | None = None,
        actions: np.ndarray | None = None,
        key: Key | None = None,
        id_B: np.ndarray | None = None,
    ) -> SimulatorState:
        """A place of the scene that the key decides; a simulator cannot start from a picture.

        Raises:
            VgenError: for frames or actions.
        """
        if frames is not None or actions is not None:
            raise VgenError("a simulator starts where its seed leads: give it a key, and no frames or actions")
        key = jax.random.key(0) if key is None else key
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        return SimulatorState(seed, np.zeros((0, self._simulator.action_space.width), np.float32))

    def look(self, state: SimulatorState) -> np.ndarray:
        """What is seen before anything is done from a state, uint8 (H, W, 3)."""
        return self.observation(state).frame_HWC

    def observation(self, state: SimulatorState) -> Observation:
        """What is seen from a state, and where the camera stands; nothing is done."""
        return self._play(state) if self._at is not state or self._last is None else self._last

    def step(self, state: SimulatorState, command: Command | None = None) -> tuple[SimulatorState, Step]:
        """See ``World``.

        Raises:
            VgenError: without a command, for an unknown one, or where the recording has ended.
        """
        text, rows_TA = self._rows(command)
        if self._at is not state:
            self._play(state)
        frames = [self._seen(self._simulator.step(row)).frame_HWC for row in rows_TA]
        self._at = SimulatorState(state.seed, np.concatenate([state.action_TA, rows_TA]))
        return self._at, Step(np.stack(frames)[None], rows_TA[None], text)

    def _play(self, state: SimulatorState) -> Observation:
        """Leads the simulator to a state."""
        self._at = None
        seen = self._last = self._simulator.reset(state.seed, self._scene)
        for row in state.action_TA:
            seen = self._seen(self._simulator.step(row))
        self._at = state
        return seen

    def _seen(self, seen: Observation) -> Observation:
        if seen.ended:
            self._at = None
            raise VgenError("the recording has ended here (death, an exit or a teleporter): go another way")
        self._last = seen
        return seen

    def _rows(self, command: Command | None) -> tuple[str, np.ndarray]:
        """A command's text and its raw actions, (T, A)."""
        if command is None or isinstance(command, ChunkAction):
            raise VgenError(f"a simulator does not choose its actions: give step one of {', '.join(self.commands)}")
        if isinstance(command, (int, np.integer)):
            if not 0 <= command < len(self.commands):
                raise VgenError(f"command {command} is unknown: ids go from 0 to {len(self.commands) - 1}")
            command = self.commands[int(command)]
        if isinstance(command, str):
            return command, np.asarray(self._book[command].actions, np.float32)
        return "", self._given(np.asarray(command, np.float32))

    def _given(self, rows: Array) -> np.ndarray:
        rows_TA = np.atleast_2d(np.asarray(rows))
        if rows_TA.ndim != 2 or rows_TA.shape[1] != self._simulator.action_space.width:
            raise VgenError(
                f"actions of shape {rows.shape} do not fit: give rows of {self._simulator.action_space.width} numbers"
            )
        return rows_TA
