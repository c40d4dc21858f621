"""Config files: where they are, what a short name of one means, what each has to say of its variants.

``quickstart`` and ``slow/vizdoom:cpu`` name files of the folder ``configs``, which lies beside the package in a clone
and within it (``vgen_jax.configs``) where a wheel was installed. A path to any other file is taken as it is.

The variants stand in a file's docstring, in a table whose first column is headed ``variant``: columns are apart by two
spaces or more and begin where their heads begin; a row that begins with a space goes on with the one above; the table
ends at an empty line.
"""

import ast
import importlib.util
import inspect
import re
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from vgen_jax.config import nearest
from vgen_jax.types import VgenError

PACKAGE = Path(__file__).parent.parent
NAMESPACE = "configs"  # config files import each other as ``configs.…``


class Description(NamedTuple):
    """What a config file says of itself.

    Attributes:
        name: its short name, ``slow/vizdoom``.
        summary: the first line of its docstring.
        default: the variant without ``:variant``; empty where there are none.
        columns: the heads of the table of variants, without ``variant``.
        variants: the cells of each variant, one per column.
    """

    name: str
    summary: str
    default: str
    columns: tuple[str, ...]
    variants: Mapping[str, tuple[str, ...]]


def folder() -> Path:
    """The configs that belong to this package."""
    within = PACKAGE / NAMESPACE
    return within if within.is_dir() else PACKAGE.parent / NAMESPACE


def names() -> list[str]:
    """The short names of all configs; files that only help others have no ``get_config``."""
    found = folder().rglob("*.py")
    return sorted(
        path.relative_to(folder()).with_suffix("").as_posix() for path in found if _get_config(path) is not None
    )


def located(argument: str) -> str:
    """``FILE[:VARIANT]`` for ``NAME[:VARIANT]``; a file that is there stays as it was written.

    Raises:
        VgenError: for neither a file nor a name.
    """
    written, colon, variant = argument.partition(":")
    if Path(written).is_file():
        return argument
    name = written.removeprefix(f"{NAMESPACE}/").removesuffix(".py")
    path = folder() / f"{name}.py"
    if not path.is_file() or _get_config(path) is None:
        guess = nearest(name, names())
        raise VgenError(f"config {written} is neither a file nor a name: {guess}--list shows the names of all configs")
    return f"{path}{colon}{variant}"


def make_importable(path: Path) -> None:
    """Lets a config file import its neighbours, ``from configs import common``, wherever the program was started.

    Neighbours are those below the folder ``configs`` that the file lies in, and those of this package.
    """
    own = [parent for parent in path.resolve().parents if parent.name == NAMESPACE]
    if NAMESPACE not in sys.modules:
        package = types.ModuleType(NAMESPACE)
        package.__path__ = [str(found) for found in dict.fromkeys((*own, folder().resolve()))]
        sys.modules[NAMESPACE] = package


def load(argument: str) -> ConfigDict:
    """The config of ``FILE[:VARIANT]`` or ``NAME[:VARIANT]``, without what a command line changes in it.

    Raises:
        VgenError: for a file or a variant that is not there.
    """
    file, _, variant = located(argument).partition(":")
    make_importable(Path(file))
    spec = importlib.util.spec_from_file_location("config", file)
    if spec is None or spec.loader is None:
        raise VgenError(f"config {file} is no Python file: give one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if variant and not inspect.signature(module.get_config).parameters:
        raise VgenError(f"{file} has no variants: leave out ':{variant}'")
    try:
        return module.get_config(variant) if variant else module.get_config()
    except ValueError as error:  # of a variant that it does not have
        raise VgenError(str(error)) from error


def describe(name: str) -> Description:
    """What a config file says of itself, read without running it."""
    path = folder() / f"{name}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    columns, variants = table(docstring)
    function = _get_config(path)
    defaults = function.args.defaults if function is not None else []
    default = defaults[0].value if defaults and isinstance(defaults[0], ast.Constant) else ""
    return Description(name, docstring.partition("\n")[0], str(default), columns, variants)


def table(docstring: str) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The heads, without ``variant``, and the cells of each variant; nothing where the docstring has no such table.

    Raises:
        ValueError: for a cell that runs into the next column.
    """
    lines = docstring.splitlines()
    heads = [number for number, line in enumerate(lines) if re.match(r"variant(  |$)", line)]
    if not heads:
        return (), {}
    head = list(re.finditer(r"\S+(?: \S+)*", lines[heads[0]]))
    starts = [match.start() for match in head]
    rows: list[list[str]] = []
    for line in lines[heads[0] + 1 :]:
        if not line.strip():
            break
        if any(len(line) > start and line[start - 1] != " " for start in starts[1:]):
            raise ValueError(f"a cell runs into the next column: {line}")
        cells = [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
        if cells[0]:
            rows.append(cells)
        else:
            rows[-1] = [f"{above} {cell}".strip() for above, cell in zip(rows[-1], cells, strict=True)]
    return tuple(match.group() for match in head[1:]), {row[0]: tuple(row[1:]) for row in rows}


def _get_config(path: Path) -> ast.FunctionDef | None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "get_config")
    return next(functions, None)
