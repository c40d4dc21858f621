"""The pages that list things list all of them, and their links lead somewhere."""

import re
from pathlib import Path

import pytest

from vgen_jax.runs import RUNS

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def test_every_run_is_listed() -> None:
    rows = [line for line in (ROOT / "docs/runs.md").read_text().splitlines() if line.startswith("|")]
    listed = {name for line in rows for name in re.findall(r"`([a-z_]+)`", line.split("|")[1])}
    assert listed == set(RUNS)


def test_every_part_is_listed() -> None:
    text = (ROOT / "docs/layout.md").read_text()
    parts = {path.parent.name for path in ROOT.glob("vgen_jax/*/__init__.py")}
    rows = {match for line in text.splitlines() for match in re.findall(r"^\| `([a-z_]+)` \|", line)}
    assert rows == parts
    assert {path.name for path in ROOT.glob("vgen_jax/*.py")} == set(re.findall(r"^  (\w+\.py) ", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_named_configs_exist(page: Path) -> None:
    for file in re.findall(r"configs/[\w/]+\.py", page.read_text()):
        assert (ROOT / file).is_file(), file


def test_the_front_page_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
