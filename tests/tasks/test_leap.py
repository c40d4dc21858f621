"""LeAP's, RAFI's and the VQGAN's trainings: through the one loop to an export, or refused."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.leap import robot as leap
from configs.rafi import robot as rafi
from tests import tiny
from tests.worlds.test_predicting import write_vqgan
from vgen_jax.devices import sharding
from vgen_jax.files.exports import load_export
from vgen_jax.files.run_folder import resolved
from vgen_jax.learning.state import OptimizerConfig, divided, learning_rate
from vgen_jax.runs import train
from vgen_jax.tasks.registry import task_of
from vgen_jax.types import VgenError
from vgen_jax.worlds.autoencoder import load_autoencoder
from vgen_jax.worlds.leap import load_leap_model
from vgen_jax.worlds.rafi import load_rafi_model


def stage(kind: str, folder: Path, **changes: Any) -> ConfigDict:
    """A training of the variant ``tiny`` on the data set in ``folder``."""
    make = leap.get_config if kind in leap.MODELS else rafi.get_config
    config = make(f"tiny.{kind}")
    values = {"data.data_dir": str(folder / "data"), "train.steps": 3, "train.checkpoint_every": 2, **changes}
    if "autoencoder_dir" in config:
        values["autoencoder_dir"] = str(folder / "vqgan")
    config.update_from_flattened_dict(values)
    return config


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs for one device are compiled in half of the time."""
    monkeypatch.setattr(sharding.jax, "devices", lambda: jax.local_devices()[:1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and a VQGAN for its frames."""
    path = tmp_path_factory.mktemp("leap")
    tiny.write_dataset(path / "data")
    write_vqgan(path / "vqgan")
    return path


@pytest.mark.slow
def test_a_recurrent_models_training_leaves_an_export_with_its_averages(folder: Path, tmp_path: Path) -> None:
    config = stage("causal_leap", folder, **{"train.log_every": 1})
    train.run(resolved(config, tmp_path / "leap"), tmp_path / "leap")
    tree, _ = load_export(tmp_path / "leap" / "export")
    assert np.abs(divided(tree)[1]["encoder"]["head_norm"]["mean"]).max() > 0, "no longer what they began with"
    model = load_leap_model(tmp_path / "leap" / "export")
    assert (model.config.model, model.past, model.data.fps) == ("causal_leap", 5, 8.0)
    rows = [json.loads(line) for line in (tmp_path / "leap" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(set(losses)) == 3 and {"l1", "kl", "kl_alpha", "action_mse", "psnr"} <= rows[0].keys()


@pytest.mark.slow
def test_a_training_by_flow_matching_leaves_an_export_with_its_autoencoder(folder: Path, tmp_path: Path) -> None:
    train.run(resolved(stage("rafi", folder), tmp_path / "rafi"), tmp_path / "rafi")
    model = load_rafi_model(tmp_path / "rafi" / "export")
    assert model.config.channels == 6 and model.past == 5 and model.autoencoder.factor == 4


@pytest.mark.slow
def test_an_adversarial_vqgan_leaves_an_autoencoder_alone(folder: Path, tmp_path: Path) -> None:
    """With its own optimiser for the discriminator, and a codebook that follows."""
    config = stage("vqgan", folder, **{"objective.loss.adversarial": 0.8, "vqgan.codebook": "ema", "vqgan.decay": 0.9})
    with config.unlocked():
        second = {"parameters": "^discriminator/", "optimizer": config.optimizer.to_dict()}
        config.optimizer.second = second
    train.run(resolved(config, tmp_path / "vqgan"), tmp_path / "vqgan")
    tree, about = load_export(tmp_path / "vqgan" / "export")
    assert "discriminator" not in tree and about["vqgan"]["codebook"] == "ema" and about["scale"] > 0
    found = load_autoencoder(tmp_path / "vqgan" / "export")
    assert found.decode(found.encode(np.zeros((1, 16, 16, 3), np.uint8))).shape == (1, 16, 16, 3)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("svg_lp", {"leap.size": 32}, "holds frames of 16x16, but leap.size is 32"),
        ("vg_leap", {"data.action": "none"}, "vg_leap needs 'continuous'"),
        ("rafi", {"data.action": "discrete"}, "rafi needs 'continuous'"),
        ("vg_leap", {"data.windows": ((5, 4), (4, 4)), "data.window_weights": (0.5, 0.5)}, "open with as many frames"),
        ("vqgan", {"vqgan.block_channels": (8,) * 6}, "6 levels need multiples of 32"),
        ("vqgan", {"objective.loss.perceptual": 1.0, "weights_dir": "nowhere"}, "lpips_vgg needs"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(kind: str, changes: dict, message: str, folder: Path) -> None:
    with pytest.raises(VgenError, match=message) as refused:
        task_of(kind)(stage(kind, folder, **changes))
    assert "\n" not in str(refused.value)


def test_rivers_rate_falls_as_a_square_root() -> None:
    rate = learning_rate(OptimizerConfig(learning_rate=1e-4, warmup_steps=10, decay="root", decay_steps=110))
    found = [float(rate(step)) for step in (0, 5, 10, 85, 110, 200)]
    np.testing.assert_allclose(found, [0.0, 5e-5, 1e-4, (1e-4 - 1e-7) * 0.5 + 1e-7, 1e-7, 1e-7], rtol=1e-4, atol=1e-12)
