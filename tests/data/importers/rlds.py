"""TensorFlow data sets in RLDS form, written by the tests that read them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write(folder: Path, step: Any, episodes: Sequence[Sequence[dict]]) -> str:
    """A prepared data set; its folder.

    Args:
        step: (tensorflow, tfds.features) -> the features of a step.
        episodes: the steps of each.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict({"steps": tfds.features.Dataset(step(tf, tfds.features))})

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # several tests have one
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = Path(__file__).parent

        def _info(self) -> object:
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, manager: object) -> dict:
            return {"train": self._generate_examples()}

        def _generate_examples(self, *args: object) -> object:
            for number, steps in enumerate(episodes):
                yield str(number), {"steps": list(steps)}

    builder = Tiny(data_dir=str(folder))
    builder.download_and_prepare()
    return str(builder.data_path)
