"""Run ``peer_benchmark``: this library's networks beside the same ones in PyTorch (``bench.peers.timing``)."""

import os
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vgen_jax.bench.peers.jax_side import OurSide
from vgen_jax.bench.peers.settings import PeerConfig
from vgen_jax.bench.peers.timing import HEADER, interleaved, named, table_lines
from vgen_jax.config import section
from vgen_jax.devices.chips import chip_of
from vgen_jax.devices.sharding import MeshConfig
from vgen_jax.files.run_folder import keep_config, write_results

TABLE_FILE = "peer_benchmark.md"


def run(config: ConfigDict, workdir: Path) -> None:
    """Prints and writes ``results.json`` and a Markdown table, ``peer_benchmark.md``."""
    settings = section(PeerConfig, config.peer, "peer")
    mesh_config = section(MeshConfig, config.mesh, "mesh")
    keep_config(config, workdir)
    load_average = os.getloadavg()[0]
    from vgen_jax.bench.peers import torch_side  # PyTorch is an extra

    ours = OurSide(settings, config.unet.to_dict(), mesh_config)
    theirs = torch_side.TorchSide(settings, config.unet.to_dict())
    chip = chip_of(jax.devices()[0])
    results: dict[str, Any] = {
        "device": jax.devices()[0].device_kind, "devices": ours.mesh.size, "cores": os.cpu_count(),
        "load_average_before": load_average, "jax": jax.__version__, **theirs.versions(),
        "parameters": ours.parameters, "parameters_of_peer": theirs.parameters,
    }  # fmt: skip
    lines = []
    for what in settings.what:
        flops = ours.flops(what)
        costs = interleaved({"vgen_jax": ours.lane(what), "PyTorch": theirs.lane(what)}, settings.rounds)
        results |= named(what, costs, flops, chip, ours.mesh.size)
        lines += table_lines(what, costs, flops, chip, ours.mesh.size)
        print("\n".join(lines[-2:]), flush=True)
        write_results(workdir, results)
    note = (
        f"{settings.network}, batch {settings.batch}, {settings.frames} frames of {settings.height}×{settings.width}, "
        f"{settings.dtype}, median of {settings.rounds} on {results['device']}, {results['cores']} cores, load average "
        f"{load_average:.1f} before the start; JAX {jax.__version__}, {theirs.versions()}."
    )
    (workdir / TABLE_FILE).write_text("\n".join([*HEADER, *lines]) + f"\n\n{note}\n")
