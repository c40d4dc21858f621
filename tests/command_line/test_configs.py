"""Config files: every variant is described and there, and a short name means the same file from any folder."""

import re
import sys
from pathlib import Path

import pytest

from vgen_jax.command_line import configs
from vgen_jax.types import VgenError


def variants_of(name: str) -> list[str]:
    """The variants that a config file itself says it has."""
    with pytest.raises(VgenError) as refused:
        configs.load(f"{name}:no_such_variant")
    found = re.search(r"(?:use one of|such as) (.*)$", str(refused.value))
    return found[1].split(", ") if found else []


@pytest.mark.parametrize("name", configs.names())
def test_every_variant_is_described_and_resolves(name: str) -> None:
    described = configs.describe(name)
    assert described.summary
    assert sorted(described.variants) == sorted(variants_of(name))
    assert all(len(cells) == len(described.columns) for cells in described.variants.values())
    assert described.default in (described.variants or ("",))
    assert configs.load(name).run
    for variant in described.variants:
        assert configs.load(f"{name}:{variant}").run


def test_files_that_help_others_are_no_configs() -> None:
    assert "slow/vizdoom" in configs.names() and "common" not in configs.names()


@pytest.mark.parametrize("written", ["slow/vizdoom:tiny", "slow/vizdoom.py:tiny", "configs/slow/vizdoom.py:tiny"])
def test_a_name_means_the_same_file_from_any_folder(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert configs.located(written) == f"{configs.folder() / 'slow' / 'vizdoom.py'}:tiny"


def test_a_file_that_is_there_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.py").write_text("")
    assert configs.located("configs/quickstart.py:mine") == "configs/quickstart.py:mine"


@pytest.mark.parametrize(
    ("written", "guess"), [("quickstrat", "did you mean 'quickstart'?"), ("slow/vizdom:cpu", "'slow/vizdoom'")]
)
def test_an_unknown_name_is_answered_with_the_nearest(written: str, guess: str) -> None:
    with pytest.raises(VgenError, match=re.escape(guess)):
        configs.located(written)


def test_an_unknown_variant_is_answered_with_the_nearest() -> None:
    with pytest.raises(VgenError, match="no variant 'tinny': did you mean 'tiny'[?] use one of tiny, cpu"):
        configs.load("slow/vizdoom:tinny")


@pytest.fixture
def no_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a program that has imported no config yet."""
    for name in [name for name in sys.modules if name == "configs" or name.startswith("configs.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not (Path(path) / "configs").is_dir()])


@pytest.mark.usefixtures("no_configs")
def test_a_config_finds_its_neighbours_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own come first: those below the folder ``configs`` in which it lies; then those of the package."""
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "elsewhere" / "configs"
    mine.mkdir(parents=True)
    (mine / "sizes.py").write_text("STEPS = 7\n")
    (mine / "mine.py").write_text(
        "from configs import common, sizes\n"
        "from ml_collections import ConfigDict\n"
        "def get_config():\n    return ConfigDict({'run': 'train', 'sampler': common.sampler(sizes.STEPS)})\n"
    )
    assert configs.load(str(mine / "mine.py")).sampler.steps == 7


TABLE = """A config.

variant  size   what
one      8×8    a cell
                that goes on
two             another

variant three is not of the table.
"""


def test_a_table_is_read_by_its_columns() -> None:
    assert configs.table(TABLE) == (("size", "what"), {"one": ("8×8", "a cell that goes on"), "two": ("", "another")})
    assert configs.table("A config without variants.") == ((), {})
    with pytest.raises(ValueError, match="runs into the next column"):
        configs.table("variant  size\nmuch_too_long  8×8\n")
