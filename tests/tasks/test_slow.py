"""What a training takes from its config, its data and its autoencoder."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vgen_jax.config import section
from vgen_jax.files.exports import digest, export
from vgen_jax.files.run_folder import resolved
from vgen_jax.runs import encode
from vgen_jax.tasks.autoencoder import autoencoder_task, latent_scale
from vgen_jax.tasks.inputs import batches_config, latents_folder
from vgen_jax.tasks.slow import slow_config, slow_task
from vgen_jax.types import VgenError
from vgen_jax.worlds.autoencoder import AutoencoderConfig, autoencoder_network
from vgen_jax.worlds.slow_networks import SlowConfig

SHAPE = AutoencoderConfig(
    block_channels=(8,), layers_per_block=1, latent_channels=3, norm_groups=4, patch=4, linear_path=False,
    dtype="float32", kl_weight=0.0,
)  # fmt: skip


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """A folder beside a data set and a random autoencoder."""
    tiny.write_dataset(tmp_path / "data")
    params = tiny.random_params(autoencoder_network(SHAPE).init, jnp.zeros((1, 4, 4, 3)))["params"]
    raw = {"autoencoder": dataclasses.asdict(SHAPE), "scale": 1.0}
    export(tmp_path / "autoencoder" / "export", params, raw)
    return tmp_path / "run"


@pytest.mark.parametrize(("action", "width"), [("continuous", 2), ("discrete", 2), ("none", 0)])
def test_the_data_decide_what_the_model_is_conditioned_on(workdir: Path, action: str, width: int) -> None:
    config = resolved(tiny.config("slow", {"data.data_dir": "@data", "data.action": action}), workdir)
    task, _ = slow_task(config)
    batch = next(task.data)
    assert (batch.action_BTA is None) == (width == 0)
    assert width == 0 or batch.action_BTA.shape[-1] == width
    params = jax.eval_shape(task.init, jax.random.key(0))
    loss, aux = jax.eval_shape(task.objective, params, batch, jax.random.key(0))
    assert loss.shape == () and loss.dtype == jnp.float32 and set(aux) == {"eps_loss"}


def test_the_definition_is_complete(workdir: Path) -> None:
    config = resolved(tiny.config("slow", {"data.data_dir": "@data", "objective.loss.kind": "v"}), workdir)
    found = slow_config(config, tiny.info(), channels=3)
    assert (found.actions, found.action_dim, found.latent_channels, found.kind) == ("continuous", 2, 3, "v")
    again = section(SlowConfig, json.loads(json.dumps(dataclasses.asdict(found))), "slow")
    assert again == found, "it travels with the weights as JSON"


@pytest.mark.parametrize("tokens", [0, 33])
def test_texts_that_do_not_fit_the_encoder_are_refused(workdir: Path, tokens: int) -> None:
    config = resolved(tiny.config("slow", {"data.data_dir": "@data", "data.token_length": tokens}), workdir)
    with pytest.raises(VgenError, match=f"data.token_length is {tokens}: use 1 to 32"):
        slow_task(config)


def test_latents_of_another_autoencoder_are_refused(workdir: Path) -> None:
    folder = workdir.parent / "autoencoder" / "export"
    same = dataclasses.replace(tiny.info(), latents={"digest": digest(folder)})
    assert latents_folder(folder, same, "data") == folder
    with pytest.raises(VgenError, match="another autoencoder .* encode them again"):
        latents_folder(folder, dataclasses.replace(same, latents={"digest": "0"}), "data")


def test_the_scale_gives_latents_unit_variance(workdir: Path) -> None:
    config = resolved(tiny.config("autoencoder", {"data.batch_size": 4}), workdir)
    task, _ = autoencoder_task(config)

    frames = np.concatenate([np.asarray(next(task.data).video_BTHWC) for _ in range(32)])
    scale = latent_scale(lambda x: x / 2, batches_config(config))  # which halves pixels
    np.testing.assert_allclose(scale * (frames / 127.5 - 1).std() / 2, 1.0, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("content", ["frames", "latents"])
def test_what_the_model_makes_of_held_out_windows_while_it_learns(workdir: Path, content: str) -> None:
    changes = {"data.data_dir": "@data", "data.windows": ((2, 2),), "data.window_weights": (1.0,)}
    plain = tiny.config("slow", changes)
    with plain.unlocked():
        plain.train.sample_minutes = 1.0
    if content == "latents":
        encode.run(resolved(tiny.config("latents", {"autoencoder_dir": "@autoencoder/export"}), workdir), workdir)
        plain.data.data_dir = str(workdir)
    task, _ = slow_task(resolved(plain, workdir))
    params = tiny.random_params(task.init)
    assert task.sample is not None
    video = task.sample(params, jax.random.key(0))
    assert video.dtype == np.uint8 and video.shape == (4, 2 * tiny.SIZE, 4 * tiny.SIZE, 3)
    above, below = video[:, : tiny.SIZE], video[:, tiny.SIZE :]
    np.testing.assert_array_equal(above[:2], below[:2], "the past is real")
    assert (above[2:] != below[2:]).any()
    other = task.sample(jax.tree.map(lambda x: 0.5 * x, params), jax.random.key(0))
    np.testing.assert_array_equal(other[:, : tiny.SIZE], above)
    assert (other[2:, tiny.SIZE :] != below[2:]).any(), "the parameters at hand are used"
