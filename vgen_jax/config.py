"""A section of a configuration as a frozen dataclass: an unknown or a missing key is an error that names it."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vgen_jax.types import VgenError

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

# What a run's or a task's module declares as SECTIONS: the sections of its config by their paths, ``objective.loss``,
# with ``*`` for any name, and the dataclass that each becomes, or several of which one fits.
Sections = Mapping[str, "type | types.UnionType"]

T = typing.TypeVar("T", bound="DataclassInstance")
LATER = "later"


def later(default: typing.Any) -> typing.Any:
    """A field that came after files with its section were written: where its key is missing, ``default`` is meant."""
    return dataclasses.field(default=default, metadata={LATER: True})


def section(cls: type[T], values: Mapping[str, Any], name: str) -> T:
    """A frozen dataclass from a section of the config.

    Args:
        values: the section; lists become tuples, nested mappings become the field's dataclass. Only keys of fields
            made by ``later`` may be missing.
        name: the section's path, for errors.

    Raises:
        VgenError: for an unknown or missing key, or a value of the wrong type.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls)}
    needed = {field.name for field in dataclasses.fields(cls) if not field.metadata.get(LATER)}
    for key in values:
        if key not in fields:
            guess = nearest(key, fields)
            raise VgenError(f"config key {name}.{key} is unknown: {guess}{name} has {', '.join(sorted(fields))}")
    for key in sorted(needed - set(values)):
        raise VgenError(f"config key {name}.{key} is missing: add it")
    return cls(**{key: _typed(value, hints[key], f"{name}.{key}") for key, value in values.items()})


def by_split(cls: type[T], config: Mapping[str, typing.Any], name: str) -> Iterator[T]:
    """A dataclass for each split in the section ``splits``, whose keys stand above those of the section ``name``.

    Raises:
        VgenError: see ``section``.
    """
    for split, values in config["splits"].items():
        yield section(cls, {**config[name], **values, "split": split}, f"splits.{split}")


def nearest(name: str, names: Iterable[str]) -> str:
    """A guess at what a misspelt name was meant to be, for the middle of a message; empty where nothing is near."""
    found = difflib.get_close_matches(name, sorted(names), n=1)
    return f"did you mean '{found[0]}'? " if found else ""


def closest(hint: Any, value: Mapping[str, Any]) -> Any:
    """Of several dataclasses (``A | B``) the one whose fields are most like the section's keys; else ``hint``."""
    kinds = [kind for kind in typing.get_args(hint) if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    shared = [len({field.name for field in dataclasses.fields(kind)} & set(value)) for kind in kinds]
    return kinds[shared.index(max(shared))] if kinds else hint


def _typed(value: Any, hint: Any, name: str) -> Any:
    if isinstance(value, Mapping) and typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = closest(hint, value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return section(hint, value, name)
    origin = typing.get_origin(hint)
    if origin is tuple and isinstance(value, (list, tuple)):
        of = typing.get_args(hint)
        if of[-1] is not ... and len(of) != len(value):
            raise VgenError(f"config key {name} is {value!r}: give {len(of)} values")
        each = of[:1] * len(value) if of[-1] is ... else of
        return tuple(_typed(v, h, f"{name}[{i}]") for i, (v, h) in enumerate(zip(value, each, strict=True)))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = _plain_types(hint)
    if expected and (not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected)):
        wanted = " or ".join(t.__name__ for t in expected)
        raise VgenError(f"config key {name} is {value!r}, a {type(value).__name__}: use a {wanted}")
    return value


def _plain_types(hint: Any) -> tuple[type, ...]:
    """The types that ``isinstance`` can check a value against; empty for hints it cannot."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return (str,)
    if origin in (typing.Union, types.UnionType):
        parts = [_plain_types(arg) for arg in typing.get_args(hint)]
        return tuple(t for part in parts for t in part) if all(parts) else ()
    if origin is tuple:
        return (tuple,)
    return (hint,) if isinstance(hint, type) and hint in (int, float, str, bool, type(None), Path) else ()
