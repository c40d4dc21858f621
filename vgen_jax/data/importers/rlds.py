"""Reads a TensorFlow data set in RLDS form (RT-1, Open X-Embodiment) once, and writes it as records.

RLDS (Ramos et al. 2021): a data set of episodes, an episode a data set of steps, step t with the observation that was
made and the action that was taken on it. So ``action[t]`` leads to observation t+1, as here, and the last step's action
leads nowhere and is left out. TensorFlow is needed for this alone; what is trained reads the records.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vgen_jax.data.importers.videos import fitted, padded
from vgen_jax.data.schema import ActionSpace, DatasetInfo, Episode, TextSpan
from vgen_jax.types import VgenError

FITS = {"crop": fitted, "pad": padded}


@dataclasses.dataclass(frozen=True)
class RldsConfig:
    """What to read; a ``data.shards.Plan``.

    Attributes:
        folder: of the prepared data set, with its ``dataset_info.json``, for example ``…/fractal20220817_data/0.1.0``.
        source: a name for the data set.
        split: what it is called here.
        source_split: what it is called there.
        first, episodes: which of its episodes.
        image: path of the frames in a step, for example ``observation/image``.
        text: path of the instruction in a step; empty for none.
        action: paths of the parts of the action in a step, joined in this order.
        names: of the joined action's dimensions.
        scale: per dimension, raw units that make 1 in model units.
        fps: of the recording.
        size: (height, width) of the stored frames, to which pictures are scaled with antialiasing.
        fit: how they get that aspect: ``crop`` them around their centre, or ``pad`` them with black (AVID §9.2).
        chunk: the grid of windows.
        episodes_per_shard: how much a kill can lose.
        workers: parallel processes; has no influence on what is written.
    """

    folder: str
    source: str
    split: str
    source_split: str
    first: int
    episodes: int
    image: str
    text: str
    action: tuple[str, ...]
    names: tuple[str, ...]
    scale: tuple[float, ...]
    fps: float
    size: tuple[int, int]
    fit: str
    chunk: int
    episodes_per_shard: int
    workers: int

    def __post_init__(self) -> None:
        for key in ("episodes", "chunk", "episodes_per_shard", "workers"):
            if getattr(self, key) < 1:
                raise VgenError(f"{key}={getattr(self, key)} must be at least 1")
        if self.first < 0 or not self.action:
            raise VgenError(f"first={self.first} must not be negative, and action={self.action} must name something")
        if self.fit not in FITS:
            raise VgenError(f"fit='{self.fit}' is unknown: use {' or '.join(FITS)}")
        ActionSpace("continuous", self.names, self.scale)

    @property
    def shards(self) -> int:
        return math.ceil(self.episodes / self.episodes_per_shard)

    def settings(self) -> dict[str, Any]:
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in ("workers", "folder")}

    def episodes_of(self, shard: int) -> range:
        """The numbers of a shard's episodes in ``source_split``."""
        first = shard * self.episodes_per_shard
        stop = min(first + self.episodes_per_shard, self.episodes)
        return range(self.first + first, self.first + stop)

    def shard_frames(self, shard: int) -> int:
        return 40 * len(self.episodes_of(shard))  # of RT-1's order; known only when they are read

    def open(self) -> "RldsRecorder":
        return RldsRecorder(self)


class RldsRecorder:
    """See ``data.shards.Recorder``. Needs the ``[tfds]`` extra.

    Raises:
        VgenError: TensorFlow or the data set is missing, or has fewer episodes.
    """

    def __init__(self, config: RldsConfig):
        try:
            import tensorflow as tf
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise VgenError("RLDS data need TensorFlow; pip install 'vgen_jax[tfds]'") from error
        tf.config.set_visible_devices([], "GPU")  # it would take all of its memory, for decoding pictures
        self._config, self._tfds = config, tfds
        info = Path(config.folder) / "dataset_info.json"
        if not info.is_file():
            raise VgenError(f"{info} is missing: name the folder of a prepared data set and its version")
        self._builder = tfds.builder_from_directory(config.folder)
        if config.source_split not in self._builder.info.splits:
            found = ", ".join(self._builder.info.splits)
            raise VgenError(f"{config.folder}: no split {config.source_split!r}, only {found}")
        count = self._builder.info.splits[config.source_split].num_examples
        if config.first + config.episodes > count:
            raise VgenError(
                f"{config.folder}: split {config.source_split} has {count} episodes, not "
                f"first + episodes = {config.first + config.episodes}"
            )

    def record(self, shard: int) -> Iterator[Episode]:
        """The shard's episodes, in the data set's order; those of a single step are left out."""
        numbers = self._config.episodes_of(shard)
        instruction = self._tfds.core.ReadInstruction(
            self._config.source_split, from_=numbers.start, to=numbers.stop, unit="abs"
        )
        data = self._builder.as_dataset(split=instruction, shuffle_files=False)
        for number, episode in zip(numbers, data, strict=True):
            steps = list(self._tfds.as_numpy(episode["steps"]))
            if len(steps) > 1:
                yield self._episode(number, steps)

    def _episode(self, number: int, steps: list[Mapping[str, Any]]) -> Episode:
        config, scene = self._config, f"{self._config.source_split}/{number}"
        frames = [self._frame(at(step, config.image, scene)) for step in steps]
        joined = [
            np.concatenate([np.asarray(at(step, key, scene), np.float32).reshape(-1) for key in config.action])
            for step in steps[:-1]
        ]
        if joined[0].shape != (len(config.names),):
            raise VgenError(f"{config.folder}: actions have {len(joined[0])} dimensions, names has {len(config.names)}")
        texts = [str(np.asarray(at(step, config.text, scene)).item(), "utf-8") for step in steps[:-1] if config.text]
        return Episode(
            source=config.source,
            simulator="none",
            simulator_version="none",
            seed=number,
            split=config.split,
            scene=scene,
            fps=config.fps,
            frames_THWC=np.stack(frames),
            actions={"continuous": np.stack(joined)},
            texts=spans(texts),
        )

    def _frame(self, picture: Any) -> np.ndarray:
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3:
            raise VgenError(f"{self._config.folder}: {self._config.image} holds no uint8 pictures (H, W, C)")
        return FITS[self._config.fit](Image.fromarray(picture), self._config.size)

    def describe(self) -> DatasetInfo:
        """What ``dataset.json`` says of the data."""
        config = self._config
        return DatasetInfo(
            source=config.source,
            simulator="none",
            simulator_version="none",
            fps=config.fps,
            frame_shape=(*config.size, 3),
            content="frames",
            chunk=config.chunk,
            action_spaces={"continuous": ActionSpace("continuous", config.names, config.scale)},
            commands=(),
            splits={},
        )

    def close(self) -> None:
        """Nothing stays open between shards."""


def at(step: Mapping[str, Any], path: str, scene: str) -> Any:
    """What stands under ``a/b`` in a step.

    Raises:
        VgenError: nothing; says what there is.
    """
    found: Any = step
    for key in path.split("/"):
        if not isinstance(found, Mapping) or key not in found:
            there = ", ".join(sorted(found)) if isinstance(found, Mapping) else "no further keys"
            raise VgenError(f"{scene}: a step has no {path}; there is: {there}")
        found = found[key]
    return found


def spans(texts: list[str]) -> tuple[TextSpan, ...]:
    """Runs of the same text; empty ones are none."""
    out, start = [], 0
    for text, run in itertools.groupby(texts):
        stop = start + len(list(run))
        if text:
            out.append(TextSpan(start, stop, text))
        start = stop
    return tuple(out)
