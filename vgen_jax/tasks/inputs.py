"""What trainings read: windows of data, and the autoencoder that belongs to them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.data.batches import BatchesConfig, make_iterator, to_batch
from vgen_jax.data.schema import DatasetInfo
from vgen_jax.files.exports import digest
from vgen_jax.types import Params, VgenError, VideoBatch

# (moving average of the parameters as NumPy arrays, export folder)
Finish = Callable[[Params, Path], None]


class Batches:
    """The data iterator as VideoBatches."""

    def __init__(self, config: BatchesConfig):
        self._iterator = make_iterator(config, jax.process_index(), jax.process_count())

    def __next__(self) -> VideoBatch:
        return to_batch(next(self._iterator))

    def get_state(self) -> dict[str, Any]:
        return self._iterator.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._iterator.set_state(state)


def batches_config(config: ConfigDict) -> BatchesConfig:
    """The data section."""
    return section(BatchesConfig, config.data, "data")


def latents_folder(folder: Path, info: DatasetInfo, data_dir: str) -> Path:
    """The export of the autoencoder; stored latents must have been made by that very one."""
    if info.latents is not None and info.latents["digest"] != digest(folder):
        raise VgenError(f"the latents in {data_dir} were made by another autoencoder than {folder}: encode them again")
    return folder
