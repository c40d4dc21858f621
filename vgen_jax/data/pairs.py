"""Batches of pairs of frames with nearly the same pose, from recorded episodes: deterministic and exactly resumable.

Global batch k is a function of the seed and of k alone. It takes several pairs from each of its episodes, so that other
places and directions of the same scene are in it.
"""

import dataclasses
from typing import NamedTuple

import grain
import numpy as np

from vgen_jax.data.batches import Batch, BatchIterator, rows_of
from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.revisits import apart
from vgen_jax.types import VgenError

_TRIES = 4  # pairs drawn per place that is wanted
_BATCHES = 2**31 - 1  # more than any run takes: pairs are drawn, not counted


@dataclasses.dataclass(frozen=True)
class PairsConfig:
    """What a batch of pairs holds.

    Attributes:
        data_dir, split: a folder with ``dataset.json``, and a split of it.
        batch_size: pairs B over all processes.
        per_episode: pairs from one episode; divides ``batch_size``.
        near, turn: map units and degrees between the two frames of a pair, at most.
        seed: of the choice.
        workers: loading processes; 0 loads in threads of this process.
    """

    data_dir: str
    split: str
    batch_size: int
    per_episode: int
    near: float
    turn: float
    seed: int
    workers: int

    def __post_init__(self) -> None:
        if self.per_episode < 1 or self.batch_size < 2 or self.batch_size % self.per_episode:
            raise VgenError(
                f"data.batch_size {self.batch_size} must be at least 2 and a multiple of data.per_episode "
                f"{self.per_episode}, at least 1"
            )


class Pair(NamedTuple):
    """Two frames of an episode."""

    episode: int
    first: int
    second: int


def pose_of(source: EpisodeSource, episode: int) -> np.ndarray:
    """The (T, 4) pose of an episode.

    Raises:
        VgenError: it has none.
    """
    tensors = source.head(episode).tensors
    if "extras.pose" not in tensors:
        raise VgenError(f"{source.name(episode)}: no pose, so nothing tells places apart; use data with poses")
    return tensors["extras.pose"]


def draw_pair(pose_TP: np.ndarray, near: float, turn: float, rng: np.random.Generator) -> tuple[int, int]:
    """A frame, and another one that is near it and turned little, if there is one; else the same frame twice."""
    first = int(rng.integers(len(pose_TP)))
    distance, angle = apart(pose_TP, pose_TP[first])
    like = np.flatnonzero((distance <= near) & (angle <= turn))
    others = like[like != first]
    return first, int(rng.choice(others)) if len(others) else first


class PairReader:
    """Reads a process's rows of global batches: ``reader(k)``.

    A batch is ``pair`` (B, 2, H, W, 3) uint8, ``pose`` (B, 2, 4) float32 and ``scene`` (B,) int32.
    """

    def __init__(self, source: EpisodeSource, config: PairsConfig, rows: slice):
        self._source, self._config, self._rows = source, config, rows
        self._scenes = {scene: number for number, scene in enumerate(sorted(set(source.scenes)))}

    def pairs(self, batch: int) -> list[Pair]:
        """All pairs of a global batch."""
        c, rng = self._config, np.random.default_rng((self._config.seed, batch))
        count = c.batch_size // c.per_episode
        chosen = rng.choice(len(self._source), count, replace=count > len(self._source))
        return [
            Pair(int(episode), *draw_pair(pose_of(self._source, int(episode)), c.near, c.turn, rng))
            for episode in chosen
            for _ in range(c.per_episode)
        ]

    def __call__(self, batch: int) -> Batch:
        pairs = self.pairs(batch)[self._rows]
        frames = [[self._frame(pair.episode, t) for t in (pair.first, pair.second)] for pair in pairs]
        poses = [pose_of(self._source, pair.episode)[[pair.first, pair.second]] for pair in pairs]
        scenes = [self._scenes[self._source.scenes[pair.episode]] for pair in pairs]
        return {"pair": np.asarray(frames), "pose": np.stack(poses), "scene": np.asarray(scenes, np.int32)}

    def _frame(self, episode: int, t: int) -> np.ndarray:
        return self._source.window(episode, t, t + 1)[0]


@dataclasses.dataclass(frozen=True)
class PlacesConfig:
    """Places of a split, to be told apart within their scene.

    Attributes:
        data_dir, split: a folder with ``dataset.json``, and a split of it.
        per_scene: places, at most; fewer where a scene has not so many.
        near, turn: map units and degrees between the two frames of a place, at most.
        apart, apart_turn: first frames of two places differ by at least one of these.
        seed: of the choice.
    """

    data_dir: str
    split: str
    per_scene: int
    near: float
    turn: float
    apart: float
    apart_turn: float
    seed: int


def choose_places(source: EpisodeSource, config: PlacesConfig) -> dict[str, list[Pair]]:
    """Pairs of different frames per scene, spread over its episodes; no two pairs show nearly the same view.

    Raises:
        VgenError: no scene has two places.
    """
    chosen: dict[str, list[Pair]] = {scene: [] for scene in sorted(set(source.scenes))}
    for number, (scene, pairs) in enumerate(chosen.items()):
        rng = np.random.default_rng((config.seed, number))
        episodes = np.flatnonzero(np.asarray(source.scenes) == scene)
        poses: list[np.ndarray] = []
        for episode in rng.permutation(episodes.repeat(-(-_TRIES * config.per_scene // len(episodes)))):
            if len(pairs) == config.per_scene:
                break
            pose_TP = pose_of(source, int(episode))
            first, second = draw_pair(pose_TP, config.near, config.turn, rng)
            distance, angle = apart(pose_TP[first], np.asarray(poses).reshape(-1, 4))
            if first != second and ((distance >= config.apart) | (angle >= config.apart_turn)).all():
                pairs.append(Pair(int(episode), first, second))
                poses.append(pose_TP[first])
    if max(map(len, chosen.values())) < 2:
        raise VgenError(f"{config.data_dir}: split {config.split} has no scene with two places; collect more")
    return chosen


def pair_iterator(config: PairsConfig, process_index: int, process_count: int) -> BatchIterator:
    """This process's rows of the batches, without end; see ``PairReader`` for the keys.

    Raises:
        VgenError: data that hold latents, no such split, or a batch that the processes do not divide.
    """
    source = EpisodeSource(config.data_dir, config.split).open()
    if source.info.content != "frames":
        raise VgenError(f"{config.data_dir} holds latents: a place encoder is trained on frames")
    reader = PairReader(source, config, rows_of(config.batch_size, process_index, process_count))
    return BatchIterator(grain.MapDataset.range(_BATCHES).map(reader), config.workers)
