"""Slow learning that goes on from an exported model."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from tests import tiny
from vgen_jax.files.exports import export
from vgen_jax.tasks.registry import TASKS
from vgen_jax.types import VgenError
from vgen_jax.worlds.autoencoder import AutoencoderConfig, autoencoder_network
from vgen_jax.worlds.slow import load_slow_model
from vgen_jax.worlds.slow_networks import denoiser

SHAPE = AutoencoderConfig(
    block_channels=(8,), layers_per_block=1, latent_channels=3, norm_groups=4, patch=4, linear_path=False,
    dtype="float32", kl_weight=0.0,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set and an exported model."""
    tiny.write_dataset(tmp_path / "data")
    params = tiny.random_params(autoencoder_network(SHAPE).init, jnp.zeros((1, 4, 4, 3)))["params"]
    about = {"autoencoder": dataclasses.asdict(SHAPE), "scale": 1.0}
    export(tmp_path / "model" / "autoencoder", params, about)
    slow = tiny.slow_config()
    params = tiny.random_params(denoiser(slow).init)
    export(tmp_path / "model", params, {"slow": dataclasses.asdict(slow), "windows": ((1, 2),)})
    (tmp_path / "model" / "dataset.json").write_text(tiny.info().to_json())
    return tmp_path


def config(folder: Path, kind: str = "v", tokens: int = 8, action: str = "continuous") -> ConfigDict:
    data = common.data(str(folder / "data"), "train", ((2, 2),), (1.0,), 4, tokens, action=action)
    objective = {"kind": "continued", "loss": {"kind": kind, "drop_text": 0.0, "drop_action": 0.0}}
    return ConfigDict({"objective": objective, "model_dir": str(folder / "model"), "data": data}, convert_dict=True)


def test_it_begins_with_the_model_and_ends_in_one(folder: Path) -> None:
    task, finish = TASKS["continued"](config(folder))
    model = load_slow_model(folder / "model")
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(lambda x: x.shape, model.params)
    begun = task.start({})
    jax.tree.map(np.testing.assert_array_equal, begun, model.params)
    batch = next(task.data)
    assert np.asarray(batch.video_BTHWC).shape == (4, 4, tiny.SIZE, tiny.SIZE, 3)
    loss, _ = jax.eval_shape(task.objective, begun, batch, jax.random.key(0))
    assert loss.shape == ()
    finish(jax.tree.map(lambda x: x + 1, begun), folder / "out")
    found = load_slow_model(folder / "out")
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y + 1), found.params, model.params)
    assert found.config == model.config and found.windows == ((2, 2),) and found.data.splits


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "x0"}, "objective.loss.kind is x0, but the model in .* predicts v"),
        ({"tokens": 4}, "data.token_length is 4, but the model in .* was trained with 8"),
        ({"action": "discrete"}, "data.action is discrete, but the model in .* was trained with continuous"),
    ],
)
def test_data_of_another_kind_are_refused(folder: Path, changes: dict, named: str) -> None:
    with pytest.raises(VgenError, match=named):
        TASKS["continued"](config(folder, **changes))
