"""What ``main`` prints instead of running: its usage, the configs, the runs."""

import ast
import re
from collections.abc import Sequence

from vgen_jax import runs
from vgen_jax.command_line import configs
from vgen_jax.config import nearest
from vgen_jax.types import VgenError

HELP = ("-h", "-help", "--help", "-helpfull", "--helpfull", "-helpshort", "--helpshort", "-?", "--?")
USAGE = """usage: python -m vgen_jax.main --config=NAME[:VARIANT] --workdir=FOLDER [--config.KEY=VALUE ...]

  --config=quickstart       what to run: the name of a config, or a file, my/config.py:variant
  --workdir=out             where everything is written
  --config.KEY=VALUE        changes a key of the config, --config.train.steps=100
  --list                    lists the configs and their variants; --list=runs lists the runs
  --help_config             with --config: prints every key, its value, type and meaning, and runs nothing

Start with

  python -m vgen_jax.main --config=quickstart --workdir=out

Runs, of which a config names one (its key run):
"""


def answer(arguments: Sequence[str]) -> str:
    """The text that was asked for, where that is the usage or a list; else empty.

    Raises:
        VgenError: for a list that there is not.
    """
    if not arguments or any(argument in HELP for argument in arguments):
        return USAGE + run_list()
    for argument in arguments:
        name, _, what = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "list":
            lists = {"": config_list, "configs": config_list, "runs": run_list}
            if what not in lists:
                raise VgenError(f"--list={what} is unknown: {nearest(what, lists)}use --list or --list=runs")
            return lists[what]()
    return ""


def run_list() -> str:
    """A line for each run, from its docstring, without importing it."""
    width = max(map(len, runs.RUNS))
    return "\n".join(f"  {name:{width}}  {_summary(name)}" for name in runs.RUNS)


def _summary(run: str) -> str:
    tree = ast.parse((configs.PACKAGE / "runs" / f"{run}.py").read_text(encoding="utf-8"))
    line = (ast.get_docstring(tree) or "").partition("\n")[0]
    return re.sub(r" \(``[\w.]+``\)", "", line.removeprefix(f"Run ``{run}``: ")).replace("``", "")


def config_list() -> str:
    """The name of each config, what it is for, and a line for each variant, under the heads of its table."""
    lines = []
    for config in map(configs.describe, configs.names()):
        lines += ["", f"{config.name}  {config.summary}"]
        width = max(map(len, config.variants), default=0) + 1
        if config.columns:
            lines.append(f"  {'':{width}}  ({'; '.join(config.columns)})")
        for name, cells in config.variants.items():
            shown = f":{name}"
            text = "; ".join(cell or "-" for cell in cells)
            lines.append(f"  {shown:{width}}  {text}{' [default]' if name == config.default else ''}")
    return "\n".join(lines[1:]).replace("``", "")
