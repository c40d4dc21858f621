"""Memories as files."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.memory.test_context import KEYS, after, frames
from vgen_jax.learning.fast import FastConfig, init_fast
from vgen_jax.memory.anchor import Anchor
from vgen_jax.memory.context import Context
from vgen_jax.memory.files import load_memory, save_memory
from vgen_jax.memory.temp_lora import TempLoraWhole
from vgen_jax.nn.lora import LoraConfig
from vgen_jax.types import VgenError

PARAMS = {"down": {"kernel": jnp.ones((3, 4))}}
FAST = FastConfig(LoraConfig(2, 4.0, ""))


def equal(a: object, b: object) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("memory", [Anchor(), Context(5)])
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, memory: Anchor | Context) -> None:
    m, past = after(memory, 3)
    save_memory(tmp_path / "new" / "m.safetensors", m, {"kind": "x"})
    again = load_memory(tmp_path / "new" / "m.safetensors", memory.init(frames(0, 2), KEYS), {"kind": "x"})
    equal(again, m)
    equal(memory.recall(again, past, None), memory.recall(m, past, None))


@pytest.mark.parametrize("persist", [True, False])
def test_adapters_come_back_with_their_moments_and_scale(tmp_path: Path, persist: bool) -> None:
    config = dataclasses.replace(FAST, persist_optimizer=persist)
    fresh = init_fast(config, PARAMS, KEYS)
    m = jax.tree.map(lambda x: x + 1, fresh)
    save_memory(tmp_path / "m", m, {})
    equal(load_memory(tmp_path / "m", fresh, {}), m)
    assert load_memory(tmp_path / "m", fresh, {}).lora.scale == 2.0


def test_a_whole_video_may_be_of_any_length(tmp_path: Path) -> None:
    memory = TempLoraWhole(lambda keys: init_fast(FAST, PARAMS, keys), lambda state, windows, keys: state, 1)
    m, _ = after(memory, 3)
    save_memory(tmp_path / "m", m, {})
    equal(load_memory(tmp_path / "m", memory.init(frames(0, 2), KEYS), {}), m)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("missing", "m is missing: name a memory.safetensors"),
        ("damaged", "m is damaged"),
        ("settings", 'is of memory {"kind": "a"}, not {"kind": "b"}'),
        ("rank", "'down'\\]\\['a'\\] is \\(2, 3, 2\\), not \\(2, 3, 5\\)"),
        ("videos", "is \\(2, 3, 2\\), not \\(1, 3, 2\\)"),
        ("moments", "unexpected .opt_state"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, fault: str, named: str) -> None:
    path, settings = tmp_path / "m", {"kind": "a"}
    save_memory(path, init_fast(FAST, PARAMS, KEYS), settings)
    config, keys = FAST, KEYS
    if fault == "missing":
        path.unlink()
    elif fault == "damaged":
        path.write_bytes(path.read_bytes()[:40])
    elif fault == "settings":
        settings = {"kind": "b"}
    elif fault == "rank":
        config = dataclasses.replace(FAST, lora=LoraConfig(5, 4.0, ""))
    elif fault == "videos":
        keys = KEYS[:1]
    expected = init_fast(config, PARAMS, keys)
    if fault == "moments":
        expected = expected.replace(opt_state=None)
    with pytest.raises(VgenError, match=named) as error:
        load_memory(path, expected, settings)
    assert "\n" not in str(error.value)
