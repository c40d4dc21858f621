"""From a config to objects, and from an export to a model."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vgen_jax.files.exports import EXPORT_CONFIG, export
from vgen_jax.nn.dtypes import dtype_of
from vgen_jax.types import Condition, VgenError
from vgen_jax.worlds.autoencoder import AutoencoderConfig, autoencoder_network
from vgen_jax.worlds.slow import SlowModel, action_width, frame_size, guided_predictor, load_slow_model
from vgen_jax.worlds.slow_networks import Denoiser, TextConfig, denoiser


def test_widths_of_actions() -> None:
    info = tiny.info()
    widths = {name: action_width(info, name) for name in ("none", "continuous", "discrete")}
    assert widths == {"none": 0, "continuous": 2, "discrete": 2}
    for name in ("continuous", "discrete"):
        space = info.action_spaces[name]
        rows = np.zeros((3, 2), np.float32) if name == "continuous" else np.zeros(3, np.int32)
        assert space.to_model(rows).shape == (3, widths[name])
    with pytest.raises(VgenError, match="'joystick' but the data have continuous, discrete"):
        action_width(info, "joystick")


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("actions", [2, 0])
def test_the_slow_model_with_and_without_text_and_actions(text: bool, actions: int) -> None:
    config = tiny.slow_config(action_dim=actions, text=TextConfig(8 if text else 0, 1, 2, 8))
    networks = denoiser(config)
    batch = tiny.latent_batch()

    def predict() -> object:
        params = networks.init(jax.random.key(0))
        condition = networks.embed(params, batch)
        return condition, networks.predict(params, batch.video_BTHWC, jnp.zeros((2,), int), condition)

    condition, prediction = jax.eval_shape(predict)
    assert (condition.text_BLD is not None) == text and (condition.action_BTA is not None) == bool(actions)
    assert prediction.value.shape == batch.video_BTHWC.shape and prediction.kind == "v"


def test_guidance_is_against_the_empty_text_and_the_null_action() -> None:
    seen: list[Condition] = []

    class Networks:
        @staticmethod
        def embed(params: object, batch: object) -> Condition:
            seen.append(batch)
            return Condition(batch.token_BL[..., None], None, batch.action_BTA, batch.action_valid_BT)

    batch = tiny.latent_batch()
    model = SlowModel(tiny.slow_config(), Denoiser(print, Networks.embed, print), {}, None, tiny.info(), ())
    guided_predictor(model, {}, batch, 2.0)
    (empty,) = seen
    np.testing.assert_array_equal(empty.token_BL, np.broadcast_to([1] + [0] * 7, (2, 8)))
    assert not np.asarray(empty.action_valid_BT).any()
    np.testing.assert_array_equal(empty.video_BTHWC, batch.video_BTHWC)


def test_an_unknown_dtype_is_named() -> None:
    with pytest.raises(VgenError, match="dtype 'int8' is unknown: use one of float32, bfloat16, float16"):
        dtype_of("int8")


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """An export of a slow model with its autoencoder, random."""
    shape = AutoencoderConfig(
        block_channels=(8,), layers_per_block=1, latent_channels=3, norm_groups=4, patch=2, linear_path=False,
        dtype="float32", kl_weight=0.0,
    )  # fmt: skip
    network = autoencoder_network(shape)
    params = tiny.random_params(network.init, jnp.zeros((1, 2, 2, 3)))["params"]
    export(tmp_path / "autoencoder", params, {"autoencoder": dataclasses.asdict(shape), "scale": 2.0})
    slow = tiny.slow_config()
    raw = {"slow": dataclasses.asdict(slow), "windows": ((2, 2),)}
    export(tmp_path, tiny.random_params(denoiser(slow).init), raw)
    (tmp_path / "dataset.json").write_text(tiny.info().to_json())
    return tmp_path


def test_an_export_becomes_the_model_it_was(exported: Path) -> None:
    model = load_slow_model(exported)
    assert model.config == tiny.slow_config() and model.windows == ((2, 2),) and model.data == tiny.info()
    assert frame_size(model) == (16, 16) and model.autoencoder.factor == 2
    frames = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), np.uint8)
    latents = tiny.jit(lambda encode, x: encode(x))(model.autoencoder.encode, frames)
    decoded = tiny.jit(lambda decode, z: decode(z))(model.autoencoder.decode, latents)
    assert latents.shape == (1, 2, 2, 3) and decoded.shape == frames.shape and decoded.dtype == jnp.uint8


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("dataset", "dataset.json is missing"),
        ("autoencoder", "autoencoder/config.json is missing"),
        ("kind", "has no 'slow': it is no export of this kind"),
        ("shape", "do not fit the network"),
        ("key", "config key slow.unet.depth is unknown"),
    ],
)
def test_an_export_that_does_not_fit_is_refused(exported: Path, fault: str, named: str) -> None:
    raw = json.loads((exported / EXPORT_CONFIG).read_text())
    if fault == "dataset":
        (exported / "dataset.json").unlink()
    elif fault == "autoencoder":
        (exported / "autoencoder" / EXPORT_CONFIG).unlink()
    elif fault == "kind":
        raw["fast"] = raw.pop("slow")
    elif fault == "shape":
        raw["slow"]["unet"]["layers_per_block"] = 2
    else:
        raw["slow"]["unet"]["depth"] = 2
    (exported / EXPORT_CONFIG).write_text(json.dumps(raw))
    with pytest.raises(VgenError, match=named) as error:
        load_slow_model(exported)
    assert "\n" not in str(error.value)
