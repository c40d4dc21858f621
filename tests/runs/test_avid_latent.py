"""AVID on RT-1 as programs: from an RLDS data set or from records to clips and the table, and what is refused."""

import dataclasses
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from ml_collections import ConfigDict

from configs.avid import coinrun, rt1
from tests import tiny
from tests.data.importers import rlds
from vgen_jax import runs
from vgen_jax.black_box.dynamicrafter import image_to_video
from vgen_jax.black_box.sampling import sample_black_box
from vgen_jax.config import section
from vgen_jax.data.records import EpisodeSource, read_info, write_text
from vgen_jax.data.text import encode_text
from vgen_jax.devices import sharding as sh
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.evaluation import sources
from vgen_jax.evaluation.avid import clips as avid_clips
from vgen_jax.evaluation.avid.table import tokens_of
from vgen_jax.files.exports import digest, export, load_export
from vgen_jax.files.run_folder import resolved
from vgen_jax.runs import pipeline
from vgen_jax.tasks.adapter import world_config
from vgen_jax.tasks.training import train_over
from vgen_jax.types import Condition, VgenError
from vgen_jax.worlds.autoencoder import AutoencoderConfig, autoencoder_network, load_autoencoder
from vgen_jax.worlds.avid import MethodConfig, avid_adapter, load_adapted, load_base
from vgen_jax.worlds.avid_networks import WorldConfig

METRICS = ("psnr", "ssim", "action_error_ratio_test", "fd_action_test", "fd_frames_test", "lpips_action_test")
LENGTH = 17


@pytest.fixture(autouse=True)
def _one_device() -> Iterator[None]:
    """One device, as a program for eight takes several times as long to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sh.jax, "devices", lambda: jax.local_devices()[:1])
        yield


def write_rt1(folder: Path) -> str:
    """Eight episodes with the names and shapes of RT-1's steps: a picture that is lighter with every step."""

    def features(tf: Any, of: Any) -> dict:
        image = of.Image(shape=(24, 32, 3))
        words = {name: of.Tensor(shape=(3,), dtype=tf.float32) for name in ("world_vector", "rotation_delta")}
        return {
            "observation": {"image": image, "natural_language_instruction": of.Text()},
            "action": {**words, "gripper_closedness_action": of.Tensor(shape=(1,), dtype=tf.float32)},
        }

    def step(episode: int, t: int) -> dict:
        move = np.asarray([t / 10, episode / 10, 0], np.float32)
        return {
            "observation": {
                "image": np.full((24, 32, 3), 20 * episode + t, np.uint8),
                "natural_language_instruction": f"pick {episode}",
            },
            "action": {"world_vector": move, "rotation_delta": -move, "gripper_closedness_action": np.ones(1, "f4")},
        }

    return rlds.write(folder, features, [[step(episode, t) for t in range(LENGTH)] for episode in range(8)])


def experiment(stages: tuple[str, ...], folder: Path) -> ConfigDict:
    """These stages of the variant ``tiny``, on the tests' own records where there is no stage ``data``."""
    config = rt1.get_config("tiny")
    config.order = stages
    if "data" in stages:
        config.stages.data.rlds.folder = str(folder)
    config.stages.table.windows.split = "validation"
    config.stages.table.windows.count = config.stages.table.tune.windows.count = 4
    config.stages.table.score.metrics = METRICS
    config.stages.table.tune.metric = "fd_action_test"
    return config


