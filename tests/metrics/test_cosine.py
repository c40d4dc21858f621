"""The cosine of frames in VGG-16's features, of any weights."""

import jax
import jax.numpy as jnp
import numpy as np

from tests import tiny
from vgen_jax.metrics.feature_nets.classifiers import VGG16, Stages
from vgen_jax.metrics.lpips import cosine_vgg16, unweighted_distance


def test_it_is_one_of_identical_frames_and_less_of_others() -> None:
    params = tiny.random_params(Stages(VGG16).init, jnp.zeros((1, 32, 32, 3)))["params"]
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    frames[1, :8] = 0
    same, other = np.asarray(cosine_vgg16(params, np.stack([[frames[0], frames[0]], [frames[0], frames[1]]])))[:, 0]
    assert abs(same - 1) < 1e-4 and 0 < other < 1 - 1e-5


def test_the_distance_of_maps_has_a_gradient_where_they_are_zero() -> None:
    """LPIPS is a training loss as well."""
    gradient = jax.grad(lambda x: unweighted_distance([x]).sum())(jnp.zeros((2, 2, 2, 3)).at[1, 0].set(1.0))
    assert np.isfinite(gradient).all()
