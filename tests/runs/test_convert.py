"""The run ``convert``, there and back."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusers import AutoencoderKL, TextToVideoSDPipeline

from configs import convert as configs
from tests import tiny
from tests.convert import originals
from vgen_jax.convert import clip, modelscope
from vgen_jax.files.exports import export, load_export
from vgen_jax.files.run_folder import RESULTS_FILE
from vgen_jax.runs import convert
from vgen_jax.types import VgenError
from vgen_jax.worlds.autoencoder import AutoencoderConfig, autoencoder_network, load_autoencoder


def run(workdir: Path, variant: str, source: Path, **changes: Any) -> Path:
    """The folder that a conversion wrote."""
    config = configs.get_config(variant)
    config.convert.update({"source": str(source), **changes})
    convert.run(config, workdir)
    return workdir / "export"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextToVideoSDPipeline, Path]:
    folder = tmp_path_factory.mktemp("pipeline")
    return originals.text_to_video(folder), folder


@pytest.mark.slow
def test_a_pipeline_there_and_back(saved: tuple[TextToVideoSDPipeline, Path], tmp_path: Path) -> None:
    model, folder = saved
    flax = run(tmp_path / "there", "modelscope", folder)
    params, raw = load_export(flax / "unet")
    jax.tree.map(np.testing.assert_array_equal, params, modelscope.load_unet(folder)[1])
    count = json.loads((tmp_path / "there" / RESULTS_FILE).read_text())["parameters"]
    assert count == sum(
        p.numel() for part in ("unet", "vae", "text_encoder") for p in getattr(model, part).parameters()
    )
    back = run(tmp_path / "back", "modelscope", flax, direction="to_diffusers")
    originals.assert_same_model(TextToVideoSDPipeline.from_pretrained(back), model)


def test_an_autoencoder_becomes_one_that_the_other_runs_load(
    saved: tuple[TextToVideoSDPipeline, Path], tmp_path: Path
) -> None:
    folder = run(tmp_path / "there", "kl_vae", saved[1], dtype="float16")
    found = load_autoencoder(folder)
    assert (found.channels, found.factor) == (4, 2)
    params, raw = load_export(folder)
    assert raw["scale"] == 0.3 and {x.dtype for x in jax.tree.leaves(params)} == {jnp.float16.dtype}


def test_a_trained_autoencoder_goes_to_diffusers(tmp_path: Path) -> None:
    shape = AutoencoderConfig(
        block_channels=(8, 8), layers_per_block=1, latent_channels=3, norm_groups=4, patch=1, linear_path=False,
        dtype="float32", kl_weight=0.0,
    )  # fmt: skip
    params = tiny.random_params(autoencoder_network(shape).init, jnp.zeros((1, 4, 4, 3)))["params"]
    export(tmp_path / "export", params, {"autoencoder": dataclasses.asdict(shape), "scale": 0.5})
    back = AutoencoderKL.from_pretrained(
        run(tmp_path / "back", "kl_vae", tmp_path / "export", direction="to_diffusers")
    )
    assert back.config.scaling_factor == 0.5 and back.config.latent_channels == 3
    np.testing.assert_array_equal(back.quant_conv.bias.detach(), params["quant_conv"]["bias"])


def test_a_text_tower_there_and_back(saved: tuple[TextToVideoSDPipeline, Path], tmp_path: Path) -> None:
    flax = run(tmp_path / "there", "clip", saved[1])
    back = run(tmp_path / "back", "clip", flax, direction="to_diffusers")
    (config, params), (want_config, want) = clip.load_text(back), clip.load_text(saved[1])
    assert config == want_config
    jax.tree.map(np.testing.assert_array_equal, params, want)


@pytest.mark.parametrize(
    ("variant", "changes", "named"),
    [
        ("clip", {"model": "bert"}, "convert.model is 'bert': use modelscope or kl_vae or clip"),
        ("clip", {"direction": "there"}, "convert.direction is 'there'"),
        ("clip", {"dtype": "int8"}, "dtype 'int8'"),
        ("clip", {"source": ""}, "convert.source is empty"),
        ("clip", {"direction": "to_diffusers"}, "has no 'text': it is no export"),
        ("kl_vae", {"direction": "to_diffusers", "source": "nowhere"}, "nowhere, which is no folder"),
    ],
)
def test_what_cannot_be_converted_is_named(
    variant: str, changes: dict[str, Any], named: str, saved: tuple[TextToVideoSDPipeline, Path], tmp_path: Path
) -> None:
    with pytest.raises(VgenError, match=named) as caught:
        run(tmp_path, variant, **{"source": saved[1] / "text_encoder", **changes})
    assert "\n" not in str(caught.value)


def test_the_source_is_not_overwritten(saved: tuple[TextToVideoSDPipeline, Path], tmp_path: Path) -> None:
    folder = saved[1] / "text_encoder"
    with pytest.raises(VgenError, match="convert.target is convert.source"):
        run(tmp_path, "clip", folder, target=str(folder))


def test_a_field_that_no_network_has_is_named(saved: tuple[TextToVideoSDPipeline, Path], tmp_path: Path) -> None:
    flax = run(tmp_path / "there", "clip", saved[1])
    raw = json.loads((flax / "config.json").read_text())
    (flax / "config.json").write_text(json.dumps({"text": {**raw["text"], "depth": 3}}))
    with pytest.raises(VgenError, match="has depth, which no ClipTextEncoder has"):
        run(tmp_path / "back", "clip", flax, direction="to_diffusers")
