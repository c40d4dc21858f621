"""The run ``text_to_video``, from a tiny model that diffusers saved."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.slow import modelscope as configs
from tests.convert import originals
from vgen_jax.files import media
from vgen_jax.runs import text_to_video
from vgen_jax.types import VgenError
from vgen_jax.worlds.text_to_video import latent_sampler, to_device

FRAMES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    originals.text_to_video(folder)
    return folder


def config(folder: Path, **changes: Any) -> ConfigDict:
    found = configs.get_config("t2v")
    found.model_dir = str(folder)
    found.generate.update(
        {"prompts": ("go a", "b"), "frames": FRAMES, "height": 16, "width": 8, "steps": 2, "dtype": "float32",
         "decode_frames": 2, **changes}
    )  # fmt: skip
    return found.lock()


@pytest.mark.slow
def test_a_video_for_every_prompt(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[np.ndarray] = []
    made = latent_sampler

    def spied(*args: Any) -> Callable[..., jax.Array]:
        sample = made(*args)
        return lambda params, noise, text, null, key: (
            texts.append(np.concatenate([text, null])) or sample(params, noise, text, null, key)
        )

    monkeypatch.setattr(text_to_video, "latent_sampler", spied)
    text_to_video.run(config(folder, negative="z"), tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["videos"], results["frames"], results["sampler"]) == (2, FRAMES, "ddim 2 steps")
    embedded = text_to_video.text_embeddings(str(folder), ["go a", "b", "z"])
    np.testing.assert_array_equal(np.stack(texts), embedded[[[0, 2], [1, 2]]])
    clips = [media.read_video(tmp_path / "samples" / f"video_{number}.mp4") for number in range(2)]
    assert [len(clip) for clip in clips] == [FRAMES, FRAMES]
    assert all((tmp_path / "samples" / f"video_1{suffix}").is_file() for suffix in (".gif", ".png"))

    # A second start has no need of the text tower.
    monkeypatch.setattr(text_to_video, "text_embeddings", lambda *_: pytest.fail("the embeddings are there"))
    found = text_to_video.cached_embeddings(str(folder), ["go a", "b", "z"], tmp_path / text_to_video.EMBEDDINGS_FILE)
    np.testing.assert_array_equal(found, embedded)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"height": 15}, "generate.height is 15: the autoencoder takes multiples of 2"),
        ({"frames": 0}, "generate.frames is 0"),
        ({"prompts": ()}, "generate.prompts is empty"),
        ({"sampler": "euler"}, "sampler.kind 'euler'"),
        ({"steps": 0}, "sampler.steps is 0"),
    ],
)
def test_what_cannot_be_generated_is_named(changes: dict[str, Any], named: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VgenError, match=named) as caught:
        text_to_video.run(config(folder, **changes), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_another_vocabulary_is_refused(folder: Path, tmp_path: Path) -> None:
    for part in folder.iterdir():
        (tmp_path / part.name).symlink_to(part)
    (tmp_path / "tokenizer").unlink()
    originals.write_tokenizer(tmp_path / "tokenizer", originals.TOKENS)
    words = json.loads((tmp_path / "tokenizer" / "vocab.json").read_text())
    (tmp_path / "tokenizer" / "vocab.json").write_text(json.dumps({**words, "go</w>": 70}))
    with pytest.raises(VgenError, match="has token 70, its text tower only 56"):
        text_to_video.text_embeddings(str(tmp_path), ["go"])


def test_damaged_embeddings_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "e.safetensors").write_bytes(b"no")
    with pytest.raises(VgenError, match="is damaged .*delete it"):
        text_to_video.cached_embeddings(str(folder), ["go"], tmp_path / "e.safetensors")


def test_parameters_move_in_place() -> None:
    params = {"a": {"b": np.ones(3, np.float32)}, "c": np.zeros(2)}
    inner = params["a"]
    to_device(params)
    assert params["a"] is inner and all(isinstance(x, jax.Array) for x in jax.tree.leaves(params))
