"""Run ``footprint``: how much memory a slow model and its autoencoder take (``bench.footprint``)."""

import dataclasses
import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vgen_jax.bench.footprint import ROW_FIELDS, FootprintConfig, FootprintRow, compile_mesh, footprint, table_line
from vgen_jax.config import section
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.worlds.autoencoder import AutoencoderConfig
from vgen_jax.worlds.slow_networks import SlowConfig

TABLE_FILE = "footprint.md"


def run(config: ConfigDict, workdir: Path) -> None:
    """Compiles row by row; prints and writes ``results.json`` and a Markdown table, ``footprint.md``."""
    settings = section(FootprintConfig, config.footprint, "footprint")
    rows = [FootprintRow(*values) for values in settings.rows]  # type: ignore[arg-type]
    slow = section(SlowConfig, config.slow.to_dict(), "slow")
    autoencoder = section(AutoencoderConfig, config.autoencoder.to_dict(), "autoencoder")
    mesh = compile_mesh(settings.topology)
    keep_config(config, workdir)
    results: dict[str, Any] = {"device": mesh.devices.flat[0].device_kind}
    lines = []
    for row in rows:
        started = time.perf_counter()
        found = footprint(row, slow, autoencoder, mesh)
        name = " ".join(str(value) for value in dataclasses.astuple(row))
        results |= {f"{name}: {key}": value for key, value in found.items()}
        lines.append(table_line(row, found))
        print(f"{lines[-1]} compiled in {time.perf_counter() - started:.0f} s", flush=True)
        write_results(workdir, results)
    header = [*ROW_FIELDS, "parameters and state, GiB", "temporaries, GiB", "in all, GiB"]
    table = "\n".join([f"| {' | '.join(header)} |", "|" + "---|" * len(header), *lines]) + "\n"
    (workdir / TABLE_FILE).write_text(table)
