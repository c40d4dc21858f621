"""Where a rollout begins: a picture held still, or recorded frames."""

import dataclasses
from typing import NamedTuple

import numpy as np

from vgen_jax.data.records import EpisodeSource
from vgen_jax.files import pictures
from vgen_jax.types import VgenError
from vgen_jax.worlds.leap import LeapWorld
from vgen_jax.worlds.rafi import RafiWorld
from vgen_jax.worlds.slow_world import SlowWorld

ModelWorld = SlowWorld | LeapWorld | RafiWorld


@dataclasses.dataclass(frozen=True)
class StartConfig:
    """The frames that a rollout begins with.

    Attributes:
        image: a picture to start from, held still for f_p frames; empty to start from data.
        data_dir, split: recorded frames to start from.
        episodes: one video per episode.
        frame: the last past frame's number in each episode.
        still: hold that frame still for f_p frames instead of using the f_p frames that lead to it.
    """

    image: str
    data_dir: str
    split: str
    episodes: tuple[int, ...]
    frame: int
    still: bool


class Start(NamedTuple):
    """What ``World.start`` is given.

    Attributes:
        frames_BTHWC: uint8, f_p of each video.
        actions: those between them, raw units; ``None`` for frames that stand still, or for a world without actions.
        id_B: a number per video.
    """

    frames_BTHWC: np.ndarray
    actions: np.ndarray | None
    id_B: np.ndarray


def held_still(picture_HWC: np.ndarray, past: int) -> Start:
    """A picture, uint8, that stands still for ``past`` frames: video 0."""
    return Start(np.repeat(picture_HWC[None, None], past, axis=1), None, np.zeros(1, np.int32))


def starting_point(world: ModelWorld, config: StartConfig) -> Start:
    """The frames that the config names.

    Raises:
        VgenError: for a file, an episode or a frame that is not there.
    """
    if config.image:
        return held_still(pictures.read_image(config.image, world.size), world.past)
    source = EpisodeSource(config.data_dir, config.split)
    pairs = [recorded_past(world, source, episode, config) for episode in config.episodes]
    actions = [raw for _, raw in pairs if raw is not None]
    frames_BTHWC = np.stack([frames_THWC for frames_THWC, _ in pairs])
    return Start(frames_BTHWC, np.stack(actions) if actions else None, np.asarray(config.episodes, np.int32))


def recorded_past(
    world: ModelWorld, source: EpisodeSource, episode: int, config: StartConfig
) -> tuple[np.ndarray, np.ndarray | None]:
    """f_p recorded frames, uint8 (f_p, H, W, 3), and the actions between them, raw; ``None`` where they stand still."""
    f_p, space = world.past, world.codec.space
    if not 0 <= episode < len(source):
        raise VgenError(f"start.episodes has {episode} but {source.folder} has {len(source)} of split {source.split}")
    first = config.frame if config.still else config.frame - f_p + 1
    if first < 0 or config.frame >= source.frames[episode]:
        frames = source.frames[episode]
        raise VgenError(f"start.frame {config.frame} leaves no {f_p} past frames among {frames}: change it")
    if config.still:
        return np.repeat(source.window(episode, config.frame, config.frame + 1), f_p, axis=0), None
    frames_THWC = source.window(episode, first, config.frame + 1)
    if space == "none" or f_p == 1:
        return frames_THWC, None
    return frames_THWC, source.head(episode).tensors[f"actions.{space}"][first : config.frame]
