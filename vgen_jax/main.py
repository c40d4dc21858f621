"""Entry point: ``python -m vgen_jax.main --config=NAME[:VARIANT] --workdir=FOLDER [--config.key=value …]``.

``config.run`` names what to run (see ``vgen_jax.runs``). The resolved config is printed and kept in the work directory.
Without flags it prints its usage (``command_line``). A fault that the user can mend ends in one line on stderr and exit
status 2.
"""

import os
import platform
import sys
import traceback
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from vgen_jax import runs
from vgen_jax.command_line import arguments, keys, usage
from vgen_jax.config import section
from vgen_jax.devices.sharding import MeshConfig, initialize_distributed, lost_process, split_host
from vgen_jax.files.run_folder import resolved
from vgen_jax.types import VgenError

CONFIG = config_flags.DEFINE_config_file("config", None, "What to run.", lock_config=True)
flags.DEFINE_string("workdir", None, "Where everything is written.")
flags.DEFINE_bool("help_config", False, "Print every key of the config, and run nothing.")
CACHE_FOLDER = "~/.cache/vgen_jax/jax"
# glibc: one heap for all threads, nothing by mmap, nothing given back.
KEEP_MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
FAULT_STATUS, USER_FAULT_STATUS, LOST_PROCESS_STATUS = 1, 2, 75  # the last is EX_TEMPFAIL: starting again helps


def _start(config: ConfigDict) -> None:
    """Joins the other processes if asked to, and switches on the persistent compilation cache."""
    sections = [config, *(config.stages.values() if "stages" in config else ())]
    meshes = [section(MeshConfig, part.mesh, "mesh") for part in sections if "mesh" in part]
    if meshes:
        if __name__ == "__main__" and any(mesh.cpu_devices for mesh in meshes):  # no other program is started again
            keep_memory()
        split_host(max(meshes, key=lambda mesh: mesh.cpu_devices))
        initialize_distributed(next((mesh for mesh in meshes if mesh.distributed), meshes[0]))
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(Path(CACHE_FOLDER).expanduser()))


def keep_memory() -> None:
    """Starts this program again, once, such that it keeps the memory it frees for its next allocation.

    XLA allocates a program's intermediate results, hundreds of MiB, at every call. By default glibc maps them anew each
    time, and of a training step on a CPU the kernel's zeroing of pages is a seventh. No result changes; the process
    stays as large as it has ever been. glibc reads these settings before the first thread, so that nothing but a new
    start can change them. Does nothing beside another C library, or where the environment already sets one of them.
    """
    if platform.libc_ver()[0] == "glibc" and not KEEP_MEMORY.keys() & os.environ.keys():
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | KEEP_MEMORY)


def _main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise VgenError(f"argument '{argv[1]}' is not understood: use --config=NAME[:VARIANT] and --workdir=FOLDER")
    logging.set_verbosity(logging.WARNING)
    if flags.FLAGS.help_config:
        print("\n".join(map(str, keys.keys(CONFIG.value))))
        return
    if not flags.FLAGS.workdir:
        raise VgenError("--workdir is missing: give the folder where everything is written, --workdir=FOLDER")
    workdir = Path(flags.FLAGS.workdir).absolute()
    config = resolved(CONFIG.value, workdir)
    _start(config)
    runs.start(config, workdir)


def main() -> None:
    """Parses the command line and runs."""
    try:
        if text := usage.answer(sys.argv[1:]):
            print(text)
            return
        app.run(_main, flags_parser=arguments.parse)
    except VgenError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        _leave(USER_FAULT_STATUS)
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        lost = lost_process(error)
        print(f"error: {lost}", file=sys.stderr, flush=True) if lost else traceback.print_exc()
        _leave(LOST_PROCESS_STATUS if lost else FAULT_STATUS)


def _leave(status: int) -> None:
    """Ends the process. One among several must not wait at exit for the others, which wait for it."""
    sys.stdout.flush()
    os._exit(status) if jax.distributed.is_initialized() else sys.exit(status)


if __name__ == "__main__":
    main()
