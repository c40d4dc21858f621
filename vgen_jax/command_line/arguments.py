"""The command line as absl's flags read it: a config by its name, and mistakes in words that name the key."""

import re
from collections.abc import Sequence

from absl import flags

from vgen_jax.command_line import configs, keys
from vgen_jax.types import VgenError

FLAG = re.compile(r"--?config(=|$)")
CHANGE = re.compile(r"--?(?:no)?config\.([^=]+)")


def parse(argv: Sequence[str]) -> list[str]:
    """Reads the flags and the config; for ``app.run``.

    Returns:
        What is left of the command line.

    Raises:
        VgenError: for an unknown flag, config, variant or key, or a value of the wrong type.
    """
    argv, written = with_path(argv)
    changed = [found[1] for found in map(CHANGE.match, argv) if found]
    config = configs.load(written)
    keys.check(config, changed)
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        message = " ".join(str(error).split())
        found = re.match(r"flag (--config\.([\w.\[\]-]+)=.*?): ", message)
        if found is None:
            raise VgenError(f"{message.rstrip(' ?.')}: --help shows the flags") from error
        kinds = [key.kind for key in keys.keys(config) if key.path == found[2]]
        wanted = f"use a value of type {kinds[0]}" if kinds else "change the keys of that section one by one"
        raise VgenError(f"config key {found[2]} does not take {found[1]}: {wanted}") from error


def with_path(argv: Sequence[str]) -> tuple[list[str], str]:
    """The command line with the path of the config that it names, and what that flag then says.

    Raises:
        VgenError: where it names none, or one that is not there.
    """
    changed, path = list(argv), ""
    for number, argument in enumerate(argv):
        found = FLAG.match(argument)
        if found is not None and found[1]:
            path = configs.located(argument.partition("=")[2])
            changed[number] = f"--config={path}"
        elif found is not None and number + 1 < len(argv):
            path = changed[number + 1] = configs.located(argv[number + 1])
    if not path:
        raise VgenError("--config is missing: give the name of a config, --config=quickstart; --list shows all")
    return changed, path
