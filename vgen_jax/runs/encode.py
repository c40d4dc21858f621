"""Run ``encode``: a data set of frames becomes one of latents, so that slow learning need not run the autoencoder.

Latents are stored as float16, scaled to unit variance. The data set records the autoencoder's digest, and training
refuses latents of another one.
"""

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from vgen_jax.files.run_folder import keep_config
from vgen_jax.worlds.autoencoder import load_autoencoder
from vgen_jax.worlds.latents import encode_data, encode_frames


def run(config: ConfigDict, workdir: Path) -> None:
    """Encodes every split of ``config.data_dir`` with ``config.autoencoder_dir``; finished shards are skipped."""
    keep_config(config, workdir)
    autoencoder = load_autoencoder(Path(config.autoencoder_dir))
    encode = jax.jit(lambda encode, frames: encode(frames))

    def to_latents(frames_THWC: np.ndarray) -> np.ndarray:
        return encode_frames(encode, autoencoder, frames_THWC, config.batch_frames)

    encode_data(Path(config.data_dir), workdir, autoencoder, to_latents)
