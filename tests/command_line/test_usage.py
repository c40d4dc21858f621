"""What the command line prints instead of running."""

import pytest

from vgen_jax import runs
from vgen_jax.command_line import configs, usage
from vgen_jax.types import VgenError


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["--config=quickstart", "--help"]])
def test_the_usage_names_the_runs_and_the_lists(arguments: list[str]) -> None:
    text = usage.answer(arguments)
    assert text.startswith("usage: python -m vgen_jax.main --config=") and "--list" in text and "--help_config" in text
    assert all(f"\n  {name} " in text for name in runs.RUNS)


def test_the_runs_have_a_line_each() -> None:
    lines = usage.answer(["--list=runs"]).splitlines()
    assert [line.split()[0] for line in lines] == list(runs.RUNS)
    assert all(len(line.split()) > 3 and "`" not in line for line in lines)


def test_the_configs_and_their_variants_have_a_line_each() -> None:
    blocks = {block.split()[0]: block.splitlines() for block in usage.answer(["--list"]).split("\n\n")}
    assert list(blocks) == configs.names()
    for name, lines in blocks.items():
        described = configs.describe(name)
        assert [line.split()[0] for line in lines[2:]] == [f":{variant}" for variant in described.variants]
        defaults = [line.split()[0] for line in lines if line.endswith("[default]")]
        assert defaults == ([f":{described.default}"] if described.default else [])


def test_other_command_lines_are_not_answered() -> None:
    assert usage.answer(["--config=quickstart", "--workdir=list"]) == ""


def test_an_unknown_list_is_named() -> None:
    with pytest.raises(VgenError, match="--list=run is unknown: did you mean 'runs'"):
        usage.answer(["--list=run"])
