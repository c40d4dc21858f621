"""Checks in tests what an array's name says of its axes: ``x_BTHWC`` has five, and B is one number in all of a call.

``checked`` wraps a function; ``checking`` wraps, as long as it lasts, every public function and method of the modules
that it is given, wherever it has been imported to. Nothing of the library knows of it.

Of what a call is given by itself every letter is one size. Of the arrays within an argument or a result (a Condition, a
Past) the number of axes and B are checked: their T and C are their own. A digit is a size; names without a suffix are
not looked at, nor are arguments that are no arrays.
"""

import contextlib
import dataclasses
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

SUFFIX = re.compile(r"^\w*[a-z0-9]_([A-Z][A-Z0-9]*)$")
NOT_AXES = {"x_T"}  # the noise that sampling begins with: x at the last step, T


class WrongAxes(AssertionError):
    """An array is not what its name says."""


def axes_of(name: str) -> str:
    """``BTHWC`` of ``x_BTHWC``; empty without a suffix."""
    found = SUFFIX.match(name)
    return found[1] if found and name not in NOT_AXES else ""


def check(where: str, name: str, value: Any, sizes: dict[str, int], shared: str | None = None) -> None:
    """Checks one array, if the name has a suffix and the value is an array.

    Args:
        sizes: what letters were before; those of this array are added.
        shared: the letters to compare; ``None`` for all of them.
    """
    axes = axes_of(name)
    if not axes or not isinstance(value, (jax.Array, np.ndarray)):
        return
    if len(axes) != value.ndim:
        raise WrongAxes(f"{where}: {name} has shape {value.shape}")
    for axis, size in zip(axes, value.shape, strict=True):
        if axis.isdigit():
            known = int(axis)
        elif shared is not None and axis not in shared:
            continue
        else:
            known = sizes.setdefault(axis, size)
        if known != size:
            raise WrongAxes(f"{where}: {name} has shape {value.shape}, but {axis} is {known}")


def check_within(where: str, value: Any, sizes: dict[str, int]) -> None:
    """Checks the arrays in a dataclass or a NamedTuple, at any depth."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        fields = value._asdict()
    else:
        return
    for name, part in fields.items():
        check(f"{where}, {type(value).__name__}", name, part, sizes, "B")
        check_within(where, part, sizes)


def checked(function: Callable) -> Callable:
    """The function, with its arguments and its result checked."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        sizes: dict[str, int] = {}
        arguments = signature.bind(*args, **kwargs).arguments
        for name, value in arguments.items():
            check(function.__qualname__, name, value, sizes)
        for value in arguments.values():
            check_within(function.__qualname__, value, sizes)
        result = function(*args, **kwargs)
        check_within(function.__qualname__, result, sizes)
        return result

    return call


def seams(module: Any) -> Iterator[tuple[Any, str, Callable]]:
    """(owner, name, function) of every public function and method that a module defines."""
    for name, value in list(vars(module).items()):
        if name.startswith("_") or getattr(value, "__module__", "") != module.__name__:
            continue
        if inspect.isfunction(value):
            yield module, name, value
        elif inspect.isclass(value):
            methods = [(n, f) for n, f in vars(value).items() if inspect.isfunction(f) and not n.startswith("_")]
            yield from ((value, n, f) for n, f in methods)


@contextlib.contextmanager
def checking(*names: str) -> Iterator[int]:
    """Checks the modules of these names; gives how many functions that are."""
    undo: list[tuple[Any, str, Callable]] = []
    found = [seam for name in names for seam in seams(importlib.import_module(name))]
    for owner, name, function in found:
        wrapped = checked(function)
        holders = [owner] if inspect.isclass(owner) else list(sys.modules.values())
        for holder in holders:
            if getattr(holder, "__dict__", {}).get(name) is function:
                setattr(holder, name, wrapped)
                undo.append((holder, name, function))
    try:
        yield len(found)
    finally:
        for holder, name, function in undo:
            setattr(holder, name, function)
