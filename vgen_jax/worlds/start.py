"""Where a rollout begins: a picture held still, or recorded frames."""

import dataclasses

import jax
import numpy as np

from vgen_jax.data.records import EpisodeSource
from vgen_jax.files import media
from vgen_jax.types import VgenError
from vgen_jax.worlds.rollout import Start
from vgen_jax.worlds.slow import SlowModel, frame_size


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


def starting_point(model: SlowModel, config: StartConfig, f_p: int) -> tuple[Start, np.ndarray]:
    """The past latents with their actions, and the last real frame of every video, uint8 (B, H, W, 3)."""
    if config.image:
        frames_BTHWC = np.repeat(read_image(model, config.image)[None, None], f_p, axis=1)
        action_BTA, id_B = np.zeros((1, f_p, model.config.action_dim), np.float32), np.zeros(1, np.int32)
    else:
        source = EpisodeSource(config.data_dir, config.split)
        pairs = [recorded_past(model, source, episode, config, f_p) for episode in config.episodes]
        frames_BTHWC, action_BTA = (np.stack(column) for column in zip(*pairs, strict=True))
        id_B = np.asarray(config.episodes, np.int32)
    encode = jax.jit(lambda encode, frames: encode(frames))
    latents = encode(model.autoencoder.encode, frames_BTHWC)
    actions = None if model.config.actions == "none" else action_BTA
    return Start(latents, actions, id_B), frames_BTHWC[:, -1]


def recorded_past(
    model: SlowModel, source: EpisodeSource, episode: int, config: StartConfig, f_p: int
) -> tuple[np.ndarray, np.ndarray]:
    """f_p recorded frames, uint8 (f_p, H, W, 3), and the actions that led to them, (f_p, A); row 0 is never read."""
    if not 0 <= episode < len(source):
        raise VgenError(f"start.episodes has {episode} but {source.folder} has {len(source)} of split {source.split}")
    first = config.frame if config.still else config.frame - f_p + 1
    if first < 0 or config.frame >= source.frames[episode]:
        frames = source.frames[episode]
        raise VgenError(f"start.frame {config.frame} leaves no {f_p} past frames among {frames}: change it")
    action_TA = np.zeros((f_p, model.config.action_dim), np.float32)
    if config.still:  # an image that does not move: zero is the action of standing still
        return np.repeat(source.window(episode, config.frame, config.frame + 1), f_p, axis=0), action_TA
    space = model.config.actions
    if space != "none" and f_p > 1:
        raw = source.head(episode).tensors[f"actions.{space}"][first : config.frame]
        action_TA[1:] = model.data.action_spaces[space].to_model(raw)
    return source.window(episode, first, config.frame + 1), action_TA


def read_image(model: SlowModel, path: str) -> np.ndarray:
    """A picture, resized to the size of the model's frames, uint8 (H, W, 3)."""
    return media.read_image(path, frame_size(model))
