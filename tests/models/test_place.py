"""The place encoder: any size of frames, unit vectors, a size that can be carried along."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from configs.eval.place_encoder import VARIANTS
from tests import tiny
from vgen_jax.models.place import PlaceEncoder, grid_average
from vgen_jax.types import VgenError

SMALL = PlaceEncoder((8, 8), 1, 8, 4)
PARAMS = tiny.random_params(SMALL.init, jnp.zeros((1, 8, 8, 3)))["params"]
apply = tiny.jit(lambda params, x: SMALL.apply({"params": params}, x))


def frames(height: int, width: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize("size", [(8, 8), (16, 40)])
def test_one_set_of_parameters_takes_any_multiple_of_eight(size: tuple[int, int]) -> None:
    code, levels = apply(PARAMS, frames(*size))
    assert code.shape == (3, 8)
    np.testing.assert_allclose(np.linalg.norm(code, axis=-1), 1.0, rtol=1e-5)
    assert [level.shape for level in levels] == [(3, size[0] // 4, size[1] // 4, 8), (3, size[0] // 8, size[1] // 8, 8)]


def test_frames_do_not_influence_each_other() -> None:
    x = frames(16, 40)
    code, _ = apply(PARAMS, x)
    other, _ = apply(PARAMS, np.concatenate([x[:1], frames(16, 40)[1:] * 0.1]))
    np.testing.assert_allclose(code[0], other[0], atol=1e-6)
    assert np.abs(code[1] - other[1]).max() > 1e-3


def test_other_sizes_are_refused() -> None:
    with pytest.raises(VgenError, match=r"\(12, 16\).*multiples of 8"):
        jax.eval_shape(lambda: SMALL.apply({"params": PARAMS}, jnp.zeros((1, 12, 16, 3))))


def test_the_real_one_is_small() -> None:
    shape = {**VARIANTS["cpu"]["place"], "dtype": jnp.float32}
    params = jax.eval_shape(PlaceEncoder(**shape).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    count = sum(np.prod(p.shape) for p in traverse_util.flatten_dict(params).values())
    assert count <= 1.5e6 and 4 * count <= 6 * 2**20


@pytest.mark.parametrize(("size", "cells"), [(8, 4), (6, 4), (1, 4), (5, 3)])
def test_cells_average_equal_parts(size: int, cells: int) -> None:
    rows = grid_average(size, cells)
    np.testing.assert_allclose(rows.sum(axis=1), 1.0)
    # Every pixel counts alike over all cells, and pixel centres of a ramp average to the cells' centres.
    np.testing.assert_allclose(rows.sum(axis=0), cells / size)
    if size % cells == 0:
        np.testing.assert_allclose(rows @ (np.arange(size) + 0.5), (np.arange(cells) + 0.5) * size / cells)
