"""Slow learning from a model of diffusers: there, trained, rolled out, and back."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from diffusers import TextToVideoSDPipeline
from ml_collections import ConfigDict

from configs.slow import modelscope as configs
from tests import tiny
from tests.convert import originals
from vgen_jax import runs
from vgen_jax.convert import modelscope
from vgen_jax.convert.clip import text_embeddings
from vgen_jax.data.text import encode_text
from vgen_jax.files import media
from vgen_jax.files.exports import load_export
from vgen_jax.files.run_folder import resolved
from vgen_jax.tasks.slow import sliced
from vgen_jax.types import ChunkAction, VgenError
from vgen_jax.worlds import pretrained, texts
from vgen_jax.worlds.assembly import action_codec
from vgen_jax.worlds.autoencoder import load_autoencoder
from vgen_jax.worlds.slow import frame_size, load_slow_model
from vgen_jax.worlds.texts import text_table, with_texts

TOKENS = 24
SMALL = {
    "data.windows": ((2, 2),), "data.window_weights": (1.0,), "data.batch_size": 16, "data.token_length": TOKENS,
    "train.steps": 2, "train.accumulate": 2, "train.checkpoint_every": 2, "finetune.dtype": "float32",
    "finetune.remat": "none", "optimizer.learning_rate": 1e-2,
}  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of diffusers, ``theirs``, and stages of the config on it: ``flax``, ``data``, ``texts``."""
    out = tmp_path_factory.mktemp("out")
    originals.text_to_video(out / "theirs")
    tiny.write_dataset(out / "data")
    start(out, "flax", {"convert.source": str(out / "theirs")})
    start(out, "texts", {"windows": SMALL["data.windows"], "token_length": TOKENS})
    return out


def stage(name: str, changes: dict[str, Any]) -> ConfigDict:
    """A stage of the fine-tuning, shrunk."""
    found = configs.get_config(f"finetune.{name}")
    found.update_from_flattened_dict(changes)
    return found


def start(out: Path, name: str, changes: dict[str, Any], config: ConfigDict | None = None) -> Path:
    """Runs a stage in its folder."""
    runs.start(resolved(stage(name, changes) if config is None else config, out / name), out / name)
    return out / name


GENERATE = {
    "generate.past": 2, "generate.future": 2, "generate.frames": 6, "generate.actions": ("go", "turn"),
    "generate.gif": False, "start.episodes": (0,), "start.frame": 1, "sampler.steps": 2,
}  # fmt: skip


@pytest.mark.long
def test_from_diffusers_to_a_rollout_and_back(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(out, "latents", {"batch_frames": 4})
    monkeypatch.setattr(texts, "text_embeddings", lambda *_: pytest.fail("every text was embedded beforehand"))
    folder = start(out, "slow", SMALL) / "export"
    trained, original = modelscope.load_unet(folder)[1], modelscope.load_unet(out / "theirs")[1]
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), trained, original)
    assert min(moved["conv_in"].values()) > 1e-4 and min(moved["conv_out"].values()) > 1e-4
    for part in ("vae", "text_encoder"):
        before, after = (load_export(path / part)[0] for path in (out / "flax" / "export", folder))
        jax.tree.map(np.testing.assert_array_equal, after, before)

    start(out, "generate", GENERATE)
    results = json.loads((out / "generate" / "results.json").read_text())
    assert (results["frames"], results["compilations"]) == (6, 1)
    assert len(media.read_video(out / "generate" / "samples" / "video_0.mp4")) == 7

    back = start(out, "diffusers", {}) / "export"
    loaded = TextToVideoSDPipeline.from_pretrained(back)
    theirs = TextToVideoSDPipeline.from_pretrained(out / "theirs")
    name = "conv_in.weight"
    kernel = np.asarray(trained["conv_in"]["kernel"]).transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(loaded.unet.state_dict()[name].numpy(), kernel)
    assert not np.array_equal(theirs.unet.state_dict()[name].numpy(), kernel)
    loaded.unet.load_state_dict(theirs.unet.state_dict())
    originals.assert_same_model(loaded, theirs)


