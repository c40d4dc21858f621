"""One player: a run from a start, stepped lane by lane, with a tree of states to go back in."""

import dataclasses
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vgen_jax.play import top_down
from vgen_jax.play.lanes import Lane, Progress, Worlds
from vgen_jax.play.openings import Opening, Openings
from vgen_jax.play.recording import Recording, write_recording
from vgen_jax.play.trail import NO_PARENT, ROOT, Node, States, Trail
from vgen_jax.simulators.base import Simulator
from vgen_jax.types import ChunkAction, VgenError


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a player has chosen.

    Attributes:
        memory: of the video.
        beside: of a second video from the same actions; empty for none.
        steps: of the sampler.
        guidance: scale of classifier-free guidance.
        real: show the simulator too, where one runs along.
    """

    memory: str
    beside: str
    steps: int
    guidance: float
    real: bool

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The videos that are stepped."""
        kinds = dict.fromkeys((self.memory, self.beside) if self.beside else (self.memory,))
        return tuple(Lane(kind, self.steps, self.guidance) for kind in kinds)


class Scenery(NamedTuple):
    """What all players share.

    Attributes:
        worlds: by lane.
        openings: where runs begin.
        device: held by whoever computes.
        progress: of what is compiled.
        kept, in_memory: see ``play.trail.Trail``.
    """

    worlds: Worlds
    openings: Openings
    device: threading.Lock
    progress: Progress
    kept: int
    in_memory: int


class Stepped(NamedTuple):
    """What a step shows.

    Attributes:
        node: it.
        frames: uint8 (videos, T, H, W, 3), see ``Node.shape``.
        gone: nodes that one can no longer go back to.
        seconds: that it took.
        note: what the player should know; empty for nothing.
    """

    node: Node
    frames: np.ndarray
    gone: list[int]
    seconds: float
    note: str = ""


