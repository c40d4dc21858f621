"""The keys of a config: what each means, and which one a misspelt one was meant to be.

A run's module says what its config has: ``SECTIONS`` maps sections to the dataclasses that they become, whose
``Attributes:`` describe their keys, or name the network that describes them; all other keys stand under ``Keys:`` in
its docstring. Its tasks add theirs in the same way (``tasks.registry``). A section with a ``run`` of its own, a
pipeline's stage for one, is described by that run.
"""

import dataclasses
import difflib
import fnmatch
import functools
import importlib
import inspect
import re
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from vgen_jax import runs
from vgen_jax.config import Sections, closest
from vgen_jax.tasks.registry import task_of
from vgen_jax.types import VgenError

EVERY_RUN = {"run": "what is run; --list=runs shows all"}


class DescribedKey(NamedTuple):
    """A key of a config, with the text that describes it, empty where none does."""

    path: str
    kind: str
    value: Any
    text: str

    def __str__(self) -> str:
        return f"{self.path} = {self.value!r}  {self.kind}: {self.text.replace('``', '')}"


def keys(config: ConfigDict) -> Iterator[DescribedKey]:
    """All keys of a config, in its order.

    Raises:
        VgenError: for a run or an objective that is unknown.
    """
    return _of_run(config.to_dict(), "")


def _of_run(config: Mapping[str, Any], path: str) -> Iterator[DescribedKey]:
    """Keys of a config that names its run; ``path`` is put before them."""
    modules = [runs.module(config["run"])]
    if "objective" in config:
        modules.append(sys.modules[task_of(config["objective"]["kind"]).__module__])
    sections = {name: kind for module in modules for name, kind in module.SECTIONS.items()}
    plain = EVERY_RUN | {name: text for module in modules for name, text in _plain(module).items()}
    yield from _below(config, path, "", sections, plain)


def _below(
    part: Mapping[str, Any], path: str, within: str, sections: Sections, plain: Mapping[str, str]
) -> Iterator[DescribedKey]:
    """Keys of a part of a config; ``path`` is from the top, ``within`` from the config of the run that describes it."""
    for name, value in part.items():
        here, inner = f"{path}{name}", f"{within}{name}"
        kind = next((kind for pattern, kind in sections.items() if _matches(inner, pattern)), None)
        if isinstance(value, Mapping) and "run" in value:
            yield from _of_run(value, f"{here}.")
        elif isinstance(value, Mapping) and kind is not None:
            yield from _fields(value, kind, here)
        elif isinstance(value, Mapping):
            yield from _below(value, f"{here}.", f"{inner}.", sections, plain)
        else:
            text = next((text for pattern, text in plain.items() if _matches(inner, pattern)), "")
            yield DescribedKey(here, type(value).__name__, value, text)


def _matches(path: str, pattern: str) -> bool:
    parts, patterns = path.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))


def _fields(values: Mapping[str, Any], hint: Any, path: str) -> Iterator[DescribedKey]:
    """Keys of a section that becomes a dataclass, or one of several."""
    kind = closest(hint, values)
    texts, hints = _described_fields(kind)
    for name, value in values.items():
        here, field = f"{path}.{name}", hints.get(name)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(closest(field, value)):
            yield from _fields(value, field, here)
        elif isinstance(value, Mapping):
            yield from (
                DescribedKey(f"{here}.{part}", type(x).__name__, x, texts.get(name, "")) for part, x in value.items()
            )
        else:
            yield DescribedKey(here, _written(field), value, texts.get(name, ""))


@functools.cache
def _described_fields(kind: type) -> tuple[dict[str, str], dict[str, Any]]:
    """The texts and the types of a dataclass's fields. Networks that its docstring names describe theirs."""
    docstring = kind.__doc__ or ""
    found = described(docstring, "Attributes:")
    for module, name in re.findall(r"``(models\.\w+)\.([A-Z]\w+)``", docstring):
        network = getattr(importlib.import_module(f"vgen_jax.{module}"), name)
        found = described(network.__doc__, "Attributes:") | found
    return found, typing.get_type_hints(kind)


def _written(hint: Any) -> str:
    """A type without the modules of its parts."""
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else re.sub(r"\b\w+\.", "", str(hint))


def _plain(module: ModuleType) -> dict[str, str]:
    return described(module.__doc__ or "", "Keys:")


def described(docstring: str, head: str) -> dict[str, str]:
    """The entries under a head of a docstring, ``name: text`` or ``name, other: text``, each text on one line."""
    lines = inspect.cleandoc(docstring).splitlines()
    if head not in lines:
        return {}
    start = lines.index(head) + 1
    indent = len(lines[start]) - len(lines[start].lstrip())
    found: list[tuple[str, str]] = []
    for line in lines[start:]:
        depth = len(line) - len(line.lstrip())
        if not line or depth < indent:
            break
        if depth == indent:
            names, _, text = line.strip().partition(": ")
            found.append((names, text.strip()))
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
    return {name.strip(): text for names, text in found for name in names.split(",")}


def check(config: ConfigDict, changed: Sequence[str]) -> None:
    """Refuses changes of keys that a config does not have.

    Args:
        changed: their paths, ``train.steps``; ``data.windows[0]`` is an item of one.

    Raises:
        VgenError: naming all of them, and the nearest ones that there are.
    """
    every = _paths(config.to_dict())
    unknown = [path for path in changed if re.sub(r"\[\d+\]", "", path) not in every]
    if unknown:
        guesses = [guess for guess in (_nearest(path, every) for path in unknown) if guess]
        hint = f"did you mean {', '.join(guesses)}? " if guesses else ""
        are = "key {} is" if len(unknown) == 1 else "keys {} are"
        raise VgenError(f"config {are.format(', '.join(unknown))} unknown: {hint}--help_config shows every key")


def _paths(part: Mapping[str, Any], path: str = "") -> list[str]:
    """All keys below a part of a config, those of sections included."""
    found = []
    for name, value in part.items():
        found.append(f"{path}{name}")
        if isinstance(value, Mapping):
            found += _paths(value, f"{path}{name}.")
    return found


def _nearest(path: str, every: Sequence[str]) -> str:
    """The key that differs least in the first part that is wrong; else one elsewhere of the same last name."""
    parts = path.split(".")
    right = next(n for n in range(len(parts) + 1) if ".".join(parts[: n + 1]) not in every)
    above = "".join(f"{part}." for part in parts[:right])
    beside = [key.removeprefix(above) for key in every if key.startswith(above) and "." not in key.removeprefix(above)]
    for name in difflib.get_close_matches(parts[right], beside, n=1):
        whole = ".".join((f"{above}{name}", *parts[right + 1 :]))
        return whole if whole in every else f"{above}{name}"
    same = [key for key in every if key.split(".")[-1] == parts[-1]]
    return min(same, key=lambda key: key.count("."), default="")