@pytest.mark.slow
def test_a_rollout_from_a_model_that_was_only_converted(out: Path) -> None:
    """With texts that no data know, from a picture."""
    media.write_png(out / "start.png", np.full((16, 16, 3), 90, np.uint8))
    config = configs.get_config("rollout")
    changes = {"past": 8, "future": 8, "frames": 16, "actions": ("go a", "b"), "gif": False}
    config.update_from_flattened_dict({"start.image": str(out / "start.png"), "sampler.steps": 1})
    config.generate.update(changes)
    start(out, "rollout", {}, config)
    assert len(media.read_video(out / "rollout" / "samples" / "video_0.mp4")) == 17


@pytest.mark.slow
def test_frames_are_encoded_in_slices_as_they_are_whole(out: Path) -> None:
    autoencoder = load_autoencoder(out / "flax" / "export" / "vae")
    video = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 4, 3), np.uint8)
    whole, parts = (tiny.jit(lambda f, x: f(x))(f, video) for f in (autoencoder.encode, sliced(autoencoder.encode, 2)))
    np.testing.assert_allclose(parts, whole, atol=1e-5)


def test_a_text_to_video_model_becomes_the_slow_model_that_it_is(out: Path) -> None:
    model = load_slow_model(out / "flax" / "export")
    assert (model.config.kind, model.config.actions, model.config.schedule.set_alpha_to_one) == ("eps", "none", False)
    assert frame_size(model) == (16, 16) and model.windows == (pretrained.WINDOW,)
    with pytest.raises(VgenError, match="this run has no embeddings of its texts"):
        model.denoiser.embed(model.params, tiny.latent_batch())


@pytest.mark.slow
def test_texts_are_looked_up_as_the_tower_embeds_them(out: Path) -> None:
    table = pretrained.read_texts(out / "texts")
    model = load_slow_model(out / "flax" / "export")
    model = model._replace(params={**model.params, "text": table})
    words = ["go", "", "turn"]
    batch = tiny.latent_batch()
    tokens = np.stack([encode_text(text, TOKENS) for text in words])
    found = model.denoiser.embed(model.params, batch.replace(token_BL=tokens)).text_BLD
    want = text_embeddings(str(out / "theirs"), words)
    np.testing.assert_allclose(np.asarray(found, np.float32), want, rtol=1e-3, atol=1e-3)
    unknown = np.stack([encode_text("fly", TOKENS)])
    assert np.isnan(model.denoiser.embed(model.params, batch.replace(token_BL=unknown)).text_BLD).all()


def test_only_new_texts_need_the_tower(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, asked = pretrained.read_texts(out / "texts"), []
    embed = text_embeddings
    monkeypatch.setattr(texts, "text_embeddings", lambda f, words: asked.extend(words) or embed(f, words))
    tokens = [encode_text(text, TOKENS) for text in ("go", "fly")]
    found = text_table(out / "theirs", np.stack(tokens), table)
    assert asked == ["fly"] and len(found["token"]) == 3


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"finetune.model_dir": "@theirs"}, "theirs is no converted model: run --config=configs/convert.py"),
        ({"finetune.texts_dir": "@data"}, "data/texts.safetensors is missing: run embed_texts"),
        ({"data.windows": ((2, 4),), "data.window_weights": (1.0,)}, "lacks .* texts of the data, such as"),
        ({"data.token_length": 0}, "data.token_length is 0: the pretrained UNet reads texts"),
        ({"finetune.masking.reference": True}, "finetune.masking.reference is True"),
        ({"finetune.encode_frames": 0}, "finetune.encode_frames is 0"),
    ],
)
def test_what_cannot_be_fine_tuned_is_named(out: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(VgenError, match=named) as caught:
        start(out, "refused", {}, stage("slow", {**SMALL, "data.data_dir": "@data", **changes}))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_text_that_was_not_announced_is_refused(out: Path) -> None:
    model = load_slow_model(out / "flax" / "export")
    length = model.config.text.max_length
    model = with_texts(model, out / "theirs", [encode_text("go", length)])
    actions = [ChunkAction(text, encode_text(text, length), None) for text in ("go", "fly")]
    codec = action_codec(model, 2)
    assert codec.chunk(actions[0]).text == "go"
    with pytest.raises(VgenError, match="'fly' has no embedding: announce it in generate.actions"):
        codec.chunk(actions[1])


def test_the_pipeline_is_the_stages_of_the_config() -> None:
    whole = configs.get_config("finetune")
    assert whole.order == ("flax", "data", "latents", "texts", "slow", "generate", "diffusers")
    with pytest.raises(ValueError, match="no stage 'fast'"):
        configs.get_config("finetune.fast")
