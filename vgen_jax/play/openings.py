"""Where a run of the player begins: a picture, a recorded episode, or a place in a simulator that then runs along."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vgen_jax.data.records import EpisodeSource
from vgen_jax.files import pictures
from vgen_jax.play import top_down
from vgen_jax.play.top_down import Place
from vgen_jax.simulators.base import Simulator
from vgen_jax.simulators.collect import SIMULATORS
from vgen_jax.simulators.maze_layout import MazeConfig
from vgen_jax.simulators.world import SimulatorState, SimulatorWorld
from vgen_jax.types import VgenError
from vgen_jax.worlds.slow_world import SlowWorld
from vgen_jax.worlds.start import Start, StartConfig, held_still, starting_point

PICTURE, EPISODE, PLACE = "picture", "episode", "place"


class Real(NamedTuple):
    """A simulator that runs along: its World, where it stands, and the plan of its scene, ``None`` without one."""

    simulator: Simulator
    world: SimulatorWorld
    state: SimulatorState
    plan: dict[str, Any] | None

    def place(self, state: SimulatorState) -> Place:
        """Where its camera stands."""
        return top_down.observed(self.simulator, self.world.observation(state))


class Opening(NamedTuple):
    """How a run begins.

    Attributes:
        start: what the Worlds are given.
        title: in words.
        recorded: where the frames were recorded, for the run ``generate``; ``None`` for a picture.
        real: the simulator, if one runs along.
        number: of the place, if it is one of a simulator.
    """

    start: Start
    title: str
    recorded: StartConfig | None = None
    real: Real | None = None
    number: int | None = None


@dataclasses.dataclass(frozen=True)
class SimulatorConfig:
    """The true world beside the model's.

    Attributes:
        name: of ``simulators.collect.SIMULATORS``, which the model was trained on; empty for none.
        split: whose scenes are played.
        maze: another world of mazes than the simulator's own; ``None`` for that.
    """

    name: str
    split: str
    maze: MazeConfig | None

    def __post_init__(self) -> None:
        if self.name and self.name not in SIMULATORS:
            raise VgenError(f"config key simulator.name is '{self.name}': use one of {', '.join(SIMULATORS)}, or none")


class Openings:
    """The places where runs of a model can begin.

    Args:
        world: any World of the model.
        start: the pictures and episodes that the config names.
        simulator: the true world.
    """

    def __init__(self, world: SlowWorld, start: StartConfig, simulator: SimulatorConfig):
        self._world, self._start, self._simulator = world, start, simulator
        self._source = EpisodeSource(start.data_dir, start.split) if start.data_dir else None

    def view(self) -> dict[str, Any]:
        """As JSON: what there is to choose from."""
        episodes = 0 if self._source is None else len(self._source)
        return {
            "episodes": episodes, "frame": self._start.frame, "simulator": self._simulator.name,
            "picture": Path(self._start.image).name if self._start.image else "",
        }  # fmt: skip

    def simulator(self) -> Simulator | None:
        """A new simulator, whoever asks for it closes it; ``None`` where the config names none.

        Raises:
            VgenError: if its package is not installed.
        """
        if not self._simulator.name:
            return None
        chunk = self._world.codec.info.chunk
        return SIMULATORS[self._simulator.name](self._world.size, chunk, self._simulator.maze)

    def first(self, number: int, simulator: Simulator | None) -> Opening:
        """Where a run begins if nobody chooses: the config's picture or episode, or a place by its number.

        Raises:
            VgenError: if there is nothing to begin with.
        """
        if self._start.image:
            picture = pictures.read_image(self._start.image, self._world.size)
            return Opening(held_still(picture, self._world.past), Path(self._start.image).name)
        if simulator is not None:
            return self.place(number, simulator)
        if self._source is not None:
            episodes = self._start.episodes or (0,)
            return self.episode(episodes[number % len(episodes)], self._start.frame)
        raise VgenError("there is nothing to start from: give start.image, start.data_dir or simulator.name")

    def picture(self, content: bytes) -> Opening:
        """A picture that somebody sent.

        Raises:
            VgenError: if it cannot be read.
        """
        return Opening(held_still(pictures.decode_image(content, self._world.size), self._world.past), "your picture")

    def episode(self, number: int, frame: int) -> Opening:
        """A recorded episode, up to one of its frames.

        Raises:
            VgenError: if there are none, or not that one.
        """
        if self._source is None:
            raise VgenError("no episodes are at hand: start the player with --config.start.data_dir=FOLDER")
        config = dataclasses.replace(self._start, image="", episodes=(number,), frame=frame)
        return Opening(starting_point(self._world, config), f"episode {number}, frame {frame}", config)

    def place(self, number: int, simulator: Simulator | None) -> Opening:
        """A place of the simulator; the same number is the same place.

        Raises:
            VgenError: without a simulator.
        """
        if simulator is None:
            raise VgenError("no simulator is at hand: start the player with --config.simulator.name=NAME")
        scenes = simulator.scenes(self._simulator.split)
        scene = scenes[number % len(scenes)]
        world = SimulatorWorld(simulator, scene)
        state = world.start(key=jax.random.key(number))
        picture = np.array(world.look(state))
        real = Real(simulator, world, state, top_down.plan(simulator, scene))
        return Opening(held_still(picture, self._world.past), f"place {number} ({scene})", None, real, number)
