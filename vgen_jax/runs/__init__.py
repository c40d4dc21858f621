"""One module per run, with a function ``run(config, workdir)``. ``config.run`` names it.

A run is imported when it starts, so that none pays for what another one needs.
"""

import contextlib
import importlib
from pathlib import Path
from types import ModuleType

import jax
from ml_collections import ConfigDict

from vgen_jax.black_box.ask import fault_of
from vgen_jax.config import nearest
from vgen_jax.files.progress import sign_of_life
from vgen_jax.types import VgenError

RUNS = (
    "avid_table", "benchmark", "bundle", "check_data", "check_topology", "collect", "collect_paths",
    "collect_procgen", "collect_robot", "compare", "compare_results", "convert", "embed_texts", "encode", "estimate",
    "evaluate", "evaluate_action", "evaluate_place", "evaluate_videos", "export", "export_roam", "fast_benchmark",
    "footprint", "generate", "import_lerobot", "import_recon", "import_rlds", "import_roam", "import_videos",
    "import_vint", "latency", "leap_table", "peer_benchmark", "pipeline", "play", "revisit", "serve", "text_to_video",
    "train",
)  # fmt: skip
SERVING = ("play", "serve")  # wait for others to ask, and say where


def module(name: str) -> ModuleType:
    """The module of a run.

    Raises:
        VgenError: if there is none of that name.
    """
    if name not in RUNS:
        raise VgenError(f"config key run is '{name}': {nearest(name, RUNS)}use one of {', '.join(RUNS)}")
    return importlib.import_module(f"vgen_jax.runs.{name}")


def start(config: ConfigDict, workdir: Path) -> None:
    """Runs ``config.run`` in ``workdir``.

    Raises:
        VgenError: for a fault that the user can mend.
    """
    run = module(config.run).run
    try:
        with contextlib.nullcontext() if config.run in SERVING else sign_of_life(config.run):
            run(config, workdir)
    except jax.errors.JaxRuntimeError as error:
        fault = fault_of(error)  # a black box that failed within a compiled program
        if fault is None:
            raise
        raise fault from error
