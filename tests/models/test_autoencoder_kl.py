"""The KL autoencoder."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vgen_jax.models.autoencoder_kl import LOG_VARIANCE_RANGE, AutoencoderKL, principal_path
from vgen_jax.types import Array, VgenError

TINY = AutoencoderKL(block_channels=(8, 8), layers_per_block=1, latent_channels=2, norm_groups=4, patch=2)


def test_the_default_is_stable_diffusions_parameter_for_parameter() -> None:
    shapes = jax.eval_shape(partial(AutoencoderKL().init, jax.random.key(0)), jnp.ones((1, 64, 64, 3)))
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes)) == 83_653_863
    assert AutoencoderKL().factor == 8


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_shapes(leading: tuple[int, ...]) -> None:
    x = jnp.zeros((*leading, 16, 8, 3))
    shapes = jax.eval_shape(partial(TINY.init, jax.random.key(0)), x)
    decoded, mean, log_variance = jax.eval_shape(TINY.apply, shapes, x)
    assert decoded.shape == x.shape and mean.shape == log_variance.shape == (*leading, 4, 2, 2)
    assert TINY.factor == 4


def test_frames_are_coded_one_by_one_and_the_noise_has_the_said_variance(rng: Array) -> None:
    module = AutoencoderKL(block_channels=(8,), layers_per_block=1, latent_channels=2, norm_groups=4, patch=2)
    x = jax.random.uniform(rng, (2, 2, 8, 8, 3), minval=-1.0)
    variables = tiny.random_params(module.init, x)
    encode, decode = (tiny.jit(partial(module.apply, variables, method=name)) for name in ("encode", "decode"))
    mean, log_variance = encode(x)
    np.testing.assert_allclose(encode(x[:, ::-1])[0][:, ::-1], mean, atol=1e-5)
    assert float(jnp.abs(mean[0, 0] - mean[0, 1]).max()) > 1e-3
    assert LOG_VARIANCE_RANGE[0] <= float(log_variance.min()) and float(log_variance.max()) <= LOG_VARIANCE_RANGE[1]
    noise = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(rng, mean.shape)
    whole = tiny.jit(module.apply)
    np.testing.assert_allclose(whole(variables, x, rng)[0], decode(noise), atol=1e-4)
    assert float(jnp.abs(decode(noise) - decode(mean)).max()) > 1e-3


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(VgenError, match="multiples of 4"):
        jax.eval_shape(partial(TINY.init, jax.random.key(0)), jnp.zeros((1, 10, 8, 3)))


def test_principal_components_code_frames_before_any_training(rng: Array) -> None:
    module = AutoencoderKL(
        block_channels=(8,), layers_per_block=1, latent_channels=5, norm_groups=4, patch=4, linear_path=True
    )
    numbers = np.random.default_rng(0)
    basis, codes = numbers.normal(size=(5, 48)), numbers.normal(size=(6, 2, 2, 5))
    blocks = (codes @ basis * 0.05 + 0.3).reshape(6, 2, 2, 4, 4, 3)  # blocks of five dimensions and a mean
    frames = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(6, 8, 8, 3).astype(np.float32)
    init = tiny.jit(module.init)(rng, frames)["params"]
    params = {**init, **principal_path(frames, module.factor, 5)}
    decoded, mean, _ = tiny.jit(module.apply)({"params": params}, frames)
    np.testing.assert_allclose(decoded, frames, atol=1e-4)
    distances = lambda x: np.linalg.norm(np.asarray(x).reshape(6, -1)[1:] - np.asarray(x).reshape(6, -1)[:-1], axis=1)  # noqa: E731
    np.testing.assert_allclose(distances(mean), distances(frames), rtol=1e-3)
    scales = np.asarray(mean).reshape(-1, 5).std(0)
    assert (np.diff(scales) < 0).all(), "the first component says most"


def test_more_latents_than_a_block_has_values_are_refused() -> None:
    with pytest.raises(VgenError, match="latent_channels is 13, a block of 2×2 pixels has only 12 values"):
        principal_path(np.zeros((4, 4, 4, 3), np.float32), 2, 13)
