"""Run ``check_topology``: does a training fit a TPU pod? (``bench.topology``)"""

import tempfile
import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vgen_jax.bench.synthetic import SyntheticData, synthetic_stage
from vgen_jax.bench.topology import CheckConfig, MeshRow, TrainingStep, header, named, table_line, topology_mesh
from vgen_jax.config import section
from vgen_jax.devices.chips import chip_of
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.worlds.autoencoder import AutoencoderConfig

TABLE_FILE = "topology.md"


def run(config: ConfigDict, workdir: Path) -> None:
    """Compiles row by row; prints and writes ``results.json`` and a Markdown table, ``topology.md``."""
    settings = section(CheckConfig, config.check, "check")
    made = section(SyntheticData, config.made, "made")
    autoencoder = section(AutoencoderConfig, config.autoencoder, "autoencoder")
    rows = [MeshRow(*values) for values in settings.meshes]
    keep_config(config, workdir)
    results: dict[str, Any] = {"compiler_effort": settings.effort}
    lines = [header()]
    with tempfile.TemporaryDirectory() as folder:
        stage = synthetic_stage(config.stage, made, config.slow.to_dict(), autoencoder, Path(folder))
        step = TrainingStep(stage)
        for row in rows:
            started = time.perf_counter()
            mesh = topology_mesh(row)
            found = step.check(row, mesh, settings)
            chip = chip_of(mesh.devices.flat[0])
            lines.append(table_line(row, found, chip))
            print(f"{lines[-1]} {time.perf_counter() - started:.0f} s", flush=True)
            name = f"{row.topology} {row.data}x{row.fsdp} accumulate {row.accumulate}"
            results |= {f"{name}: {key}": value for key, value in named(found, chip).items()}
            write_results(workdir, results)
            (workdir / TABLE_FILE).write_text("\n".join(lines) + "\n")
