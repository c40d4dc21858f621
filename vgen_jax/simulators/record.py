"""Plays one episode: commands in, frames, poses, actions and texts out."""

import math
from collections.abc import Callable

import numpy as np

from vgen_jax.data.schema import Episode, TextSpan
from vgen_jax.simulators.base import Observation, Simulator
from vgen_jax.simulators.explorer import Sight

# Names the next command after what was seen of the last one, and the poses (T, 4) up to now; ``None`` gives up.
Choose = Callable[[Sight, np.ndarray], str | None]
# Acts on a simulator, and says what is seen then.
Prepare = Callable[[Simulator], Observation]


def play(
    simulator: Simulator,
    scene: str,
    seed: int,
    split: str,
    steps: int,
    chunk: int,
    choose: Choose,
    prepare: tuple[Prepare, ...] = (),
) -> Episode | None:
    """An episode of ``steps`` actions; ``None`` where the simulator ended it early or ``choose`` gave it up.

    Args:
        seed: of the start and of the texts.
        steps: a multiple of ``chunk``, the steps of a command.
        prepare: what is done, after the start and before the first frame, one after the other.
    """
    book = {command.name: command for command in simulator.commands}
    rng = np.random.default_rng((seed, 1))
    seen = simulator.reset(seed, scene)
    for first_do in prepare:
        seen = first_do(simulator)
        if seen.ended:
            return None
    frames = np.empty((steps + 1, *seen.frame_HWC.shape), np.uint8)
    poses = np.empty((steps + 1, 4), np.float32)
    actions = np.empty((steps, len(simulator.action_space.names)), np.float32)
    ids = np.empty(steps, np.int32)
    texts = []
    frames[0], poses[0] = seen.frame_HWC, seen.pose
    moved = math.inf
    for first in range(0, steps, chunk):
        name = choose(Sight(simulator.clearance(), moved, simulator.units), poses[: first + 1])
        if name is None:
            return None
        command = book[name]
        texts.append(TextSpan(first, first + chunk, command.texts[rng.integers(len(command.texts))]))
        actions[first : first + chunk] = command.actions
        ids[first : first + chunk] = command.id
        for t in range(first, first + chunk):
            seen = simulator.step(actions[t])
            if seen.ended:
                return None
            frames[t + 1], poses[t + 1] = seen.frame_HWC, seen.pose
        moved = float(np.hypot(*(poses[first + chunk, :2] - poses[first, :2])))
    return Episode(
        source=simulator.name,
        simulator=simulator.name,
        simulator_version=simulator.version,
        seed=seed,
        split=split,
        scene=scene,
        fps=simulator.fps,
        frames_THWC=frames,
        actions={"continuous": actions, "discrete": ids},
        texts=tuple(texts),
        extras={"pose": poses, **simulator.extras(poses)},
    )
