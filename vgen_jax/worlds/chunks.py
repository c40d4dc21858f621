"""One chunk of a video in latent space: what conditions its window, where a video opens, which keys it draws from.

Every random number is a function of (key, chunk, video) alone. So the past frames, the memory and the number of chunks
are all that has to be known to go on, in another process as well.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vgen_jax.types import Array, ChunkAction, Key, Past, VgenError, VideoBatch

NOISE_STREAM, MEMORY_STREAM, LORA_STREAM = 0, 1, 2


def video_keys(rng: Key, stream: int, number: int | Array, id_B: Array) -> Key:
    """A key per video from (stream, chunk, video id) alone."""
    rng = jax.random.fold_in(jax.random.fold_in(rng, stream), number)
    return jax.vmap(jax.random.fold_in, (None, 0))(rng, jnp.asarray(id_B))


def chunk_condition(past: Past, action: ChunkAction, frames: int) -> VideoBatch:
    """The conditioning of a window of ``past`` and ``frames`` new ones; its video is left empty."""
    b, f_p = past.frames_BTHWC.shape[:2]
    empty_BTHWC = np.zeros((b, f_p + frames, 0, 0, 0))
    past_BT = np.broadcast_to(np.arange(f_p + frames) < f_p, (b, f_p + frames))
    token = None if action.token_L is None else np.broadcast_to(action.token_L, (b, action.token_L.shape[-1]))
    future_BTA = coming(action, past)
    if past.action_BTA is None or future_BTA is None:
        return VideoBatch(empty_BTHWC, past_BT, token)
    action_BTA = np.concatenate([past.action_BTA, future_BTA], axis=1).astype(np.float32)
    valid_BT = np.concatenate([past.action_valid_BT, np.ones((b, frames), bool)], axis=1)
    action_BTA[:, 0], valid_BT[:, 0] = 0.0, False
    return VideoBatch(empty_BTHWC, past_BT, token, action_BTA, valid_BT)


def coming(action: ChunkAction, past: Past) -> np.ndarray | None:
    """The actions that lead to a chunk's frames, (B, f_g, A), model units; ``None`` where there are none."""
    if past.action_BTA is None or action.action_TA is None:
        return None
    return np.broadcast_to(action.action_TA, (past.frames_BTHWC.shape[0], *action.action_TA.shape[-2:]))


def opening(frames_BTHWC: jax.Array, action_BTA: np.ndarray | None) -> Past:
    """Latents that open a video; all of their actions (model units) are known but the first."""
    if action_BTA is None:
        return Past(frames_BTHWC)
    valid_BT = np.broadcast_to(np.arange(action_BTA.shape[1]) > 0, action_BTA.shape[:2])
    return Past(frames_BTHWC, action_BTA, valid_BT)


def fitting_frames(frames: np.ndarray, size: tuple[int, int], past: int) -> np.ndarray:
    """Frames that a video is to open with as (B, T, H, W, 3), T one or ``past``: of more the last count.

    Raises:
        VgenError: for frames of another size or type, or too few of them.
    """
    frames_BTHWC = frames[None, None] if frames.ndim == 3 else frames
    wanted = (*size, 3)
    if frames_BTHWC.ndim != 5 or frames_BTHWC.shape[2:] != wanted or frames_BTHWC.dtype != np.uint8:
        raise VgenError(
            f"the frames are {frames.dtype} {frames.shape}: this world starts with uint8 pictures of "
            f"{wanted} or videos (B, T, *{wanted}); files.pictures.read_image reads one in that size"
        )
    if 1 < frames_BTHWC.shape[1] < past:
        raise VgenError(f"{frames_BTHWC.shape[1]} frames are too few: give one picture, or {past} and more")
    return frames_BTHWC[:, -past:]


def identities(videos: int, key: Key | None, id_B: np.ndarray | None) -> tuple[Key, np.ndarray]:
    """What all that is random depends on, as ``World.start`` takes it: by default key 0 and the videos' places."""
    number_B = np.arange(videos, dtype=np.int32) if id_B is None else np.asarray(id_B)
    return jax.random.key(0) if key is None else key, number_B
