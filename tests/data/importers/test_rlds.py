"""RLDS data as records: a small data set that the test writes, read back through windows."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.importers import rlds
from vgen_jax.data.check import check_data
from vgen_jax.data.importers.rlds import FITS, RldsConfig, RldsRecorder, at, spans
from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.schema import TextSpan
from vgen_jax.data.shards import collect_shards
from vgen_jax.data.windows import WindowIndex, WindowReader
from vgen_jax.types import VgenError

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_datasets") is None, reason="no TensorFlow: pip install -e '.[tfds]'"
)
LENGTHS = (6, 9, 1, 7)


def step(episode: int, t: int) -> dict:
    """Everything in a step says which one it is."""
    return {
        "observation": {"image": np.full((24, 32, 3), 20 * episode + t, np.uint8), "words": f"go {episode} {t // 5}"},
        "action": {"move": np.asarray([t, episode], np.float32), "grip": np.float32(t / 2)},
        "is_first": t == 0,
        "is_last": t == LENGTHS[episode] - 1,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    def features(tf: Any, of: Any) -> dict:
        return {
            "observation": {"image": of.Image(shape=(24, 32, 3)), "words": of.Text()},
            "action": {"move": of.Tensor(shape=(2,), dtype=tf.float32), "grip": tf.float32},
            "is_first": tf.bool,
            "is_last": tf.bool,
        }

    episodes = [[step(number, t) for t in range(length)] for number, length in enumerate(LENGTHS)]
    return rlds.write(tmp_path_factory.mktemp("tfds"), features, episodes)


def config(folder: str, **changes: object) -> RldsConfig:
    values = {
        "folder": folder, "source": "tiny", "split": "train", "source_split": "train", "first": 0, "episodes": 4,
        "image": "observation/image", "text": "observation/words", "action": ("action/move", "action/grip"),
        "names": ("t", "episode", "grip"), "scale": (1.0, 2.0, 0.5), "fps": 3.0, "size": (16, 16),
        "fit": "crop", "chunk": 1, "episodes_per_shard": 2, "workers": 1,
    }  # fmt: skip
    return RldsConfig(**{**values, **changes})


@needs_tensorflow
@pytest.mark.slow
def test_import(folder: str, tmp_path: Path) -> None:
    report = collect_shards(tmp_path, config(folder))
    assert not check_data(tmp_path).faults
    source = EpisodeSource(tmp_path, "train")
    assert sorted(source.frames) == [6, 7, 9] and report.frames == 22, "the episode of one step is left out"
    read, index = WindowReader(source, 2, 2, "continuous", 16, False), WindowIndex(source.frames, 1, 2, 2)
    for n in range(len(index)):
        sample = read(index[n], n)
        shown = sample["video"][:, 0, 0, 0].astype(int)  # 20 episode + t
        raw = sample["action"][1:] * np.asarray([1.0, 2.0, 0.5])
        np.testing.assert_allclose(raw[:, 0], shown[:-1] % 20)  # the action taken at frame t leads to frame t+1
        np.testing.assert_allclose(raw[:, 1], shown[:-1] // 20)
        np.testing.assert_allclose(raw[:, 2], shown[:-1] % 20 / 2)
    longest = source.episode(source.frames.index(9))
    assert longest.texts == (TextSpan(0, 5, "go 1 0"), TextSpan(5, 8, "go 1 1")) and longest.fps == 3.0


@needs_tensorflow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"episodes": 5}, "has 4 episodes"), ({"source_split": "test"}, "no split 'test', only train"),
        ({"folder": "nowhere"}, "nowhere/dataset_info.json is missing"),
        ({"action": ("action/turn",)}, "no action/turn; there is: grip, move"),
        ({"names": ("t",), "scale": (1.0,)}, "3 dimensions, names has 1"),
        ({"image": "observation/words"}, "no uint8 pictures"),
    ],
)  # fmt: skip
def test_faults_are_named(folder: str, changes: dict, fault: str) -> None:
    with pytest.raises(VgenError, match=fault):
        list(RldsRecorder(config(**{"folder": folder, **changes})).record(0))


def test_paths() -> None:
    assert at({"a": {"b": 3}}, "a/b", "train/0") == 3
    with pytest.raises(VgenError, match="train/0: a step has no a/c; there is: b"):
        at({"a": {"b": 3}}, "a/c", "train/0")


def test_texts_become_spans() -> None:
    assert spans([]) == () == spans(["", ""])
    assert spans(["a", "a", "", "b"]) == (TextSpan(0, 2, "a"), TextSpan(3, 4, "b"))


def test_pictures_are_cropped_or_padded() -> None:
    picture = np.full((20, 40, 3), 200, np.uint8)
    picture[:, :10], picture[:, 30:] = 50, 50
    cropped, padded = (FITS[fit](Image.fromarray(picture), (10, 10)) for fit in ("crop", "pad"))
    assert cropped.shape == padded.shape == (10, 10, 3)
    np.testing.assert_array_equal(cropped[:, 1:-1], 200)  # the square in the middle
    np.testing.assert_array_equal(padded[[0, 1, 8, 9]], 0)
    assert (padded[3:7, 0] == 50).all() and (padded[3:7, 4:6] == 200).all()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [({"episodes": 0}, "episodes=0"), ({"scale": (1.0,)}, "one positive"), ({"fit": "bend"}, "fit='bend' is unknown")],
)
def test_wrong_settings_are_refused(changes: dict, fault: str) -> None:
    with pytest.raises(VgenError, match=fault):
        config("x", **changes)
