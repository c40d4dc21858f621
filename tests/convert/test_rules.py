"""The rename engine: both directions from one list of rules, every key accounted for."""

import functools
import weakref
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
import torch

from vgen_jax.convert.files import Stored
from vgen_jax.convert.rules import (
    CONV,
    EMBEDDING,
    LINEAR,
    NORM,
    TABLE,
    TEMPORAL_CONV,
    Kind,
    Rule,
    entries,
    flat_shapes,
    nest,
    to_original,
    to_ours,
)
from vgen_jax.types import VgenError

INNER = [Rule("to_out.0", "to_out", LINEAR), Rule("norm{n}", "norm{n}", NORM)]
RULES = [
    Rule("token", "token", EMBEDDING),
    Rule("position", "position", TABLE),
    Rule("time.{i}.1", "time_{i}", TEMPORAL_CONV),
    *nest("blocks.{i}", "block_{i}", INNER),
    *(rule for i in range(2) for rule in nest(f"up.{1 - i}", f"up_{i}", [Rule("conv", "conv", CONV)])),
]
TENSORS = {
    "token.weight": (7, 3), "position.weight": (5, 3), "time.2.1.weight": (4, 3, 3, 1, 1), "time.2.1.bias": (4,),
    "blocks.0.to_out.0.weight": (2, 3), "blocks.0.to_out.0.bias": (2,), "blocks.11.to_out.0.weight": (6, 3),
    "blocks.11.norm3.weight": (3,), "blocks.11.norm3.bias": (3,), "up.0.conv.weight": (5, 4, 3, 2),
    "up.1.conv.weight": (6, 5, 1, 1), "up.1.conv.bias": (6,),
}  # fmt: skip
EXPECTED = {
    "token": {"embedding": (7, 3)}, "position": (5, 3), "time_2": {"kernel": (3, 1, 3, 4), "bias": (4,)},
    "block_0": {"to_out": {"kernel": (3, 2), "bias": (2,)}},
    "block_11": {"to_out": {"kernel": (3, 6)}, "norm3": {"scale": (3,), "bias": (3,)}},
    "up_1": {"conv": {"kernel": (3, 2, 4, 5)}}, "up_0": {"conv": {"kernel": (1, 1, 5, 6), "bias": (6,)}},
}  # fmt: skip


def expected(shapes: Any = EXPECTED) -> Any:
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, np.float32), shapes, is_leaf=lambda s: isinstance(s, tuple))


def stored(shapes: Mapping[str, tuple[int, ...]] = TENSORS) -> dict[str, Stored]:
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {name: Stored(array.shape, array.dtype, lambda a=array: a) for name, array in arrays.items()}


def test_there_and_back() -> None:
    tensors = stored()
    params = to_ours(tensors, RULES, expected(), "here")
    assert flat_shapes(params) == flat_shapes(expected())
    back = to_original(params, RULES, expected())
    assert back.keys() == tensors.keys()
    for name, tensor in back.items():
        assert tensor.shape == tensors[name].shape and tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor.read(), tensors[name].read())


@pytest.mark.parametrize(
    ("kind", "theirs", "ours", "shape"),
    [
        (LINEAR, torch.nn.Linear(3, 5), nn.Dense(5), (2, 3)),
        (CONV, torch.nn.Conv2d(3, 5, (3, 2)), nn.Conv(5, (3, 2), padding="VALID"), (2, 4, 6, 3)),
        (TEMPORAL_CONV, torch.nn.Conv3d(3, 5, (3, 1, 1)), nn.Conv(5, (3, 1), padding="VALID"), (2, 4, 6, 3)),
        (NORM, torch.nn.GroupNorm(2, 4), nn.GroupNorm(2, epsilon=1e-5), (2, 3, 4)),
    ],
)
def test_a_layout_means_the_same_on_both_sides(
    kind: Kind, theirs: Any, ours: nn.Module, shape: tuple[int, ...]
) -> None:
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    state = {f"a.{name}": p.detach().numpy() for name, p in theirs.named_parameters()}
    tensors = {name: Stored(a.shape, a.dtype, lambda a=a: a) for name, a in state.items()}
    shapes = {"m": jax.eval_shape(ours.init, jax.random.key(0), x)["params"]}
    params = to_ours(tensors, [Rule("a", "m", kind)], shapes, "here")["m"]
    columns_last = torch.tensor(x) if kind is LINEAR else torch.tensor(x).movedim(-1, 1)
    if kind is TEMPORAL_CONV:
        columns_last = columns_last[..., None]
    y = theirs(columns_last).detach()
    y = y.squeeze(-1) if kind is TEMPORAL_CONV else y
    y = y if kind is LINEAR else y.movedim(1, -1)
    np.testing.assert_allclose(ours.apply({"params": params}, x), y.numpy(), rtol=1e-4, atol=1e-5)


