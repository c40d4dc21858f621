"""Entry point: ``python -m vgen_jax.main --config=configs/….py[:variant] --workdir=… [--config.key=value …]``.

``config.run`` names what to run (see ``vgen_jax.runs``). The resolved config is printed and kept in the work directory. A fault that the user
can mend ends in one line on stderr and exit status 2.
"""

import os
import sys
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from vgen_jax import runs
from vgen_jax.runs.folder import resolved
from vgen_jax.sharding import MeshConfig, initialize_distributed
from vgen_jax.types import VgenError

CONFIG = config_flags.DEFINE_config_file("config", None, "What to run.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Where everything is written.")
CACHE_FOLDER = "~/.cache/vgen_jax/jax"
USER_FAULT_STATUS = 2


def _start(config) -> None:
    """Joins the other processes if asked to, and switches on the persistent compilation cache."""
    if "mesh" in config and config.mesh.distributed:
        initialize_distributed(MeshConfig(**config.mesh))
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(Path(CACHE_FOLDER).expanduser()))


def _main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise VgenError(f"argument '{argv[1]}' is not understood: use --config=FILE[:VARIANT] and --workdir=FOLDER")
    logging.set_verbosity(logging.WARNING)
    workdir = Path(WORKDIR.value).absolute()
    config = resolved(CONFIG.value, workdir)
    _start(config)
    runs.start(config, workdir)


def _guarded(argv: list[str]) -> None:
    try:
        _main(argv)
    except VgenError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(USER_FAULT_STATUS) if jax.process_count() > 1 else sys.exit(USER_FAULT_STATUS)


def main() -> None:
    """Parses the command line and runs."""
    flags.mark_flags_as_required(["config", "workdir"])
    try:
        app.run(_guarded)
    except (AttributeError, KeyError, FileNotFoundError, ValueError, TypeError) as error:
        if isinstance(error, FileNotFoundError) or "config" in str(error).lower():
            print(f"error: {error}", file=sys.stderr)
            sys.exit(USER_FAULT_STATUS)
        raise


if __name__ == "__main__":
    main()
