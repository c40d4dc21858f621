"""Scripted paths as a rollout follows them, and the two protocols of the revisit benchmark.

*generated*: one real frame, held still; everything after it is generated from the path's recorded actions and texts.
*primed*: until every place of the path has been seen once the frames are real, and the memory is told of them chunk by
chunk, as it is of generated ones; from then on, while the path comes back, they are generated.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from vgen_jax import build
from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.revisits import revisits
from vgen_jax.data.sims.maze_view import colors_seen, has_walls
from vgen_jax.data.sims.paths import read_script
from vgen_jax.data.text import encode_text, join_texts
from vgen_jax.data.windows import future_texts
from vgen_jax.rollout import ChunkAction, SampleChunk, Start
from vgen_jax.types import Array, Key, Recalled, VgenError, VideoBatch

Protocol = Literal["generated", "primed"]
PROTOCOLS: tuple[Protocol, ...] = ("generated", "primed")
Encode = Callable[[np.ndarray], Array]  # uint8 frames (B, T, H, W, 3) -> latents


class Path(NamedTuple):
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


def load_paths(model: build.SlowModel, source: EpisodeSource, count: int, length: int, future: int) -> list[Path]:
    """The first ``count`` paths of a split, cut to frame 0 and ``length`` more.

    Args:
        future: f_g; ``length`` is a multiple of it.

    Raises:
        VgenError: too few paths, shorter ones, or one that never comes back.
    """
    if len(source) < count:
        raise VgenError(f"{source.folder}: {len(source)} paths of split {source.split}, not {count}: collect more")
    return [_load(model, source, number, length, future) for number in range(count)]


def _load(model: build.SlowModel, source: EpisodeSource, number: int, length: int, future: int) -> Path:
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
    pairs_N2 = revisits(episode.extras["pose"][: length + 1])
    if not 0 < watched < length // future or not (pairs_N2[:, 1] > watched * future).any():
        raise VgenError(f"{where}: within {length} frames this path does not come back: collect others")
    video_THWC, walls_TW = episode.frames_THWC[: length + 1], None
    if has_walls(episode.extras):
        walls_TW = colors_seen(episode.extras, video_THWC.shape[2])[: length + 1]
    return Path(number, script.name, video_THWC, action, tokens, pairs_N2, watched, walls_TW)


def start_of(paths: list[Path], past: int, encode: Encode) -> Start:
    """Every path's first frame, held still for f_p = ``past`` frames."""
    latents = encode(np.stack([path.video_THWC[:1] for path in paths])).repeat(past, axis=1)
    id_B = np.array([path.number for path in paths], np.int32)
    if paths[0].action_TA is None:
        return Start(latents, None, id_B)
    return Start(latents, np.zeros((len(paths), past, paths[0].action_TA.shape[-1]), np.float32), id_B)


def actions_of(paths: list[Path], future: int) -> Iterator[ChunkAction]:
    """What the paths do in each chunk of f_g = ``future`` frames."""
    for chunk in range((len(paths[0].video_THWC) - 1) // future):
        rows = slice(chunk * future, (chunk + 1) * future)
        tokens = [path.token_CL[chunk] for path in paths if path.token_CL is not None]
        actions = [path.action_TA[rows] for path in paths if path.action_TA is not None]
        yield ChunkAction("", np.stack(tokens) if tokens else None, np.stack(actions) if actions else None)


def watching(sample_chunk: SampleChunk, paths: list[Path], future: int, encode: Encode) -> SampleChunk:
    """``sample_chunk`` for one rollout of the protocol *primed*: it hands out real latents while a path is watched."""
    watched_B, chunks = np.array([path.watched for path in paths]), itertools.count()

    def sample(recalled: Recalled, window: VideoBatch, key_B: Key) -> Array:
        chunk = next(chunks)
        is_watched_B = chunk < watched_B
        if not is_watched_B.any():
            return sample_chunk(recalled, window, key_B)
        rows = slice(1 + chunk * future, 1 + (chunk + 1) * future)
        real = encode(np.stack([path.video_THWC[rows] for path in paths]))
        if is_watched_B.all():
            return real
        generated = sample_chunk(recalled, window, key_B)
        return jnp.where(is_watched_B[:, None, None, None, None], real, generated)

    return sample


def batches(paths: list[Path], size: int, protocol: Protocol) -> Iterator[list[Path]]:
    """The paths in batches; in *primed* those watched for as long stand together, so that little is sampled in vain."""
    ordered = sorted(paths, key=lambda path: path.watched) if protocol == "primed" else paths
    for at in range(0, len(ordered), size):
        yield ordered[at : at + size]