def test_faults_are_listed_in_one_line_and_counted() -> None:
    tensors = stored({**TENSORS, "token.weight": (3, 7), **{f"extra.{i}": (1,) for i in range(9)}})
    del tensors["up.1.conv.bias"], tensors["blocks.0.to_out.0.bias"]
    with pytest.raises(VgenError) as caught:
        to_ours(tensors, RULES, expected(), "some/folder")
    text = str(caught.value)
    assert "\n" not in text and "some/folder" in text
    assert "2 missing: blocks.0.to_out.0.bias, up.1.conv.bias;" in text
    assert "9 unexpected: extra.0, extra.1, extra.2, extra.3 and 5 more;" in text
    assert "1 of another shape: token.weight is (3, 7), not (7, 3)" in text


def test_older_files() -> None:
    """Other names, matrices as 1×1 convolutions, tensors that are no parameters, fp16."""
    tensors = stored({**TENSORS, "blocks.0.to_out.0.weight": (2, 3, 1, 1), "position_ids": (1, 5)})
    tensors["token.table"] = tensors.pop("token.weight")
    half = {
        n: Stored(t.shape, np.dtype(np.float16), lambda t=t: t.read().astype(np.float16)) for n, t in tensors.items()
    }
    old = {r"^token\.table$": "token.weight"}
    params = to_ours(half, RULES, expected(), "here", old_names=old, ignored=("position_ids",), dtype=np.float32)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
    np.testing.assert_array_equal(params["token"]["embedding"], half["token.table"].read())
    np.testing.assert_array_equal(
        params["block_0"]["to_out"]["kernel"], half["blocks.0.to_out.0.weight"].read()[..., 0, 0].T
    )
    with pytest.raises(VgenError, match="1 missing: token.weight; 2 unexpected: position_ids, token.table"):
        to_ours(half, RULES, expected(), "here")


def test_parameters_of_another_configuration_are_refused() -> None:
    params = to_ours(stored(), RULES, expected(), "here")
    with pytest.raises(VgenError, match="1 missing: more; 1 of another shape: position is .5, 3., not .6, 3."):
        to_original(params, RULES, expected({**EXPECTED, "position": (6, 3), "more": (2,)}), "here")


def test_parameters_that_the_original_lacks_are_refused() -> None:
    params = {**to_ours(stored(), RULES, expected(), "here"), "action": {"bias": np.zeros(2)}}
    with pytest.raises(VgenError, match="no place for action/bias"):
        to_original(params, RULES, expected({**EXPECTED, "action": {"bias": (2,)}}))


def test_rules_that_give_two_tensors_one_name_are_found() -> None:
    rules = [Rule("x.norm", "norm{n}", NORM)]
    with pytest.raises(ValueError, match="both called x.norm.weight"):
        entries(rules, {"norm1/scale": (3,), "norm2/scale": (3,)})


def test_one_tensor_at_a_time_is_in_memory() -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    def read(shape: tuple[int, ...]) -> np.ndarray:
        assert not any(reference() is not None for reference in alive), "the one before is still held"
        array = np.ones(shape, np.float16)
        alive.append(weakref.ref(array))
        return array

    tensors = {n: Stored(s, np.dtype(np.float16), functools.partial(read, s)) for n, s in TENSORS.items()}
    params = to_ours(tensors, RULES, expected(), "here")
    assert len(alive) == len(TENSORS)
    written = to_original(params, RULES, expected())
    for name in ("blocks.11.to_out.0.weight", "up.0.conv.weight", "time.2.1.weight"):
        assert written[name].read() is not written[name].read(), "re-laid when asked for, and not kept"
