"""Scripted paths as a rollout follows them, and the two protocols of the revisit benchmark.

*generated*: one real frame, held still; everything after it is generated from the path's recorded actions and texts.
*primed*: until every place of the path has been seen once the frames are real, and the memory is told of them chunk by
chunk, as it is of generated ones; from then on, while the path comes back, they are generated.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.revisits import revisits
from vgen_jax.data.text import encode_text, join_texts
from vgen_jax.data.units import units_of
from vgen_jax.data.windows import future_texts
from vgen_jax.simulators.maze_view import colors_seen, has_walls
from vgen_jax.simulators.paths import read_script
from vgen_jax.types import ChunkAction, Command, Step, VgenError
from vgen_jax.worlds.slow import SlowModel
from vgen_jax.worlds.slow_world import SlowState, SlowWorld, Watched

Protocol = Literal["generated", "primed"]
PROTOCOLS: tuple[Protocol, ...] = ("generated", "primed")


class RecordedPath(NamedTuple):
    """A recorded path.

    Attributes:
        number: its number in the split.
        name: what its script does.
        video_THWC: uint8 frames; T is a whole number of chunks and one.
        action_TA: row t leads to frame t + 1, model units; ``None`` for a model without actions.
        token_CL: tokens of each chunk's text; ``None`` for a model without text.
        pairs_N2: (i, j): frame j shows the view of frame i again.
        watched: chunks until every place has been seen once.
        walls_TW: of a maze, the colour of the wall in each column of every frame.
    """

    number: int
    name: str
    video_THWC: np.ndarray
    action_TA: np.ndarray | None
    token_CL: np.ndarray | None
    pairs_N2: np.ndarray
    watched: int
    walls_TW: np.ndarray | None = None


def load_paths(model: SlowModel, source: EpisodeSource, count: int, length: int, future: int) -> list[RecordedPath]:
    """The first ``count`` paths of a split, cut to frame 0 and ``length`` more.

    Args:
        future: f_g; ``length`` is a multiple of it.

    Raises:
        VgenError: too few paths, shorter ones, or one that never comes back.
    """
    if len(source) < count:
        raise VgenError(f"{source.folder}: {len(source)} paths of split {source.split}, not {count}: collect more")
    return [_load(model, source, number, length, future) for number in range(count)]


def _load(model: SlowModel, source: EpisodeSource, number: int, length: int, future: int) -> RecordedPath:
    episode, space, where = source.episode(number), model.config.actions, source.name(number)
    if len(episode.frames_THWC) <= length:
        raise VgenError(f"{where}: {len(episode.frames_THWC)} frames, not {length + 1}: collect longer paths")
    script = read_script(episode.extras)
    action = None
    if space != "none":
        action = model.data.action_spaces[space].to_model(episode.actions[space][:length])
    tokens, size = None, model.config.text.max_length
    if model.config.text.width:
        texts = (join_texts(future_texts(episode.texts, at, future)) for at in range(0, length, future))
        tokens = np.stack([encode_text(text, size) for text in texts])
    watched = -(-script.seen // future)
    pairs_N2 = revisits(episode.extras["pose"][: length + 1], units_of(episode.simulator))
    if not 0 < watched < length // future or not (pairs_N2[:, 1] > watched * future).any():
        raise VgenError(f"{where}: within {length} frames this path does not come back: collect others")
    video_THWC, walls_TW = episode.frames_THWC[: length + 1], None
    if has_walls(episode.extras):
        walls_TW = colors_seen(episode.extras, video_THWC.shape[2])[: length + 1]
    return RecordedPath(number, script.name, video_THWC, action, tokens, pairs_N2, watched, walls_TW)


def actions_of(paths: list[RecordedPath], future: int) -> Iterator[ChunkAction]:
    """What the paths do in each chunk of f_g = ``future`` frames."""
    for chunk in range((len(paths[0].video_THWC) - 1) // future):
        rows = slice(chunk * future, (chunk + 1) * future)
        tokens = [path.token_CL[chunk] for path in paths if path.token_CL is not None]
        actions = [path.action_TA[rows] for path in paths if path.action_TA is not None]
        yield ChunkAction("", np.stack(tokens) if tokens else None, np.stack(actions) if actions else None)


class Watching:
    """A World for one rollout of the protocol *primed*: it shows the recording while a path is watched."""

    def __init__(self, world: SlowWorld, paths: list[RecordedPath]):
        self._world, self._paths, self.start = world, paths, world.start

    def step(self, state: SlowState, command: Command | None = None) -> tuple[SlowState, Step]:
        """See ``SlowWorld.step``; the state tells which chunk it is."""
        chunk, future = state.chunks, self._world.future
        watched_B = chunk < np.array([path.watched for path in self._paths])
        if not watched_B.any():
            return self._world.step(state, command)
        rows = slice(1 + chunk * future, 1 + (chunk + 1) * future)
        seen = np.stack([path.video_THWC[rows] for path in self._paths])
        return self._world.step(state, command, Watched(seen, watched_B))


def batches(paths: list[RecordedPath], size: int, protocol: Protocol) -> Iterator[list[RecordedPath]]:
    """The paths in batches; in *primed* those watched for as long stand together, so that little is sampled in vain."""
    ordered = sorted(paths, key=lambda path: path.watched) if protocol == "primed" else paths
    for at in range(0, len(ordered), size):
        yield ordered[at : at + size]