def clips(folder: Path, method: str, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Recorded clips, and as a trained method continues them from their first frame."""
    base = load_base(folder / "base" / "export")
    windows = sources.WindowsConfig(split, 2, rt1.PAST, rt1.FUTURE, "continuous", 0)
    data = sources.recorded(str(folder / "data"), windows)
    sources.write_recorded(data, folder / "real")
    codec = avid_clips.codec(base.world, str(folder / "autoencoder" / "export"))
    space = data.source.info.action_spaces["continuous"]
    source = avid_clips.Source(folder / "real", rt1.PAST, space, 0, codec)
    chosen = avid_clips.TableEntryConfig(method, "method", str(folder / method / "export"), ())
    entry, _ = avid_clips.load_entry(chosen, base, source.video(0).shape[1:])
    sampler = section(Sampler, rt1.VARIANTS["tiny"]["sampler"], "sampler")
    settings = avid_clips.ClipsConfig(batch_size=2, seed=0)
    made = avid_clips.write_clips(entry, 0.0, source, sampler, base.world.schedule, settings, folder / "made")
    frames = lambda path: np.load(path)["frames"]  # noqa: E731
    return [(frames(path), frames(made / path.name)) for path in source.paths]


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_datasets") is None, reason="no TensorFlow: pip install -e '.[tfds]'"
)
@pytest.mark.long
def test_from_an_rlds_data_set_to_clips(tmp_path: Path) -> None:
    config = experiment(("data", "autoencoder", "latents", "base", "avid"), Path(write_rt1(tmp_path / "tfds")))
    pipeline.run(resolved(config, tmp_path), tmp_path)
    source = EpisodeSource(str(tmp_path / "data"), "test")
    assert source.info.action_spaces["continuous"].names[-1] == "gripper"
    head = source.head(0)
    actions = head.tensors["actions.continuous"]
    y = actions[0, 1]  # a tenth of the episode's number, which are shuffled there
    assert actions.shape == (LENGTH - 1, 7) and head.texts[0].text == f"pick {round(10 * y)}"
    np.testing.assert_allclose(actions[3], [0.3, y, 0, -0.3, -y, 0, 1], rtol=1e-6)
    assert read_info(str(tmp_path / "latents")).frame_shape == (4, 4, 4)
    stored = json.loads((tmp_path / "avid" / "export" / "config.json").read_text())
    assert stored["base_sha256"] == digest(tmp_path / "base" / "export")
    assert stored["world"]["autoencoder"] == digest(tmp_path / "autoencoder" / "export")
    for real, made in clips(tmp_path, "avid", "test"):
        assert made.shape == real.shape == (16, 16, 16, 3) and made.dtype == np.uint8
        np.testing.assert_array_equal(made[0], real[0])
        assert (made[1:] != real[1:]).any()


@pytest.mark.long
def test_from_recorded_episodes_to_the_table(tmp_path: Path) -> None:
    tiny.write_dataset(tmp_path / "data")
    every = rt1.get_config("tiny").order
    config = experiment(tuple(name for name in every if name != "data"), tmp_path)
    pipeline.run(resolved(config, tmp_path), tmp_path)
    results = json.loads((tmp_path / "table" / "results.json").read_text())
    methods = rt1.VARIANTS["tiny"]["methods"]
    for method in methods:
        for metric in METRICS[:2]:
            low, value, high = (results[f"{metric}/{method}{end}"] for end in ("_low", "", "_high"))
            assert low <= value <= high
    assert results["parameters/finetune"] > results["parameters/finetune_language"] > results["parameters/avid"] > 0
    assert all(0 < results[key] < 1 for key in results if key.startswith("mask/step_"))
    real = np.load(tmp_path / "table" / "clips" / "real" / "000000.npz")["frames"]
    for method in methods:
        made = np.load(tmp_path / "table" / "clips" / method / "000000.npz")["frames"]
        np.testing.assert_array_equal(made[:1], real[:1])
    base, tuned = (load_base(tmp_path / name / "export").params for name in ("base", "finetune_language"))
    moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), base, tuned)
    assert moved["unet"]["conv_in"]["kernel"] and moved["text"]["token"]["embedding"]


def autoencoder(folder: Path) -> Path:
    """An untrained autoencoder's export."""
    config = section(AutoencoderConfig, rt1.VARIANTS["tiny"]["autoencoder"], "autoencoder")
    network = autoencoder_network(config)
    params = tiny.random_params(lambda rng: network.init(rng, np.zeros((1, 4, 4, 3), np.float32))["params"])
    export(folder, params, {"autoencoder": dataclasses.asdict(config), "scale": 1.0})
    return folder


@pytest.mark.long
def test_an_adapter_is_trained_over_an_image_to_video_network(tmp_path: Path) -> None:
    """As ``docs/avid.md`` has it for the paper's sizes; the latents are those of the run ``encode``."""
    tiny.write_dataset(tmp_path / "data")
    autoencoder(tmp_path / "autoencoder" / "export")
    runs.start(resolved(rt1.get_config("tiny.latents"), tmp_path / "latents"), tmp_path / "latents")
    config = rt1.get_config("tiny.avid").unlock()
    del config.base_dir, config.start_dir
    schedule = section(Schedule, config.world.schedule, "schedule")
    asked: list[np.ndarray] = []

    def network(clip: np.ndarray, t_B: np.ndarray, condition: Condition) -> np.ndarray:
        asked.append(clip)
        assert condition.action_BTA is None and clip.shape[1:] == (16, 4, 4, 4)
        return 0.5 * clip

    ask = image_to_video(network, schedule)
    train_over(ask, config.lock(), tmp_path / "avid")
    stored = EpisodeSource(str(tmp_path / "latents"), "train")
    first = [stored.episode(n).frames_THWC[0].astype(np.float32) for n in range(8)]
    assert all(any(np.array_equal(clip[0], frame) for frame in first) for clip in asked[0])
    _, world = load_adapted(tmp_path / "avid" / "export", ask)
    assert world.autoencoder == digest(tmp_path / "autoencoder" / "export")
    past = np.zeros((1, 1, 4, 4, 4), np.float32)
    condition = Condition(action_BTA=np.ones((1, 15, 2)), action_valid_BT=np.ones((1, 15), bool), past_BTHWC=past)
    noise = jax.random.normal(jax.random.key(0), (1, 15, 4, 4, 4))
    settings = section(MethodConfig, config.method.to_dict(), "method")
    params, _ = load_export(tmp_path / "avid" / "export")
    around = lambda base: avid_adapter(settings, world, base).predictor(params)  # noqa: E731
    keys = jax.random.split(jax.random.key(1), 1)
    made = sample_black_box(around, ask, "v", schedule, Sampler("ddim", 2), noise, condition, keys)
    assert made.shape == noise.shape and np.isfinite(made).all()


def test_clips_of_latents_are_encoded_and_decoded(tmp_path: Path) -> None:
    folder = autoencoder(tmp_path / "autoencoder")
    world = WorldConfig(Schedule(), "v", "continuous", 2, 1, 4, digest(folder))
    found = avid_clips.codec(world, str(folder))
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, 3)).astype(np.uint8)
    decode = load_autoencoder(folder).decode

    @tiny.jit
    def there_and_back(codec: avid_clips.Codec, decode: Partial, frames: np.ndarray) -> tuple:
        latents = codec.encode(frames)
        return latents, codec.decode(latents), decode(latents)

    latents, back, together = there_and_back(found, decode, frames)
    assert latents.shape == (2, 3, 2, 2, 4)
    np.testing.assert_allclose(np.asarray(back, int), np.asarray(together, int), atol=1)
    pixels = avid_clips.codec(dataclasses.replace(world, autoencoder="", channels=3), "")
    np.testing.assert_array_equal(pixels.decode(pixels.encode(frames)), frames)
    for wrong, given in ((world, ""), (dataclasses.replace(world, autoencoder=""), str(folder))):
        with pytest.raises(VgenError, match="config key autoencoder_dir is .* but base_dir denoises"):
            avid_clips.codec(wrong, given)


