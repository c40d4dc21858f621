"""Entry point: ``python -m vgen_jax.main --config=configs/….py[:variant] --workdir=… [--config.key=value …]``.

``config.run`` names what to run (see ``vgen_jax.runs``). The resolved config is printed and kept in the work directory.
A fault that the user can mend ends in one line on stderr and exit status 2.
"""

import os
import platform
import sys
import traceback
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from vgen_jax import build, runs
from vgen_jax.runs.folder import resolved
from vgen_jax.sharding import MeshConfig, initialize_distributed, lost_process, split_host
from vgen_jax.types import VgenError

CONFIG = config_flags.DEFINE_config_file("config", None, "What to run.", lock_config=True)
flags.DEFINE_string("workdir", None, "Where everything is written.")
CACHE_FOLDER = "~/.cache/vgen_jax/jax"
# glibc: one heap for all threads, nothing by mmap, nothing given back.
KEEP_MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
FAULT_STATUS, USER_FAULT_STATUS, LOST_PROCESS_STATUS = 1, 2, 75  # the last is EX_TEMPFAIL: starting again helps
# What a config file raises for a variant that it does not have, or for a file that is not there. Any other exception
# of a config file is a fault in its code, for which its author wants the traceback.
CONFIG_FILE_FAULTS = ("ValueError: ", "vgen_jax.types.VgenError: ", "[Errno 2] ")


def _parse(argv: list[str]) -> list[str]:
    """Reads the flags and the config file.

    Raises:
        VgenError: for an unknown flag, key, variant or file, or a value of the wrong type.
    """
    try:
        rest = flags.FLAGS(argv)
        CONFIG.value.to_dict()  # raises if the file could not be loaded
        return rest
    except (AttributeError, KeyError) as error:
        key = str(error).replace("\\", "").strip("\"'").partition("'")[0]
        keys = (arg.partition("=")[0].removeprefix("--config.") for arg in argv if arg.startswith("--config."))
        culprit = next((name for name in keys if key in name.split(".")), key)
        raise VgenError(
            f"config key {culprit} is unknown: config.json of a run and the config file show them all"
        ) from error
    except (flags.Error, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if lines and lines[-1].startswith("TypeError: get_config() takes 0 positional arguments"):
            file, _, variant = next(arg for arg in argv if ".py:" in arg).rpartition(":")
            lines[-1] = f"ValueError: {file.removeprefix('--config=')} has no variants: leave out ':{variant}'"
        if len(lines) > 1 and not lines[-1].startswith(CONFIG_FILE_FAULTS):
            raise
        raise VgenError(lines[-1].removeprefix("ValueError: ").removeprefix("vgen_jax.types.VgenError: ")) from error


def _start(config: ConfigDict) -> None:
    """Joins the other processes if asked to, and switches on the persistent compilation cache."""
    sections = [config, *(config.stages.values() if "stages" in config else ())]
    meshes = [build.section(MeshConfig, part.mesh, "mesh") for part in sections if "mesh" in part]
    if meshes:
        if any(mesh.cpu_devices for mesh in meshes):
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
        raise VgenError(f"argument '{argv[1]}' is not understood: use --config=FILE[:VARIANT] and --workdir=FOLDER")
    logging.set_verbosity(logging.WARNING)
    workdir = Path(flags.FLAGS.workdir).absolute()
    config = resolved(CONFIG.value, workdir)
    _start(config)
    runs.start(config, workdir)


def main() -> None:
    """Parses the command line and runs."""
    flags.mark_flags_as_required(["config", "workdir"])
    try:
        app.run(_main, flags_parser=_parse)
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
