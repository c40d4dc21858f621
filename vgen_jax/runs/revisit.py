"""Run ``revisit``: does a memory bring a place back as it was? (SlowFast-VGen §4.1 and appendix E.)

Every memory follows the same scripted paths, which leave a place and come back to it, at every length and in both
protocols (``evaluation.revisit.paths``). A finished (length, protocol, memory) is kept in ``cells/`` and not done
again. Metrics are computed on decoded frames in memory; mp4 is made for the report only.

Keys:
    data_dir: the recorded paths; where there are none yet, the section ``collect`` records them.
    model_dir: the slow model.
    place_dir: the export of the place encoder.
    weights_dir: where foreign networks' weights are; empty for the environment variable VGEN_WEIGHTS.
"""

import dataclasses
from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax import runs
from vgen_jax.config import Sections, section
from vgen_jax.convert.feature_nets import feature_net
from vgen_jax.data.records import INFO_FILE, EpisodeSource, read_info
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.evaluation.place_encoder import load_place
from vgen_jax.evaluation.revisit import paths as paths_of
from vgen_jax.evaluation.revisit.cells import Cell
from vgen_jax.evaluation.revisit.measurement import (
    PAIRS,
    Bench,
    Contender,
    RevisitConfig,
    contenders_of,
    contract,
    gathered,
    measured,
)
from vgen_jax.evaluation.revisit.report import write_page
from vgen_jax.evaluation.revisit.scores import TRUTH, WALLS
from vgen_jax.files.exports import digest
from vgen_jax.files.run_folder import keep_config, resolved, write_results
from vgen_jax.metrics.features import extractor
from vgen_jax.types import VgenError
from vgen_jax.worlds.slow import load_slow_model

SECTIONS: Sections = {"revisit": RevisitConfig, "memories.*": Contender, "sampler": Sampler}


def run(config: ConfigDict, workdir: Path) -> None:
    """Measures; writes ``cells/``, ``samples/*.mp4``, ``results.json``, ``report.html``."""
    keep_config(config, workdir)
    settings = section(RevisitConfig, config.revisit, "revisit")
    contenders = contenders_of(config.memories.to_dict(), settings)
    bench = bench_of(config, settings)
    paths = {
        length: paths_of.load_paths(bench.model, source, settings.paths, length, settings.future)
        for length, source in open_paths(config, settings).items()
    }
    cells: list[Cell] = []
    for memory, contender in {TRUTH: None, **contenders}.items():
        cells += measured(bench, memory, contender, paths, workdir / "cells")
    beside = (*settings.networks, *(WALLS if all(p.walls_TW is not None for of in paths.values() for p in of) else ()))
    results, about = gathered(settings, cells, bench.place.name, beside), contract(bench)
    write_results(workdir, {**results, "contract": about})
    shown = tuple(name for name in settings.shown_memories if name in contenders)
    page = write_page(workdir, results, cells, about, shown, beside, bench.model.data.fps, config.to_dict())
    print(f"report: {page}", flush=True)


def bench_of(config: ConfigDict, settings: RevisitConfig) -> Bench:
    """Loads the model, the place encoder and the published networks."""
    sampler = section(Sampler, config.sampler, "sampler")
    model = load_slow_model(Path(config.model_dir))
    nets = {name: feature_net(name, config.weights_dir) for name in settings.networks}
    identity = {
        "model_sha256": digest(Path(config.model_dir)),
        "place_sha256": digest(Path(config.place_dir)),
        "sampler": dataclasses.asdict(sampler),
        **{name: net.contract for name, net in nets.items()},
        **{key: getattr(settings, key) for key in ("split", "paths", "future", "guidance", "seed", "shown_paths")},
    }
    return Bench(
        settings, sampler, model, load_place(Path(config.place_dir)),
        {name: extractor(net, 1 if net.rows == "frame" else PAIRS) for name, net in nets.items()}, identity,
    )  # fmt: skip


def open_paths(config: ConfigDict, settings: RevisitConfig) -> dict[int, EpisodeSource]:
    """The recorded paths by length; they are recorded first where ``config.collect`` says how and some are missing.

    Raises:
        VgenError: there are none; it names the command that records them.
    """
    folder, splits = Path(config.data_dir), {length: f"{settings.split}_{length}" for length in settings.lengths}
    recorded = read_info(folder).splits if (folder / INFO_FILE).is_file() else {}
    if missing := [split for split in splits.values() if split not in recorded]:
        if not config.collect:
            raise VgenError(
                f"{folder} has no paths of split {missing[0]}: record them with "
                f"python -m vgen_jax.main --config=configs/data/revisit.py --workdir={folder}"
            )
        print(f"recording paths into {folder}", flush=True)
        runs.start(resolved(config.collect, folder), folder)
    return {length: EpisodeSource(folder, split) for length, split in splits.items()}
