"""A data set of frames as one of latents, which records the autoencoder's digest."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jax.tree_util import Partial

from vgen_jax.data.records import INFO_FILE, EpisodeSource, EpisodeWriter, read_info, write_text
from vgen_jax.data.schema import DatasetInfo
from vgen_jax.files.exports import digest
from vgen_jax.files.progress import progress
from vgen_jax.types import Array, Autoencoder


def encode_data(
    data_dir: Path, out: Path, autoencoder: Autoencoder, to_latents: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Writes a data set of the latents ``to_latents(frames_THWC)`` (float16) of every episode; finished shards stay."""
    info = read_info(data_dir)
    total = sum(info.frames(split) for split in info.splits)
    with progress(total=total, desc="encode", unit="frame") as bar:
        for split, shards in info.splits.items():
            source = EpisodeSource(data_dir, split)
            first = 0
            for shard in shards:
                target = out / shard.file
                if target.is_file():
                    bar.update(sum(shard.frames))
                else:
                    with EpisodeWriter(target) as writer:
                        for number in range(first, first + len(shard.frames)):
                            episode = source.episode(number)
                            latents = to_latents(episode.frames_THWC)
                            writer.write(dataclasses.replace(episode, frames_THWC=latents))
                            bar.update(len(latents))
                first += len(shard.frames)
    height, width = info.frame_shape[:2]
    shape = (height // autoencoder.factor, width // autoencoder.factor, autoencoder.channels)
    write_text(out / INFO_FILE, latent_info(info, shape, autoencoder.folder).to_json())


def latent_info(info: DatasetInfo, shape: tuple[int, int, int], autoencoder_dir: Path) -> DatasetInfo:
    """The description of the encoded data set."""
    latents = {"digest": digest(autoencoder_dir), "frame_shape": info.frame_shape}
    return dataclasses.replace(info, frame_shape=shape, content="latents", latents=latents)


def encode_frames(
    encode: Callable[[Partial, np.ndarray], Array], autoencoder: Autoencoder, frames_THWC: np.ndarray, batch: int
) -> np.ndarray:
    """float16 latents of uint8 frames, in batches of one size (the last is padded), so that one compilation serves."""
    parts = []
    for start in range(0, len(frames_THWC), batch):
        part = frames_THWC[start : start + batch]
        padded = np.pad(part, ((0, batch - len(part)), (0, 0), (0, 0), (0, 0)), mode="edge")
        parts.append(np.asarray(encode(autoencoder.encode, padded), np.float16)[: len(part)])
    return np.concatenate(parts)
