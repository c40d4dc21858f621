"""The notebooks as files: short, without outputs, and guarded where they install. ``.ci/run`` executes them."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
NAMES = ("01_drive_a_world", "02_memory_and_revisits", "03_your_own_data", "04_avid_on_a_black_box")


def cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_all_of_them_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == [*NAMES, "05_train_and_fine_tune"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_holds_no_outputs(path: Path) -> None:
    found = cells(path)
    assert len(found) <= 10
    code = [cell for cell in found if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert "colab-badge.svg" in source(found[0])
    assert len({cell["id"] for cell in found}) == len(found)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_installs_on_colab_alone_and_knows_a_tiny_mode(path: Path) -> None:
    code = [source(cell) for cell in cells(path) if cell["cell_type"] == "code"]
    first = code[0].replace("%pip", "pip = None  #")
    guard = next(node for node in ast.parse(first).body if isinstance(node, ast.If))
    assert "google.colab" in ast.unparse(guard.test) and "pip = None" in ast.unparse(guard)
    assert "VGEN_TINY" in first and any("TINY" in text for text in code[1:])
    assert not any("%pip" in text for text in code[1:])
