"""The one engine that renames and re-lays parameters between an original's state dict and a Flax network.

A conversion is a list of ``Rule``: a module's name in the original, its path here, and what kind of module it is.
Names may hold placeholders, ``{i}``, that stand for a number and are the same on both sides::

    Rule("down_blocks.0.resnets.{i}.conv1", "down_0_layer_{i}/resnet/conv1", CONV)

A kind says how each tensor of such a module is called on the two sides and how its axes are laid out, as an einops
pattern from the original's to ours. Both directions are read off the same rules: patterns are turned round, names are
matched on one side and filled in on the other. The network's own shapes (``jax.eval_shape``) say which tensors there
have to be, so that every key is accounted for in either direction.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from einops import EinopsError, rearrange
from flax import traverse_util

from vgen_jax.convert.files import Stored
from vgen_jax.types import Params, VgenError

LISTED = 4  # keys of each fault that an error names; the rest are counted


class Leaf(NamedTuple):
    """One tensor of a module: its name there, its name here (empty: the rule's path is the tensor), its layout."""

    original: str
    ours: str
    layout: str


Kind = tuple[Leaf, ...]

BIAS = Leaf("bias", "bias", "o -> o")
LINEAR: Kind = (Leaf("weight", "kernel", "o i -> i o"), BIAS)
CONV: Kind = (Leaf("weight", "kernel", "o i h w -> h w i o"), BIAS)
TEMPORAL_CONV: Kind = (Leaf("weight", "kernel", "o i t h 1 -> t h i o"), BIAS)  # (3, 1, 1) as (3, 1): space is folded
NORM: Kind = (Leaf("weight", "scale", "o -> o"), BIAS)
EMBEDDING: Kind = (Leaf("weight", "embedding", "n d -> n d"),)
TABLE: Kind = (Leaf("weight", "", "n d -> n d"),)  # an embedding there, a plain parameter here


class Rule(NamedTuple):
    """``original``: a module there, dots between parts. ``ours``: a module (or parameter) here, slashes between."""

    original: str
    ours: str
    kind: Kind


def nest(original: str, ours: str, rules: Iterable[Rule]) -> list[Rule]:
    """The rules of a module's parts as rules of the whole: each name behind the module's own."""
    return [Rule(f"{original}.{rule.original}", f"{ours}/{rule.ours}", rule.kind) for rule in rules]


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    """Matches what ``template`` can stand for; each placeholder becomes a named group of digits."""
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile("".join(rf"(?P<{part}>\d+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)))


class Entry(NamedTuple):
    """A tensor of a network under both its names. ``shape`` and ``layout`` lead from the original to ours."""

    path: str
    name: str
    layout: str
    shape: tuple[int, ...]


def entries(rules: Iterable[Rule], shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Entry], list[str]]:
    """Every tensor of a network by its name in the original, and the paths that no rule covers.

    Args:
        shapes: path (``flat_shapes``) -> shape.

    Raises:
        ValueError: if two tensors would get one name, or a layout does not fit: the rules are wrong.
    """
    by_leaf: dict[str, list[tuple[str, str, str]]] = {}
    for rule in rules:
        for leaf in rule.kind:
            path = f"{rule.ours}/{leaf.ours}" if leaf.ours else rule.ours
            template = (path, f"{rule.original}.{leaf.original}", leaf.layout)
            by_leaf.setdefault(_last(path), []).append(template)
    found: dict[str, Entry] = {}
    uncovered = []
    for path, shape in shapes.items():
        named = _named(path, by_leaf.get(_last(path), []))
        if named is None:
            uncovered.append(path)
            continue
        name, layout = named
        if name in found:
            raise ValueError(f"{path} and {found[name].path} are both called {name} in the original")
        found[name] = Entry(path, name, layout, _relaid(shape, _turned(layout)))
    return found, uncovered


def _named(path: str, templates: list[tuple[str, str, str]]) -> tuple[str, str] | None:
    """The name and layout that the first of the templates which matches gives a path."""
    for ours, original, layout in templates:
        if match := _pattern(ours).fullmatch(path):
            return original.format(**match.groupdict()), layout
    return None


def _last(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def flat_shapes(params: Any) -> dict[str, tuple[int, ...]]:
    """Path -> shape of a tree of arrays or of ``jax.eval_shape``'s structs."""
    return {path: tuple(leaf.shape) for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}


def to_ours(
    tensors: Mapping[str, Stored],
    rules: Iterable[Rule],
    expected: Any,
    source: object,
    *,
    dtype: Any = np.float32,
    old_names: Mapping[str, str] | None = None,
    ignored: Iterable[str] = (),
) -> Params:
    """The network's parameters from the original's tensors, read and re-laid one by one.

    Args:
        tensors: the original's, by name (``convert.files.read_weights``).
        expected: the network's ``jax.eval_shape(init)["params"]``.
        source: where the tensors come from, for errors.
        dtype: of the result's arrays (NumPy, in host memory).
        old_names: regular expressions on names that older files use -> their replacement, as for ``re.sub``.
        ignored: regular expressions of tensors that the original stores but that are no parameters.

    Raises:
        VgenError: for missing, unexpected or wrongly shaped tensors, all in one line.
    """
    have: dict[str, Stored] = {}
    skipped = [re.compile(pattern) for pattern in ignored]
    for name, tensor in tensors.items():
        for old, new in (old_names or {}).items():
            name = re.sub(old, new, name)
        if not any(pattern.fullmatch(name) for pattern in skipped):
            have[name] = tensor
    want, uncovered = entries(rules, flat_shapes(expected))
    if uncovered:
        raise ValueError(f"no rule covers {', '.join(uncovered[:LISTED])}")
    shared = sorted(want.keys() & have.keys())
    wrong = [f"{n} is {have[n].shape}, not {want[n].shape}" for n in shared if not _fits(have[n].shape, want[n].shape)]
    _refuse(
        source, missing=sorted(want.keys() - have.keys()), unexpected=sorted(have.keys() - want.keys()), wrong=wrong
    )
    flat = {entry.path: _read(have[name], entry, dtype) for name, entry in want.items()}
    return traverse_util.unflatten_dict(flat, sep="/")


def _read(tensor: Stored, entry: Entry, dtype: Any) -> np.ndarray:
    """A tensor in our layout. A function, so that what was read is freed before the next is."""
    array = rearrange(np.asarray(tensor.read()).reshape(entry.shape), entry.layout)
    return np.ascontiguousarray(array, dtype=dtype)


def to_original(params: Params, rules: Iterable[Rule], expected: Any, source: object = "memory") -> dict[str, Stored]:
    """The original's tensors from the network's parameters; each is re-laid when it is read, not before.

    Args:
        params: arrays of NumPy or JAX, host or device.
        expected: as in ``to_ours``: what a network of this configuration has.
        source: where the parameters come from, for errors.

    Raises:
        VgenError: if the parameters are not those of the configuration, or the original has no place for one.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    have, want = flat_shapes(params), flat_shapes(expected)
    wrong = [f"{p} is {have[p]}, not {want[p]}" for p in sorted(want.keys() & have.keys()) if have[p] != want[p]]
    _refuse(
        source, missing=sorted(want.keys() - have.keys()), unexpected=sorted(have.keys() - want.keys()), wrong=wrong
    )
    found, uncovered = entries(rules, have)
    if uncovered:
        raise VgenError(
            f"the original has no place for {_some(uncovered)}: only a network without them can be converted"
        )

    def read(entry: Entry) -> np.ndarray:
        array = rearrange(np.asarray(jax.device_get(flat[entry.path])), _turned(entry.layout))
        return np.ascontiguousarray(array)

    return {
        name: Stored(entry.shape, np.dtype(flat[entry.path].dtype), functools.partial(read, entry))
        for name, entry in found.items()
    }


def _turned(layout: str) -> str:
    before, after = layout.split(" -> ")
    return f"{after} -> {before}"


def _relaid(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    try:
        return tuple(rearrange(np.broadcast_to(np.int8(0), shape), layout).shape)
    except EinopsError as error:
        raise ValueError(f"the layout {layout} does not fit the shape {shape}") from error


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Older files hold some matrices as 1×1 convolutions."""
    return shape == wanted or (len(wanted) == 2 and shape == (*wanted, 1, 1))


def _some(names: list[str]) -> str:
    rest = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _refuse(source: object, **faults: list[str]) -> None:
    found = [
        f"{len(names)} {fault.replace('wrong', 'of another shape')}: {_some(names)}"
        for fault, names in faults.items()
        if names
    ]
    if found:
        raise VgenError(
            f"the weights in {source} do not fit the network ({'; '.join(found)}): use the config.json that they "
            "came with, or whole files"
        )