def test_clips_know_the_texts_of_their_windows(tmp_path: Path) -> None:
    tiny.write_dataset(tmp_path / "data")
    data = sources.recorded(str(tmp_path / "data"), sources.WindowsConfig("validation", 2, 1, 4, "continuous", 0))
    sources.write_recorded(data, tmp_path / "real")
    wanted = []
    for window in data.windows:
        texts = data.source.head(window.episode).texts
        said = [span.text for span in texts if window.boundary <= span.start < window.boundary + 4]
        wanted.append(encode_text(", then ".join(dict.fromkeys(said)), 24))
    token_NL = tokens_of(data, 24)
    np.testing.assert_array_equal(token_NL, wanted)
    space = data.source.info.action_spaces["continuous"]
    codec = avid_clips.Codec(Partial(jnp.asarray), Partial(jnp.asarray))
    source = avid_clips.Source(tmp_path / "real", 1, space, 0, codec, token_NL)
    np.testing.assert_array_equal(source.inputs([1, 0]).condition.token_BL, token_NL[[1, 0]])
    assert avid_clips.Source(tmp_path / "real", 1, space, 0, codec).inputs([0]).condition.token_BL is None


def test_latent_and_pixel_worlds_refuse_each_others_data(tmp_path: Path) -> None:
    frames, latents = tiny.write_dataset(tmp_path / "frames"), tmp_path / "latents"
    latents.mkdir()
    info = dataclasses.replace(
        tiny.info(), content="latents", frame_shape=(4, 4, 4), latents={"digest": "d", "frame_shape": (16, 16, 3)}
    )
    write_text(latents / "dataset.json", info.to_json())
    for config, folder, fault in (
        (rt1.get_config("tiny.avid"), frames, "holds frames, a latent UNet is trained on latents: make them with"),
        (coinrun.get_config("tiny.avid"), latents, "holds latents: pixel models are trained on frames"),
    ):
        config.data.data_dir = str(folder)
        with pytest.raises(VgenError, match=fault):
            runs.start(resolved(config, tmp_path / "run"), tmp_path / "run")
    found = world_config(rt1.get_config("tiny.avid"), info, "latents", latent=True)
    assert (found.channels, found.autoencoder, found.action_dim) == (4, "d", 2)


def test_every_stage_of_every_variant_can_be_had_alone() -> None:
    for variant, values in rt1.VARIANTS.items():
        for stage in rt1.stages(values):
            rt1.get_config(f"{variant}.{stage}")
    assert "base" not in rt1.stages(rt1.VARIANTS["paper_145m"])
    with pytest.raises(ValueError, match="has no stage 'nothing'"):
        rt1.get_config("tiny.nothing")
    with pytest.raises(ValueError, match="has no variant 'huge'"):
        rt1.get_config("huge")
