"""Bundled weights: written, named in a config, restored; and what may be wrong with them."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests import tiny
from vgen_jax.files import assets
from vgen_jax.files.exports import EXPORT_WEIGHTS, export, load_export
from vgen_jax.files.log import MetricWriter
from vgen_jax.files.run_folder import resolved
from vgen_jax.runs import bundle
from vgen_jax.types import VgenError
from vgen_jax.worlds.autoencoder import AutoencoderConfig, autoencoder_network, load_autoencoder
from vgen_jax.worlds.slow import load_slow_model
from vgen_jax.worlds.slow_networks import denoiser

SHAPE = AutoencoderConfig(
    block_channels=(8,), layers_per_block=1, latent_channels=3, norm_groups=4, patch=4, linear_path=False,
    dtype="float32", kl_weight=0.0,
)  # fmt: skip
CARD = {
    "title": "A network", "command": "python -m …", "data": "squares", "hardware": "an abacus", "training": "",
    "evaluation": "",
}  # fmt: skip


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Exports of an autoencoder and a slow model, in the folders of their trainings, and no assets yet."""
    ae = tiny.random_params(autoencoder_network(SHAPE).init, jnp.zeros((1, 4, 4, 3)))["params"]
    slow = tiny.slow_config()
    params = tiny.random_params(denoiser(slow).init)
    about = {"autoencoder": dataclasses.asdict(SHAPE), "scale": 1.0}
    export(tmp_path / "autoencoder" / "export", ae, about)
    export(tmp_path / "slow" / "export" / "autoencoder", ae, about)
    export(tmp_path / "slow" / "export", params, {"slow": dataclasses.asdict(slow), "windows": ((2, 2),)})
    (tmp_path / "slow" / "export" / "dataset.json").write_text(tiny.info().to_json())
    for stage in ("autoencoder", "slow"):
        config = {"optimizer": {"learning_rate": 0.002}, "data": {"batch_size": 8}}
        (tmp_path / stage / "config.json").write_text(json.dumps(config))
        with MetricWriter(tmp_path / stage) as writer:
            writer.scalars(1234, {"loss": 0.25})
    (tmp_path / "evaluate").mkdir()
    results = {"psnr": 21.5, "psnr_ci95": 0.34, "contract": {"split": "validation"}}
    (tmp_path / "evaluate" / "results.json").write_text(json.dumps(results))
    monkeypatch.setattr(assets, "ASSETS", tmp_path / "assets")
    return tmp_path


def run(folder: Path, name: str, autoencoder: str = "", **card: str) -> None:
    settings = {
        "source": str(folder / name / "export"), "name": f"toy/{name}", "folder": str(folder / "assets"),
        "autoencoder": autoencoder,
    }  # fmt: skip
    told = {**CARD, "training": str(folder / name), **card}
    bundle.run(ConfigDict({"run": "bundle", "bundle": settings, "card": told}), folder / "bundle")


def test_a_bundled_slow_model_is_the_exported_one_rounded(trained: Path) -> None:
    run(trained, "autoencoder")
    run(trained, "slow", "toy/autoencoder", evaluation=str(trained / "evaluate"))
    config = resolved(ConfigDict({"model_dir": "asset:toy/slow", "other": "asset"}), trained / "run")
    assert config.model_dir == str(trained / "assets" / "toy" / "slow") and config.other == "asset"
    found, original = (load_slow_model(Path(p)) for p in (config.model_dir, trained / "slow" / "export"))
    assert found.config == original.config and found.windows == original.windows and found.data == original.data
    pairs = [(found.params, original.params), (found.autoencoder.decode.args, original.autoencoder.decode.args)]
    for have, want in pairs:
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, np.float32(np.float16(y))), have, want)
        assert {x.dtype for x in jax.tree.leaves(have)} == {np.dtype(np.float32)}
    weights = trained / "assets" / "toy" / "slow" / EXPORT_WEIGHTS
    assert weights.stat().st_size < 0.7 * (trained / "slow" / "export" / EXPORT_WEIGHTS).stat().st_size
    assert not (weights.parent / "autoencoder").exists()
    card = (weights.parent / "README.md").read_text()
    for said in ("squares", "an abacus", "1,234 of batch 8", "| psnr | 21.5 ± 0.34 |", "| split | validation |"):
        assert said in card


def test_a_missing_asset_names_those_that_are_there(trained: Path) -> None:
    with pytest.raises(VgenError, match="asset:toy/slow is not in this installation, which has no weights"):
        resolved(ConfigDict({"model_dir": "asset:toy/slow"}), trained)
    run(trained, "autoencoder")
    with pytest.raises(VgenError, match="which has toy/autoencoder: name one of these"):
        resolved(ConfigDict({"model_dir": "asset:toy/slow"}), trained)


@pytest.mark.parametrize(("fault", "named"), [("bit", "its SHA-256 is another"), ("cut", "is damaged")])
def test_a_damaged_asset_is_named_in_one_line(trained: Path, fault: str, named: str) -> None:
    run(trained, "autoencoder")
    path = trained / "assets" / "toy" / "autoencoder" / EXPORT_WEIGHTS
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data if fault == "bit" else data[:-10])
    with pytest.raises(VgenError, match=named) as error:
        load_autoencoder(path.parent)
    assert str(path.parent) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["title", "command", "data", "hardware"])
def test_a_card_says_everything(trained: Path, field: str) -> None:
    with pytest.raises(VgenError, match=f"card.{field} is empty"):
        run(trained, "autoencoder", **{field: ""})
    assert not (trained / "assets").exists()


def test_what_cannot_be_bundled(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VgenError, match="toy/autoencoder is missing: bundle the autoencoder first"):
        run(trained, "slow", "toy/autoencoder")
    with pytest.raises(VgenError, match="parameter a does not fit float16"):
        export(trained / "x", {"a": jnp.full(2, 1e6)}, {}, stored_as="float16")
    for limit in ("FILE_LIMIT", "TOTAL_LIMIT"):
        with monkeypatch.context() as patch, pytest.raises(VgenError, match="MiB"):
            patch.setattr(assets, limit, 1000)
            run(trained, "autoencoder")


def test_only_float32_is_rounded(tmp_path: Path) -> None:
    export(tmp_path, {"a": jnp.full(2, 1 / 3), "n": jnp.arange(3)}, {"x": 1}, stored_as="float16")
    params, config = load_export(tmp_path)
    assert config == {"x": 1} and params["n"].dtype == jnp.int32
    np.testing.assert_array_equal(params["a"], np.float32(np.float16(1 / 3)))


def test_the_package_carries_only_what_it_may() -> None:
    assets.check_sizes(Path(assets.__file__).parent.parent / "assets")
