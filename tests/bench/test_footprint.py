"""Memory by the compiler's own analysis."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from configs.bench import memory as configs
from vgen_jax.bench.footprint import PROGRAMS, FootprintRow, Program
from vgen_jax.config import section
from vgen_jax.runs import footprint
from vgen_jax.types import VgenError
from vgen_jax.worlds.autoencoder import AutoencoderConfig
from vgen_jax.worlds.slow_networks import SlowConfig

SLOW = section(SlowConfig, configs.modelscope.TINY[0], "slow")
AUTOENCODER = section(AutoencoderConfig, configs.modelscope.TINY[1], "autoencoder")


def nbytes(shapes: Any) -> int:
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def program(what: str, **changes: Any) -> Program:
    values = {"batch": 2, "frames": 3, "height": 8, "width": 4, "dtype": "float32", "remat": "none", **changes}
    return PROGRAMS[what](FootprintRow(what, **values), SLOW, AUTOENCODER)


@pytest.mark.slow
def test_every_row_is_a_program_whose_shapes_fit() -> None:
    for what in PROGRAMS:
        function, state, batch, donated = program(what)
        out = jax.eval_shape(function, state, batch)
        if donated:
            assert jax.tree.all(jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), out[0], state))
        else:
            sizes = {"forward": (4, 2, 4), "encode": (4, 2, 4), "decode": (8, 4, 3)}
            assert jax.tree.leaves(out)[0].shape == (2, 3, *sizes[what])


@pytest.mark.slow
def test_training_holds_parameters_average_and_two_moments_in_float32() -> None:
    for dtype in ("float32", "bfloat16"):
        _, forward, _, _ = program("forward", dtype=dtype)
        _, state, _, donated = program("train", dtype=dtype)
        assert donated and nbytes(state.params) == nbytes(forward) * (1 if dtype == "float32" else 2)
        assert abs(nbytes(state) - 4 * nbytes(state.params)) < 100  # counters beside


@pytest.mark.slow
def test_a_table_of_what_is_coded_at_once(tmp_path: Path) -> None:
    config = configs.get_config("tiny")
    config.footprint.rows = tuple(("decode", 1, frames, 16, 16, "float32", "none") for frames in (1, 8))
    footprint.run(config.lock(), tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())
    one, many = (f"decode 1 {frames} 16 16 float32 none: " for frames in (1, 8))
    assert found[many + "temporary_bytes"] > 4 * found[one + "temporary_bytes"] > 0
    _, params, latents, _ = program("decode", batch=1, frames=1, height=16, width=16)
    assert found[one + "argument_bytes"] >= nbytes((params["params"]["decoder"], latents))
    assert found[one + "bytes"] >= found[one + "argument_bytes"] + found[one + "temporary_bytes"]
    table = (tmp_path / footprint.TABLE_FILE).read_text().splitlines()
    assert len(table) == 4 and table[3].startswith("| decode | 1 | 8 | 16 | 16 | float32 | none |")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rows": (("sample", 1, 1, 8, 8, "float32", "none"),)}, "footprint.rows has 'sample': use one of forward"),
        ({"rows": (("decode", 1, 1, 8, 8, "float32"),)}, "footprint.rows.0. is .*: give 7 values"),
        ({"topology": "v0:1x1"}, "footprint.topology is 'v0:1x1'"),
    ],
)
def test_what_cannot_be_compiled_is_named(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    config = configs.get_config("tiny")
    config.footprint.update(changes)
    with pytest.raises(VgenError, match=named) as caught:
        footprint.run(config.lock(), tmp_path)
    assert "\n" not in str(caught.value)
