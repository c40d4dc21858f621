"""The action predictor: any length and size, in the order of time, small enough to be carried along."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from configs.eval.action_predictor import VARIANTS
from tests import tiny
from vgen_jax.models.action_nets import ActionPredictor
from vgen_jax.types import VgenError

SMALL = ActionPredictor(3, (8, 8), 1, 16, 1, 4)
PARAMS = tiny.random_params(SMALL.init, jnp.zeros((1, 2, 8, 8, 3)))["params"]
apply = tiny.jit(lambda params, x: SMALL.apply({"params": params}, x))


def clips(frames: int, height: int = 16, width: int = 24) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (2, frames, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize("frames", [2, 7])
def test_a_clip_has_an_action_fewer_than_frames(frames: int) -> None:
    found, features = apply(PARAMS, clips(frames))
    assert found.shape == (2, frames - 1, 3) and features.shape == (2, frames - 1, 16)


def test_a_step_is_seen_by_its_neighbours_alone() -> None:
    """One mixer of three steps: frame 4 is in steps 3 and 4, which reach steps 2 to 5 and no others."""
    x = clips(9)
    other = x.copy()
    other[0, 4] *= -1
    changed = np.abs(np.asarray(apply(PARAMS, x)[0] - apply(PARAMS, other)[0])).max(-1)
    np.testing.assert_array_equal(changed[0] > 1e-6, [False, False, True, True, True, True, False, False])
    assert changed[1].max() < 1e-6


def test_it_knows_which_frame_comes_first() -> None:
    x = clips(2)
    assert np.abs(np.asarray(apply(PARAMS, x)[0] - apply(PARAMS, x[:, ::-1])[0])).max() > 1e-3


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 12, 16)])
def test_clips_that_show_no_actions_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(VgenError, match="2 frames or more, of multiples of 8"):
        jax.eval_shape(lambda: SMALL.apply({"params": PARAMS}, jnp.zeros((1, *shape, 3))))


def test_the_bundled_one_fits_into_a_mebibyte() -> None:
    shape = {**VARIANTS["vizdoom"]["net"], "dtype": jnp.float32}
    params = jax.eval_shape(ActionPredictor(3, **shape).init, jax.random.key(0), jnp.zeros((1, 2, 64, 64, 3)))
    count = sum(np.prod(p.shape) for p in traverse_util.flatten_dict(params["params"]).values())
    assert 2 * count <= 2**20  # float16
