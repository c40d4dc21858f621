"""One module per run, with a function ``run(config, workdir)``. ``config.run`` names it.

A run is imported when it starts, so that none pays for what another one needs.
"""

import importlib
from pathlib import Path

import jax
from ml_collections import ConfigDict

from vgen_jax.compose.black_box import fault_of
from vgen_jax.types import VgenError

RUNS = (
    "avid_table", "benchmark", "bundle", "check_data", "check_topology", "collect", "collect_paths",
    "collect_procgen", "compare", "compare_results", "convert", "embed_texts", "encode", "evaluate",
    "evaluate_action", "evaluate_place", "evaluate_videos", "export", "fast_benchmark", "footprint", "generate",
    "import_rlds", "import_videos", "latency", "peer_benchmark", "pipeline", "revisit", "serve", "text_to_video",
    "train",
)  # fmt: skip


def start(config: ConfigDict, workdir: Path) -> None:
    """Runs ``config.run`` in ``workdir``.

    Raises:
        VgenError: for a fault that the user can mend.
    """
    if config.run not in RUNS:
        raise VgenError(f"config key run is '{config.run}': use one of {', '.join(RUNS)}")
    try:
        importlib.import_module(f"vgen_jax.runs.{config.run}").run(config, workdir)
    except jax.errors.JaxRuntimeError as error:
        fault = fault_of(error)  # a black box that failed within a compiled program
        if fault is None:
            raise
        raise fault from error
