"""Run ``evaluate_videos``: scores of generated videos against real ones, whoever made them.

``real`` is a folder of videos or of recorded episodes, ``generated`` that or a model: an export, an ``asset:…``, or the
work directory of a training, whose newest weights then continue the recorded windows (``evaluation.sources``).

Keys:
    real: a folder of videos or of recorded episodes.
    generated: the same, or a model that continues the recorded episodes.
    weights_dir: where foreign networks' weights are; empty for the environment variable VGEN_WEIGHTS.
    action_dir: the export of an action predictor, for the metrics that need one; else empty.
    place_dir: the export of a place encoder, for the metrics that need one; else empty.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.data.motion import MOTION
from vgen_jax.devices.sharding import MeshConfig
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.evaluation import sources
from vgen_jax.evaluation.clips import Clips, Cut, check_alike
from vgen_jax.evaluation.comparison import SCORES_FILE
from vgen_jax.evaluation.contract import contract
from vgen_jax.evaluation.networks import load_nets
from vgen_jax.evaluation.scoring import RATIO, SHARPNESS_RATIOS, WALLS, ScoreConfig, Scores, is_distance, score
from vgen_jax.files import media, report
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.tasks.exports import model_folder
from vgen_jax.types import VgenError
from vgen_jax.worlds.memories import MemoryConfig

SHOWN, SHOWN_FRAMES = 4, 8

SECTIONS: Sections = {
    "score": ScoreConfig,
    "cut": Cut,
    "windows": sources.WindowsConfig,
    "model": sources.ModelConfig,
    "sampler": Sampler,
    "memory": MemoryConfig,
    "mesh": MeshConfig,
}


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes ``results.json``, ``scores.npz`` (the rows of ``Scores``), ``samples/pairs.png``, ``report.html``."""
    settings = section(ScoreConfig, config.score, "score")
    cut = section(Cut, config.cut, "cut")
    nets = load_nets(settings.metrics, config)
    folders, origin = prepared(config, workdir, nets.reads)
    real, generated = (Clips(folders[role], role, cut) for role in ("real", "generated"))
    check_alike(real, generated, settings.paired)
    keep_config(config, workdir)  # not of a start that was refused
    features = nets.with_steps(real.shape[0] + (cut.skip > 0))
    found = score(real, generated, settings, features, nets.test)
    agreed = {**contract(real, generated, settings, features), **origin}
    if jax.process_index() != 0:
        return
    write_results(workdir, {**found.results, "contract": agreed})
    rows: dict[str, Any] = dict(found.rows)
    np.savez(workdir / SCORES_FILE, **rows)
    write_page(workdir, found, agreed, real, generated, config)
    for name in settings.metrics:
        print(f"{name:28} {shown(name, found.results)}", flush=True)


def prepared(config: ConfigDict, workdir: Path, actions: str = "any") -> tuple[dict[str, Path], dict[str, str]]:
    """A folder of videos for each role, made where it is not one yet, and what the contract has to say of that.

    Args:
        actions: what the action predictor reads, ``motion`` or the kind of its space; ``any`` without one.

    Raises:
        VgenError: a model, but no recorded episodes for it to continue, or windows with actions of another kind.
    """
    folders = {role: Path(config[role]) for role in ("real", "generated")}
    origin: dict[str, str] = {}
    windows = section(sources.WindowsConfig, config.windows, "windows")
    model = section(sources.ModelConfig, config.model, "model")
    sampler = section(Sampler, config.sampler, "sampler")
    memory = section(MemoryConfig, config.memory.to_dict(), "memory")
    data = {role: sources.recorded(config[role], windows) for role in folders if sources.is_records(config[role])}
    generates = sources.is_model(config.generated)
    if generates and "real" not in data:
        raise VgenError(
            f"{config.generated} is a model, which continues recorded windows: give recorded episodes as --config.real"
        )
    if data and actions != "any" and (windows.action == MOTION) != (actions == MOTION):
        raise VgenError(
            f"config key windows.action is '{windows.action}', but the action predictor reads {actions}: use that"
        )
    if data:
        keep_config(config, workdir)  # clips of another config must not be mixed with these
    for role, records in data.items():
        folders[role] = sources.write_recorded(records, workdir / "clips" / role)
        origin[f"{role}_windows"] = f"{windows.count} of {windows.split}, seed {windows.seed}"
    if generates:
        folder = model_folder(config.generated, workdir)
        target = workdir / "clips" / "generated"
        folders["generated"] = sources.write_generated(data["real"], folder, model, sampler, memory, target)
        origin |= sources.generated_contract(folder, model, sampler, memory)
    return folders, origin


def shown(name: str, results: dict[str, float]) -> str:
    """A metric's result as one line of a table."""
    if name == WALLS:
        names = ("columns", "frames", "clips")
        parts = (f"{results[f'{name}_{of}']:.4f} of {of} (real {results[f'{name}_{of}_real']:.4f})" for of in names)
        return ", ".join(parts)
    if name.startswith(RATIO) or name in SHARPNESS_RATIOS:
        return f"{results[name]:.4f}  ({results[f'{name}_low']:.4f} to {results[f'{name}_high']:.4f})"
    if is_distance(name):
        counts = [int(results[f"{name}_count_{role}"]) for role in ("real", "generated")]
        return f"{results[name]:.4f}  ({counts[0]} real, {counts[1]} generated samples)"
    return f"{results[name]:.4f} ± {results[f'{name}_ci95']:.4f}  ({int(results[f'{name}_count'])} videos)"


def write_page(
    workdir: Path, found: Scores, agreed: dict[str, str], real: Clips, generated: Clips, config: ConfigDict
) -> None:
    """report.html: the scores, some videos, the contract."""
    count = min(SHOWN, len(real), len(generated))
    numbers = np.linspace(0, real.shape[0] - 1, min(SHOWN_FRAMES, real.shape[0])).astype(int)
    pairs = list(range(count))
    partners = [generated.names.index(real.names[n]) for n in pairs] if agreed["paired"] == "True" else pairs
    rows = [row for both in zip(real.read(pairs), generated.read(partners), strict=True) for row in both]
    picture = workdir / "samples" / "pairs.png"
    media.write_png(picture, np.concatenate([np.concatenate(list(row[numbers]), axis=1) for row in rows]))
    scores = list(found.results.items())
    sections: list[report.Section] = [
        report.Table(("metric", "value"), scores, title="Scores", caption="ci95: half-width over videos, 95 %."),
        report.Image(picture, title="Videos", caption="Pairs of rows: above real, below generated."),
        report.Table(("contract", "value"), sorted(agreed.items()), title="Contract"),
    ]
    report.write_report(workdir, "Evaluation of videos", sections, config=config.to_dict())
