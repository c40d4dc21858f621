"""Run ``evaluate_videos``: scores of a folder of generated videos against a folder of real ones, whoever made them."""

import importlib.metadata
import subprocess
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from vgen_jax import build, media, report
from vgen_jax.checkpoint import check_matches, digest, load_export
from vgen_jax.clips import Clips, Cut, check_alike
from vgen_jax.convert import feature_nets
from vgen_jax.metrics.features import FeatureNet
from vgen_jax.objectives.autoencoder import to_unit
from vgen_jax.runs.folder import keep_config, write_results
from vgen_jax.runs.place import PlaceConfig, place_network
from vgen_jax.scoring import DISTANCES, FD_PLACE, SCUTS, ScoreConfig, Scores, score
from vgen_jax.types import Array, Params, VgenError

SCORES_FILE = "scores.npz"
SHOWN, SHOWN_FRAMES = 4, 8


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes ``results.json``, ``scores.npz`` (see ``scoring.Scores.rows``), ``samples/pairs.png``, ``report.html``."""
    settings = build.section(ScoreConfig, config.score, "score")
    cut = build.section(Cut, config.cut, "cut")
    real, generated = (Clips(config[role], role, cut) for role in ("real", "generated"))
    check_alike(real, generated, settings.paired)
    named = [name for name in settings.metrics if name in feature_nets.ORIGINALS]
    nets = {name: feature_nets.feature_net(name, config.weights_dir) for name in named}
    if FD_PLACE in settings.metrics:
        nets[FD_PLACE] = place_net(config.place_dir)
    keep_config(config, workdir)  # not of a start that was refused
    found = score(real, generated, settings, nets)
    agreed = contract(real, generated, settings, nets)
    if jax.process_index() != 0:
        return
    write_results(workdir, {**found.results, "contract": agreed})
    rows: dict[str, Any] = dict(found.rows)
    np.savez(workdir / SCORES_FILE, **rows)
    write_page(workdir, found, agreed, real, generated, config)
    for name in settings.metrics:
        print(f"{name:16} {shown(name, found.results)}", flush=True)


def place_net(folder: str) -> FeatureNet:
    """The place encoder of an export folder (see ``models.place``) as the network of ``FD_PLACE``.

    Raises:
        VgenError: no folder, one of another network, or an encoder of other places.
    """
    if not folder:
        raise VgenError(f"{FD_PLACE} needs a place encoder: give --config.place_dir=FOLDER, an export of one")
    params, raw = load_export(Path(folder))
    if "place" not in raw or "name" not in raw or f"fd_{raw['name']}" != FD_PLACE:
        raise VgenError(
            f"{folder} holds no place encoder of VizDoom, which {FD_PLACE} is named after: give another one"
        )
    shape = build.section(PlaceConfig, raw["place"], "place")
    encoder = place_network(shape)
    frame = jax.ShapeDtypeStruct((1, encoder.factor, encoder.factor, 3), np.float32)
    check_matches(params, jax.eval_shape(encoder.init, jax.random.key(0), frame)["params"], Path(folder))

    def apply(params: Params, frames: Array) -> Array:
        code: Any = encoder.apply({"params": params}, to_unit(frames))
        return code[0]

    described = {"weights": "model.safetensors", "sha256": digest(Path(folder)), "input": "own resolution, [-1, 1]"}
    return FeatureNet(FD_PLACE, "frame", shape.width, apply, params, described)


def shown(name: str, results: dict[str, float]) -> str:
    """A metric's result as one line of a table."""
    if name in DISTANCES:
        counts = [int(results[f"{name}_count_{role}"]) for role in ("real", "generated")]
        return f"{results[name]:.4f}  ({counts[0]} real, {counts[1]} generated samples)"
    return f"{results[name]:.4f} ± {results[f'{name}_ci95']:.4f}  ({int(results[f'{name}_count'])} videos)"


def contract(real: Clips, generated: Clips, settings: ScoreConfig, nets: dict[str, FeatureNet]) -> dict[str, str]:
    """What a result has to have in common with another one to be comparable, and where it comes from."""
    frames, height, width = real.shape[:3]
    agreed = {
        "frames": str(frames),
        "context_frames_left_out": str(real.cut.skip),
        "resolution": f"{width}x{height}",
        "value_range": "uint8, [0, 255]",
        "real_sha256": real.digest(),
        "real_count": str(len(real)),
        "real_files": real.suffixes(),
        "generated_count": str(len(generated)),
        "generated_files": generated.suffixes(),
        "paired": str(settings.paired),
        "generated": str(generated.folder),
        "generated_sha256": generated.digest(),
        "commit": commit(),
        "device": jax.devices()[0].device_kind,
    }
    if any(name in DISTANCES for name in settings.metrics):
        agreed["covariance"] = "unbiased, N - 1"
    if SCUTS in settings.metrics:
        agreed["scuts.detector"] = f"AdaptiveDetector, PySceneDetect {importlib.metadata.version('scenedetect')}"
    for name, net in nets.items():
        agreed |= {f"{name}.{key}": value for key, value in net.contract.items()}
    return agreed


def commit() -> str:
    """The commit of a checkout, with '+' if it was changed since; of an installation, its version."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return f"vgen_jax {importlib.metadata.version('vgen_jax')}"
    return head + ("+" if changed.strip() else "")


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
    scores = [(name, value) for name, value in found.results.items()]
    sections: list[report.Section] = [
        report.Table(("metric", "value"), scores, title="Scores", caption="ci95: half-width over videos, 95 %."),
        report.Image(picture, title="Videos", caption="Pairs of rows: above real, below generated."),
        report.Table(("contract", "value"), sorted(agreed.items()), title="Contract"),
    ]
    report.write_report(workdir, "Evaluation of videos", sections, config=config.to_dict())
