"""Embeddings, convolutional and temporal blocks."""

import jax
import jax.numpy as jnp
import numpy as np

from tests import tiny
from vgen_jax.nn.embeddings import ActionEmbedding, sinusoidal
from vgen_jax.nn.resnet import Downsample, ResnetBlock, Upsample
from vgen_jax.nn.temporal import TemporalConv, TemporalTransformer
from vgen_jax.types import Array


def test_sinusoidal_embedding_is_cosines_then_sines() -> None:
    found = np.asarray(sinusoidal(jnp.asarray([[0, 7]]), 6))
    angle = 7 * 10_000.0 ** (-np.arange(3) / 3)
    assert found.shape == (1, 2, 6)
    np.testing.assert_allclose(found[0, 0], [1, 1, 1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found[0, 1], np.concatenate([np.cos(angle), np.sin(angle)]), atol=1e-6)


def test_unknown_actions_share_one_learned_vector_which_is_not_the_action_zero() -> None:
    action_BTA = jnp.asarray([[[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]]])
    module = ActionEmbedding(8)
    variables = module.init(jax.random.key(0), action_BTA, jnp.ones((1, 3), bool))
    assert not np.asarray(module.apply(variables, action_BTA, jnp.ones((1, 3), bool))).any(), "starts at zero"
    variables = tiny.random_params(module.init, action_BTA, jnp.ones((1, 3), bool))
    unknown = module.apply(variables, action_BTA, jnp.asarray([[False, False, True]]))[0]
    np.testing.assert_array_equal(unknown[0], unknown[1])
    assert float(jnp.abs(unknown[0] - unknown[2]).max()) > 1e-3


def test_down_halves_and_up_doubles() -> None:
    x = jnp.ones((2, 8, 6, 4))
    for module, shape in (
        (Downsample(), (2, 4, 3, 4)),
        (Downsample(asymmetric=True), (2, 4, 3, 4)),
        (Upsample(), (2, 16, 12, 4)),
    ):
        assert jax.eval_shape(lambda x, m=module: m.init_with_output(jax.random.key(0), x)[0], x).shape == shape


def test_the_resnet_block_adds_its_input_and_listens_to_the_embedding(rng: Array) -> None:
    x, embedding = jax.random.normal(rng, (2, 4, 4, 8)), jnp.ones((2, 6))
    module = ResnetBlock(8, groups=4)
    variables = module.init(rng, x, embedding)
    silent = jax.tree.map(jnp.zeros_like, variables)
    np.testing.assert_array_equal(module.apply(silent, x, embedding), x)
    moved = module.apply(variables, x, 2 * embedding) - module.apply(variables, x, embedding)
    assert float(jnp.abs(moved).max()) > 1e-3


def test_the_temporal_convolution_starts_as_the_identity_and_knows_the_order(rng: Array) -> None:
    x = jax.random.normal(rng, (1, 5, 3, 8))
    module = TemporalConv(groups=4)
    variables = module.init(rng, x)
    np.testing.assert_array_equal(module.apply(variables, x), x)
    variables = tiny.random_params(module.init, x)
    out, reversed_ = module.apply(variables, x), module.apply(variables, x[:, ::-1])
    assert float(jnp.abs(reversed_[:, ::-1] - out).max()) > 1e-2
    pixels = jnp.asarray([1, 2, 0])
    np.testing.assert_allclose(module.apply(variables, x[:, :, pixels]), out[:, :, pixels], atol=1e-5)


def test_the_temporal_transformer_works_at_each_pixel_and_knows_no_positions(rng: Array) -> None:
    x = jax.random.normal(rng, (1, 4, 3, 8))
    module = TemporalTransformer(heads=2, head_dim=4, groups=4)
    variables = tiny.random_params(module.init, x)
    out = module.apply(variables, x)
    order = jnp.asarray([2, 0, 3, 1])
    np.testing.assert_allclose(module.apply(variables, x[:, order]), out[:, order], atol=1e-5)
    pixels = jnp.asarray([1, 2, 0])
    np.testing.assert_allclose(module.apply(variables, x[:, :, pixels]), out[:, :, pixels], atol=1e-5)
    assert float(jnp.abs(out - x).max()) > 1e-2
