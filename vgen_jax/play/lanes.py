"""Lanes: the videos that are played side by side, and the World that each is of.

A lane is what a player can choose while playing: a memory, sampling steps, guidance. Each combination is a World of the
same model, with a sampler of its own to be compiled; the last few of them are kept.
"""

import dataclasses
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.play.controls import bindings, lines
from vgen_jax.types import VgenError
from vgen_jax.worlds.assembly import slow_world
from vgen_jax.worlds.memories import KINDS, MemoryConfig
from vgen_jax.worlds.slow import SlowModel
from vgen_jax.worlds.slow_world import SlowWorld
from vgen_jax.worlds.start import held_still

KEPT_WORLDS = 6
# (what is done, the share of it that is done)
Tell = Callable[[str, float], None]


@dataclasses.dataclass(frozen=True)
class Lane:
    """One of the videos.

    Attributes:
        memory: its kind, or a name of the chooser.
        steps: of the sampler.
        guidance: scale of classifier-free guidance.
    """

    memory: str
    steps: int
    guidance: float


class Progress:
    """What is being prepared, for whoever waits for it."""

    def __init__(self) -> None:
        self.doing, self.share, self._since = "", 1.0, time.monotonic()

    def tell(self, doing: str, share: float) -> None:
        """Something is being done; ``share`` of all that there is to do is behind it, in [0, 1]."""
        if share == 0.0 or not self.doing:
            self._since = time.monotonic()
        self.doing, self.share = doing, share

    def done(self) -> None:
        """Nothing is left to do."""
        self.doing, self.share = "", 1.0

    def view(self) -> dict[str, Any]:
        """As JSON: what is done, the share that is done, seconds since it began; no words where all is done."""
        doing = self.doing
        seconds = time.monotonic() - self._since if doing else 0.0
        return {"doing": doing, "share": self.share, "seconds": round(seconds, 1)}


class Worlds:
    """The Worlds of one model by lane, each made when it is first asked for. Threads may share it.

    Args:
        model: with all texts that it will be told.
        sampler: of which ``steps`` is replaced by a lane's.
        memory: of which ``kind`` is replaced by a lane's.
        past, future: f_p and f_g of a step.
        memories: the kinds to choose from.

    Raises:
        VgenError: for a kind that there is not.
    """

    def __init__(
        self,
        model: SlowModel,
        sampler: Sampler,
        memory: MemoryConfig,
        past: int,
        future: int,
        memories: tuple[str, ...],
    ):
        self.model, self.sampler, self.memory, self.past, self.future = model, sampler, memory, past, future
        self._lock = threading.Lock()
        self._worlds: OrderedDict[Lane, SlowWorld] = OrderedDict()
        self._compiled: set[Lane] = set()
        self.memories = tuple(kind for kind in memories if self._fits(kind))

    def _fits(self, kind: str) -> bool:
        """Whether the model can have that memory; one that is unknown is a fault of the config."""
        if kind not in KINDS:
            raise VgenError(f"config key play.memories has '{kind}': use some of {', '.join(KINDS)}")
        try:
            self._make(Lane(kind, self.sampler.steps, 1.0))
        except VgenError as error:
            if kind == self.memory.kind:
                raise VgenError(f"this model cannot have memory '{kind}' ({error}): choose another") from error
            return False
        return True

    def _make(self, lane: Lane) -> SlowWorld:
        sampler = dataclasses.replace(self.sampler, steps=lane.steps)
        memory = dataclasses.replace(self.memory, kind=lane.memory)  # type: ignore[arg-type]
        return slow_world(self.model, sampler, memory, self.past, self.future, lane.guidance)

    def of(self, lane: Lane) -> SlowWorld:
        """The World of a lane."""
        with self._lock:
            if lane not in self._worlds:
                self._worlds[lane] = self._make(lane)
                while len(self._worlds) > KEPT_WORLDS:
                    self._compiled.discard(self._worlds.popitem(last=False)[0])
            self._worlds.move_to_end(lane)
            return self._worlds[lane]

    def prepare(self, lane: Lane, tell: Tell) -> None:
        """Compiles all that a step of a lane needs, by stepping it; does nothing where that has been done."""
        world = self.of(lane)
        if lane in self._compiled:
            return
        tell("compiling the encoder", 0.05)
        grey = np.full((*world.size, 3), 128, np.uint8)
        start = held_still(grey, world.past)
        state = world.start(start.frames_BTHWC, start.actions, jax.random.key(0), start.id_B)
        jax.block_until_ready(jax.tree.leaves(state.past.frames_BTHWC))
        tell(f"compiling the sampler, {lane.steps} steps, memory {lane.memory}", 0.2)
        action = next(world.codec.chunks(idle_lines(world)))
        for share in (0.8, 0.95):  # the second step's state comes from the first
            state, shown = world.step(state, action)
            np.asarray(shown.frames_BTHWC)
            tell("the first frames", share)
            jax.block_until_ready(jax.tree.leaves(state.memory))
        self._compiled.add(lane)

    def compilations(self) -> dict[str, tuple[int, int]]:
        """How often each World's sampler and memory have been compiled."""
        with self._lock:
            return {str(lane): world.compilations() for lane, world in self._worlds.items()}


def idle_lines(world: SlowWorld) -> tuple[str, ...]:
    """What a step is told that only has to be taken."""
    codec = world.codec
    keys = bindings(codec)
    if keys and keys[0].line:
        return lines(codec, keys[0].codes)
    if not keys and codec.token_length:
        return ("",) * max(1, codec.frames // codec.info.chunk)
    return lines(codec, ())
