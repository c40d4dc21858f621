"""Exports: written, read again, damaged, of another network."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.flax

from tests.learning.test_checkpoint import assert_same
from vgen_jax.files.exports import EXPORT_WEIGHTS, check_matches, digest, export, load_export
from vgen_jax.types import VgenError


def test_an_export_comes_back_in_any_dtype(tmp_path: Path) -> None:
    params = {"a": {"b": jnp.arange(4, dtype=jnp.bfloat16)}, "c": np.ones((2, 3), np.float32)}
    export(tmp_path / "export", params, {"scale": 0.5, "sizes": (1, 2)})
    found, config = load_export(tmp_path / "export")
    assert_same(found, params)
    assert found["a"]["b"].dtype == jnp.bfloat16 and config == {"scale": 0.5, "sizes": [1, 2]}
    assert set(safetensors.flax.load_file(tmp_path / "export" / EXPORT_WEIGHTS)) == {"a/b", "c"}


def test_an_export_replaces_another_and_changes_the_digest(tmp_path: Path) -> None:
    digests = []
    for value in (1.0, 1.0, 2.0):
        export(tmp_path, {"a": jnp.full(3, value)}, {})
        digests.append(digest(tmp_path))
    assert digests[0] == digests[1] != digests[2]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("fault", ["truncated", "empty", "config", "no weights", "no config"])
def test_a_damaged_export_is_refused_in_one_line(tmp_path: Path, fault: str) -> None:
    export(tmp_path, {"a": jnp.ones(1000)}, {"x": 1})
    weights = tmp_path / EXPORT_WEIGHTS
    data = weights.read_bytes()
    if fault in ("truncated", "empty"):
        weights.write_bytes(data[: len(data) // 2] if fault == "truncated" else b"")
    elif fault == "config":
        (tmp_path / "config.json").write_text('{"x": ')
    else:
        (weights if fault == "no weights" else tmp_path / "config.json").unlink()
    with pytest.raises(VgenError, match=str(tmp_path)) as error:
        load_export(tmp_path)
    assert "\n" not in str(error.value)


def test_every_difference_is_listed() -> None:
    want = {"a": jnp.ones(2), "b": {"c": jnp.ones((2, 3)), "d": jnp.ones(1)}}
    have = {"a": jnp.ones(2), "b": {"c": jnp.ones((3, 2))}, "e": jnp.ones(1)}
    check_matches(want, want, Path("x"))
    with pytest.raises(VgenError) as error:
        check_matches(have, want, Path("folder"))
    for part in ("folder", "missing b/d", "unexpected e", "b/c is (3, 2), not (2, 3)"):
        assert part in str(error.value)
