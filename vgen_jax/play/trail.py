"""Where a player has been: a tree of steps, with frames of all of them and states of the last ones.

States are immutable, so one can go back to any that is kept and go another way from there. The last few stay in memory,
older ones are files; beyond ``kept`` they are forgotten, all but the first. Frames and commands are never forgotten
while the trail lives: a recording needs them from the start on. Both are in a folder that ``close`` removes.
"""

import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vgen_jax.memory.files import load_memory, save_memory
from vgen_jax.play.lanes import Lane
from vgen_jax.types import VgenError

ROOT, NO_PARENT = 0, -1


class Node(NamedTuple):
    """One step.

    Attributes:
        number: of the node; those of later steps are higher.
        parent: the node that the step went on from; ``NO_PARENT`` for the start.
        depth: steps from the start.
        lines: what was commanded (``play.controls``).
        text: the caption.
        lanes: the videos that were stepped, in the order of the frames.
        place: where the walker stands: x, y (right and up on the map), heading in degrees; ``None`` if nobody knows.
        at: where its frames begin in the file.
        shape: of its frames: (videos, T, H, W, 3), the simulator's video last if there is one.
        real: whether there is one.
    """

    number: int
    parent: int
    depth: int
    lines: tuple[str, ...]
    text: str
    lanes: tuple[Lane, ...]
    place: tuple[float, float, float] | None
    at: int
    shape: tuple[int, ...]
    real: bool


class States(NamedTuple):
    """The states after a step: of each lane's World, and of the simulator if one runs along."""

    worlds: tuple[Any, ...]
    real: Any = None


class Trail:
    """See the module's docstring. One thread at a time.

    Args:
        folder: for what does not stay in memory; created, and removed by ``close``.
        kept: states that one can go back to, besides the first.
        in_memory: how many of them are not files.
    """

    def __init__(self, folder: Path, kept: int, in_memory: int):
        folder.mkdir(parents=True)
        self._folder, self._kept, self._room = folder, kept, in_memory
        self.nodes: dict[int, Node] = {}
        self._near: OrderedDict[int, States] = OrderedDict()  # in memory, the least recently used first
        self._far: OrderedDict[int, Any] = OrderedDict()  # on disk: the simulator's state, which is small
        self._like: dict[tuple[Lane, ...], Any] = {}  # a state as it was saved, by the lanes that it is of
        self._frames = (folder / "frames.bin").open("w+b")

    def add(self, node: Node, states: States, frames: np.ndarray) -> tuple[Node, list[int]]:
        """Takes a step.

        Args:
            node: without ``number``, ``at`` and ``shape``, which are found here.
            frames: uint8 (videos, T, H, W, 3).

        Returns:
            The node as it is kept, and the numbers of nodes that one can no longer go back to.
        """
        at = self._frames.seek(0, 2)
        self._frames.write(np.ascontiguousarray(frames, np.uint8).tobytes())
        node = node._replace(number=len(self.nodes), at=at, shape=frames.shape)
        self.nodes[node.number] = node
        self._near[node.number] = states
        return node, self._tidied()

    def _tidied(self) -> list[int]:
        while len(self._near) > self._room:
            number = next(iter(self._near))
            states = self._near.pop(number)
            save_memory(self._file(number), states.worlds, {})
            self._like[self.nodes[number].lanes] = states.worlds
            self._far[number] = states.real
        gone = []
        for number in [n for n in self._far if n != ROOT][: max(0, len(self._near) + len(self._far) - 1 - self._kept)]:
            del self._far[number]
            self._file(number).unlink()
            gone.append(number)
        return gone

    def _file(self, number: int) -> Path:
        return self._folder / f"{number}.safetensors"

    def states(self, number: int) -> States:
        """The states after a step.

        Raises:
            VgenError: for a node that there is not, or that has been forgotten.
        """
        if number in self._near:
            self._near.move_to_end(number)
            return self._near[number]
        self.node(number)
        if number not in self._far:
            raise VgenError(f"step {number} cannot be gone back to: the last {self._kept} are kept, and the first")
        worlds = load_memory(self._file(number), self._like[self.nodes[number].lanes], {})
        return States(worlds, self._far[number])

    def reachable(self) -> list[int]:
        """The numbers of the nodes that one can go back to."""
        return sorted([*self._near, *self._far])

    def frames(self, number: int) -> np.ndarray:
        """The frames of a step, uint8 (videos, T, H, W, 3).

        Raises:
            VgenError: for a node that there is not.
        """
        node = self.node(number)
        self._frames.seek(node.at)
        size = int(np.prod(node.shape))
        return np.frombuffer(self._frames.read(size), np.uint8).reshape(node.shape)

    def node(self, number: int) -> Node:
        """A node.

        Raises:
            VgenError: if there is none of that number.
        """
        if number not in self.nodes:
            raise VgenError(f"there is no step {number} in this run")
        return self.nodes[number]

    def path(self, number: int) -> list[Node]:
        """The nodes from the start to one."""
        found = [self.node(number)]
        while found[-1].parent != NO_PARENT:
            found.append(self.nodes[found[-1].parent])
        return found[::-1]

    def close(self) -> None:
        """Forgets everything; the folder is removed."""
        self._frames.close()
        self._near.clear()
        self._far.clear()
        shutil.rmtree(self._folder, ignore_errors=True)
