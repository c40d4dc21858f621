"""SVG-LP's networks: published sizes, orders of norm and tanh, and what batch normalisation uses when."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from configs.leap.robot import VARIANTS
from tests import tiny
from vgen_jax.config import section
from vgen_jax.learning.state import divided
from vgen_jax.models.svg_lp import MOMENTUM, SvgConfig
from vgen_jax.types import VgenError
from vgen_jax.worlds.leap_networks import LeapConfig, LeapNetworks

PAPER = section(SvgConfig, VARIANTS["paper"]["leap"], "leap")
SMALL = section(SvgConfig, VARIANTS["tiny"]["leap"], "leap")


def config(model: str, shape: SvgConfig = SMALL) -> LeapConfig:
    return LeapConfig(model, shape, *(("none", 0) if model == "svg_lp" else ("continuous", 2)))


def sizes(model: str, shape: SvgConfig = PAPER) -> dict[str, int]:
    """Parameters of each part of a model, and in all but the action networks."""
    tree, _ = divided(jax.eval_shape(LeapNetworks(config(model, shape)).init, jax.random.key(0)))
    flat = traverse_util.flatten_dict(tree, sep="/")
    found: dict[str, int] = {}
    for name, leaf in flat.items():
        part = name.split("/")[0]
        found[part] = found.get(part, 0) + int(np.prod(leaf.shape))
    return {**found, "without actions": sum(n for part, n in found.items() if "action" not in part)}


@pytest.mark.parametrize(
    ("model", "count"), [("svg_lp", 31_860_867), ("vg_leap", 31_877_251), ("causal_leap", 31_869_059)]
)
def test_published_sizes(model: str, count: int) -> None:
    found = sizes(model)
    assert (found["encoder"], found["decoder"], found["without actions"]) == (9_738_560, 12_871_235, count)


def test_thirty_two_pixels_and_narrow_ones_are_configs() -> None:
    shape = dataclasses.replace(PAPER, size=32, widths=(16, 32, 64), convs=(2, 2, 3), code=64)
    assert sizes("svg_lp", shape)["encoder"] < 300_000
    for wrong in ({"size": 20}, {"convs": (1, 1)}, {"skip_back": 0}):
        with pytest.raises(VgenError):
            dataclasses.replace(shape, **wrong)


NETWORKS = LeapNetworks(config("svg_lp"))
PARAMS, STATS = divided(tiny.random_params(NETWORKS.init))
STATS = jax.tree.map(lambda x: np.abs(x) + 0.5, STATS)
encode = tiny.jit(NETWORKS.functions.encode, static_argnums=3)


def frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 16, 16, 3)).astype(np.float32)


def test_evaluation_uses_running_averages_and_training_the_batch() -> None:
    """A frame's code in evaluation does not depend on the others, in training it does; only training changes stats."""
    x, other = frames(4), np.concatenate([frames(1), frames(3, seed=1)])
    alone, together = encode(PARAMS, STATS, x[:1], False)[0], encode(PARAMS, STATS, x, False)
    np.testing.assert_allclose(together[0][:1], alone, rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, together[2], STATS)
    trained, changed = (encode(PARAMS, STATS, video, True) for video in (x, other))
    assert np.abs(trained[0][0] - changed[0][0]).max() > 1e-3
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), trained[2]["encoder"], STATS["encoder"])
    assert min(jax.tree.leaves(moved)) > 1e-5
    jax.tree.map(np.testing.assert_array_equal, trained[2]["decoder"], STATS["decoder"])


def test_averages_of_one_batch_give_what_training_gives_for_it() -> None:
    """What the averages tend to, were that batch seen for ever, from one update of them."""
    x = frames(8)
    trained, _, moved = encode(PARAMS, STATS, x, True)
    limit = jax.tree.map(lambda new, old: (new - MOMENTUM * old) / (1 - MOMENTUM), moved, STATS)
    limit = {**STATS, "encoder": limit["encoder"]}
    np.testing.assert_allclose(encode(PARAMS, limit, x, False)[0], trained, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("last", [True, False])
def test_the_code_is_bounded_where_the_tanh_is_last(last: bool) -> None:
    networks = LeapNetworks(config("svg_lp", dataclasses.replace(SMALL, head_norm_last=last)))
    params: Any = jax.tree.map(lambda x: 5.0 * x, PARAMS)
    h = tiny.jit(networks.functions.encode, static_argnums=3)(params, STATS, frames(8), False)[0]
    assert (np.abs(h).max() > 1.0) == last


def test_cells_without_tanh_are_linear_in_their_candidate() -> None:
    free, bound = (
        LeapNetworks(config("svg_lp", dataclasses.replace(SMALL, cell_tanh=tanh))).functions for tanh in (False, True)
    )
    params = jax.tree.map(lambda x: 20.0 * x, PARAMS)
    x = jnp.ones((1, SMALL.code + SMALL.latent))
    states = [f.advance(params, "frame", f.carry("frame", 1), x)[0][0][0] for f in (free, bound)]
    assert np.abs(states[0]).max() > 1.5 and np.abs(states[1]).max() <= 1.0