class Session:
    """See the module's docstring. Calls are taken one at a time, whatever thread they come from.

    Args:
        folder: a folder of its own, for what does not stay in memory.
        number: where the first run begins if nobody chooses.
    """

    def __init__(self, scenery: Scenery, folder: Path, choice: Choice, number: int):
        self._scenery, self._folder, self._number = scenery, folder, number
        self._lock = threading.Lock()
        self._simulator: Simulator | None = None
        self._trail: Trail | None = None
        self._runs = 0
        self._opening: Opening | None = None
        self._seed = 0
        self._answered: tuple[int, Stepped] | None = None  # the last request, for a client that did not get the answer
        self.choice = choice
        self.seen = time.monotonic()

    def begin(self, seed: int, opening: Opening | None = None, place: int | None = None) -> Stepped:
        """Begins a run.

        Args:
            seed: of the noise.
            opening: where; ``None`` for a place of the simulator, or what the config names first.
            place: its number; ``None`` for the first.

        Raises:
            VgenError: for a start that there is not.
        """
        with self._lock:
            scenery, since = self._scenery, time.perf_counter()
            if self._simulator is None:
                self._simulator = scenery.openings.simulator()
            if opening is None and place is not None:
                opening = scenery.openings.place(place, self._simulator)
            opening = opening or scenery.openings.first(self._number, self._simulator)
            start, lanes = opening.start, self.choice.lanes
            with scenery.device:
                states = tuple(self._started(lane, opening, seed) for lane in lanes)
            self._forget()
            self._runs += 1
            self._trail = Trail(self._folder / str(self._runs), scenery.kept, scenery.in_memory)
            self._opening, self._seed, self._answered = opening, seed, None
            real = opening.real if self.choice.real else None
            first = start.frames_BTHWC[0, -1:]
            place_now = real.place(real.state) if real is not None else self._unmoved(lanes[0])
            node = Node(
                0, NO_PARENT, 0, (), opening.title, lanes, place_now, 0, (), real is not None
            )  # fmt: skip
            frames = np.stack([first] * (len(lanes) + (real is not None)))
            node, gone = self._trail.add(node, States(states, None if real is None else real.state), frames)
            return Stepped(node, frames, gone, time.perf_counter() - since)

    def again(self, seed: int) -> Stepped:
        """Begins a run where the last one began."""
        return self.begin(seed, self._opening)

    def _started(self, lane: Lane, opening: Opening, seed: int) -> Any:
        start = opening.start
        self._scenery.worlds.prepare(lane, self._scenery.progress.tell)
        self._scenery.progress.done()
        world = self._scenery.worlds.of(lane)
        return world.start(start.frames_BTHWC, start.actions, jax.random.key(seed), start.id_B)

    def _unmoved(self, lane: Lane) -> top_down.Place | None:
        codec = self._scenery.worlds.of(lane).codec
        return None if top_down.walker_names(codec.info, codec.space) is None else top_down.ORIGIN

    def _forget(self) -> None:
        if self._trail is not None:
            self._trail.close()

    @property
    def trail(self) -> Trail:
        """The tree of the run at hand.

        Raises:
            VgenError: before the first one.
        """
        if self._trail is None:
            raise VgenError("no run has begun: begin one first")
        return self._trail

    def step(self, parent: int, lines: Sequence[str], request: int = 0) -> Stepped:
        """Goes on from a node; lanes that it has no state of begin their memory there.

        Args:
            lines: what is done (``play.controls``).
            request: a number, not 0, by which the same request is known when it comes again.

        Raises:
            VgenError: for an unknown command, or a node that one cannot go on from.
        """
        with self._lock:
            if request and self._answered is not None and self._answered[0] == request:
                return self._answered[1]
            since, trail, lanes = time.perf_counter(), self.trail, self.choice.lanes
            before, node = trail.states(parent), trail.node(parent)
            codec = self._scenery.worlds.of(lanes[0]).codec
            actions = list(codec.chunks(iter(lines)))
            if len(actions) != 1:
                raise VgenError(f"{len(lines)} commands are not a step's, which has {codec.frames // codec.info.chunk}")
            states, shown = [], []
            with self._scenery.device:
                for lane in lanes:
                    state, frames = self._stepped(lane, node, before, actions[0])
                    states.append(state)
                    shown.append(frames)
            place = top_down.reckoned(codec, node.place, actions[0].action_TA)
            real_state, real_frames, note = self._real(before, actions[0])
            if real_frames is not None and self._opening is not None and self._opening.real is not None:
                shown.append(real_frames)
                place = self._opening.real.place(real_state)
            text = actions[0].text
            node = Node(
                0, parent, node.depth + 1, tuple(lines), text, lanes, place, 0, (), real_frames is not None
            )  # fmt: skip
            video = np.stack(shown)
            node, gone = trail.add(node, States(tuple(states), real_state), video)
            stepped = Stepped(node, video, gone, time.perf_counter() - since, note)
            self._answered = (request, stepped)
            return stepped

    def _stepped(self, lane: Lane, node: Node, before: States, action: ChunkAction) -> tuple[Any, np.ndarray]:
        """A lane's state after a step, and its frames (T, H, W, 3)."""
        worlds = self._scenery.worlds
        worlds.prepare(lane, self._scenery.progress.tell)
        self._scenery.progress.done()
        world = worlds.of(lane)
        own = [state for other, state in zip(node.lanes, before.worlds, strict=True) if other.memory == lane.memory]
        state = own[0] if own else world.with_memory(before.worlds[0])
        state, step = world.step(state, action)
        return state, np.asarray(step.frames_BTHWC)[0]

    def _real(self, before: States, action: ChunkAction) -> tuple[Any, np.ndarray | None, str]:
        """The simulator's state after a step, its frames, and why there are none."""
        opening = self._opening
        if opening is None or opening.real is None or before.real is None:
            return None, None, ""
        codec = self._scenery.worlds.of(self.choice.lanes[0]).codec
        command: Any = action.text if action.action_TA is None else codec.raw(action.action_TA)
        try:
            state, step = opening.real.world.step(before.real, command)
        except VgenError as error:
            return None, None, f"the simulator stops: {error}"
        if not self.choice.real:
            return state, None, ""
        return state, np.asarray(step.frames_BTHWC)[0], ""

    def look(self, number: int) -> Stepped:
        """A node again, with its frames."""
        with self._lock:
            return Stepped(self.trail.node(number), self.trail.frames(number), [], 0.0)

    def choose(self, choice: Choice) -> None:
        """What the next steps are made with; compiles what they need.

        Raises:
            VgenError: for a memory that the model cannot have.
        """
        with self._lock, self._scenery.device:
            for lane in choice.lanes:
                if lane.memory not in self._scenery.worlds.memories:
                    known = ", ".join(self._scenery.worlds.memories)
                    raise VgenError(f"memory '{lane.memory}' is not to be had here: use one of {known}")
            for lane in choice.lanes:
                self._scenery.worlds.prepare(lane, self._scenery.progress.tell)
            self._scenery.progress.done()
            self.choice = choice

    def view(self) -> dict[str, Any]:
        """As JSON: the run at hand."""
        opening = self._opening
        plan = opening.real.plan if opening is not None and opening.real is not None else None
        reachable = set(self.trail.reachable())
        path = [node for node in self.trail.nodes.values() if node.number in reachable]
        return {
            "seed": self._seed, "title": "" if opening is None else opening.title, "plan": plan,
            "choice": dataclasses.asdict(self.choice), "last": max(self.trail.nodes),
            "nodes": [{"node": n.number, "parent": n.parent, "depth": n.depth, "text": n.text} for n in path],
            "has_real": opening is not None and opening.real is not None,
            "place": None if opening is None else opening.number,
        }  # fmt: skip

    def record(self, number: int, folder: Path) -> Recording:
        """Writes the videos from the start to a node, and what makes them again."""
        with self._lock:
            if self._opening is None:
                raise VgenError("no run has begun: begin one first")
            path = self.trail.path(number)
            if path[-1].number == ROOT:
                raise VgenError("there is nothing to save yet: take a step first")
            return write_recording(folder, self._scenery.worlds, self._opening, self._seed, self.trail, path)

    def close(self) -> None:
        """Frees everything."""
        with self._lock:
            self._forget()
            if self._simulator is not None:
                self._simulator.close()
                self._simulator = None
