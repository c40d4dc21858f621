"""Run ``avid_table``: every method of AVID's tables on the same recorded clips, scored alike, in one table.

Recorded clips are cut once; each method continues them with the same noise and is scored by
``evaluation.scoring.score``. Weights of mixtures are chosen on clips of the training levels, by ``tune.metric``. A
world of latents needs its autoencoder in ``autoencoder_dir``, for past frames and for what was sampled; ``test_data``
and ``tune_data`` hold frames in any world. With a ``token_length`` methods that read texts are told those of the
windows. Left in the work directory: ``table.md``, ``results.json``, ``claims.md``, clips and scores of each method,
pictures of masks, ``report.html``.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.data.text import encode_text, join_texts
from vgen_jax.data.windows import future_texts
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.evaluation import sources
from vgen_jax.evaluation.avid import clips as avid_clips
from vgen_jax.evaluation.avid import masks as avid_masks
from vgen_jax.evaluation.avid.claims import Claim, claims
from vgen_jax.evaluation.clips import Clips, Cut, check_alike
from vgen_jax.evaluation.comparison import (
    COMPARED,
    FREE,
    NORMALISED,
    Cell,
    Result,
    markdown,
    normalised,
    read_result,
    table,
)
from vgen_jax.evaluation.networks import Nets, load_nets
from vgen_jax.evaluation.scoring import ScoreConfig, score
from vgen_jax.files import media, report
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.runs.evaluate_videos import SCORES_FILE, contract
from vgen_jax.types import VgenError
from vgen_jax.worlds.avid import Base, Method, load_base, load_method

TABLE_FILE, CLAIMS_FILE, WEIGHTS_FILE = "table.md", "claims.md", "weights.json"
SHOWN_CLIPS = 2


@dataclasses.dataclass(frozen=True)
class TuneConfig:
    """How weights are chosen.

    Attributes:
        metric: a distance, smaller is better.
        windows: the clips they are chosen on, of ``tune_data``.
    """

    metric: str
    windows: sources.WindowsConfig


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """Attributes:
    draws, seed: of every bootstrap.
    mask_clips: clips whose masks are averaged.
    """

    draws: int
    seed: int
    mask_clips: int


class Setting(NamedTuple):
    """All that every method is measured by."""

    base: Base
    sampler: Sampler
    generate: avid_clips.GenerateConfig
    score: ScoreConfig
    cut: Cut
    nets: Nets
    workdir: Path
    codec: avid_clips.Codec
    token_length: int


def run(config: ConfigDict, workdir: Path) -> None:
    """See the module's docstring. Clips, scores and weights that are there already are not made again."""
    keep_config(config, workdir)
    settings = section(TableConfig, config.table, "table")
    tune = section(TuneConfig, config.tune.to_dict(), "tune")
    score_config = section(ScoreConfig, config.score, "score")
    base = load_base(Path(config.base_dir))
    at = Setting(
        base,
        section(Sampler, config.sampler, "sampler"),
        section(avid_clips.GenerateConfig, config.generate, "generate"),
        score_config,
        section(Cut, config.cut, "cut"),
        load_nets((*score_config.metrics, tune.metric), config),
        workdir,
        avid_clips.codec(base.world, config.autoencoder_dir),
        config.token_length,
    )
    windows = section(sources.WindowsConfig, config.windows, "windows")
    test = _source(config.test_data, windows, workdir / "clips" / "real", at)
    training: avid_clips.Source | None = None
    results: dict[str, Result] = {}
    sizes, weights = {}, {}
    masks: tuple[avid_masks.Masks, tuple[Path, Path]] | None = None
    for name in config.order:
        if name not in config.methods:
            raise VgenError(f"config key order names method '{name}': methods has {', '.join(config.methods)}")
        chosen = section(avid_clips.EntryConfig, config.methods[name].to_dict(), f"methods.{name}")
        frame = test.video(0).shape[1:]
        entry, method = avid_clips.load_entry(chosen, at.base, frame)
        weight = 0.0
        if chosen.weights:
            if training is None:
                training = _source(config.tune_data, tune.windows, workdir / "tune" / "real", at)
            weight = weights[name] = _best_weight(name, entry, training, tune.metric, at)
        folder = workdir / "clips" / name
        avid_clips.write_clips(entry, weight, test, at.sampler, at.base.world.schedule, at.generate, folder)
        results[name] = _scored(name, chosen.label, weight, folder, at)
        sizes[name] = entry.trained
        if masks is None and method is not None and method.parts is not None and _has_mask(Path(chosen.dir)):
            masks = _masks(Path(chosen.dir), method, test, settings.mask_clips, at)
    _write(config, workdir, settings, results, sizes, weights, masks, test)


def _source(folder: str, windows: sources.WindowsConfig, target: Path, at: Setting) -> avid_clips.Source:
    """The recorded windows, cut into ``target``."""
    if windows.past != at.base.world.past or windows.action != at.base.world.actions:
        raise VgenError(
            f"windows open with {windows.past} frames and {windows.action} actions but the base knows "
            f"{at.base.world.past} and {at.base.world.actions}: set windows.past and windows.action"
        )
    data = sources.recorded(folder, windows)
    sources.write_recorded(data, target)
    space = data.source.info.action_spaces[windows.action]
    token_NL = tokens_of(data, at.token_length) if at.token_length else None
    return avid_clips.Source(target, windows.past, space, at.generate.seed, at.codec, token_NL)


def tokens_of(data: sources.Recorded, length: int) -> np.ndarray:
    """The texts of the windows, as trainings read them, int32 (N, length)."""
    texts = [
        future_texts(data.source.head(window.episode).texts, window.boundary, data.config.frames)
        for window in data.windows
    ]
    return np.stack([encode_text(join_texts(several), length) for several in texts])


def _best_weight(name: str, entry: avid_clips.Entry, source: avid_clips.Source, metric: str, at: Setting) -> float:
    """The weight whose clips come closest to the recorded ones."""
    path = at.workdir / "tune" / name / WEIGHTS_FILE
    found: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
    only = dataclasses.replace(at.score, metrics=(metric,))
    for weight in entry.config.weights:
        if str(weight) in found:
            continue
        folder = at.workdir / "tune" / name / str(weight)
        schedule = at.base.world.schedule
        avid_clips.write_clips(entry, weight, source, at.sampler, schedule, at.generate, folder)
        real, made = Clips(at.workdir / "tune" / "real", "real", at.cut), Clips(folder, "generated", at.cut)
        found[str(weight)] = score(real, made, only, at.nets.features).results[metric]
        path.write_text(json.dumps(found, indent=2) + "\n")
    return min(entry.config.weights, key=lambda weight: found[str(weight)])


def _scored(name: str, label: str, weight: float, folder: Path, at: Setting) -> Result:
    """Scores a folder of clips, or reads the scores that are there."""
    target = at.workdir / "scores" / name
    if not (target / "results.json").is_file():
        real, made = Clips(at.workdir / "clips" / "real", "real", at.cut), Clips(folder, "generated", at.cut)
        check_alike(real, made, at.score.paired)
        features = at.nets.with_steps(real.shape[0] + (at.cut.skip > 0))
        found = score(real, made, at.score, features, at.nets.test)
        target.mkdir(parents=True, exist_ok=True)
        rows: dict[str, Any] = dict(found.rows)
        np.savez(target / SCORES_FILE, **rows)
        sampler = f"{at.sampler.kind} {at.sampler.steps} steps eta {at.sampler.eta} weight {weight}"
        agreed = {**contract(real, made, at.score, features), "sampler": sampler, "seed": str(at.generate.seed)}
        write_results(target, {**found.results, "contract": agreed})
        print(f"{label}: " + ", ".join(f"{k} {found.results[k]:.4g}" for k in at.score.metrics), flush=True)
    return read_result(target)


def _has_mask(folder: Path) -> bool:
    """Whether the method of an export mixes by a mask."""
    return bool(json.loads((folder / "config.json").read_text())["method"]["mask"])


def _masks(
    folder: Path, method: Method, source: avid_clips.Source, count: int, at: Setting
) -> tuple[avid_masks.Masks, tuple[Path, Path]]:
    _, _, params = load_method(folder, at.base)
    numbers = list(range(min(count, len(source.paths))))
    found = avid_masks.masks(method, params, source, numbers, at.sampler, at.base.world.schedule)
    return found, avid_masks.write_masks(found, source, numbers, at.workdir / "samples")


def _write(
    config: ConfigDict,
    workdir: Path,
    settings: TableConfig,
    results: Mapping[str, Result],
    sizes: Mapping[str, int],
    weights: Mapping[str, float],
    masks: tuple[avid_masks.Masks, tuple[Path, Path]] | None,
    source: avid_clips.Source,
) -> None:
    """The table, the claims, the pictures and the report."""
    cells = table(list(results.values()), settings.draws, settings.seed)
    cells[NORMALISED] = normalised(cells, COMPARED)
    labels = [_label(config, name, sizes[name], weights) for name in results]
    (workdir / TABLE_FILE).write_text(markdown(labels, cells))
    asked = claims(results, settings.draws, settings.seed)
    (workdir / CLAIMS_FILE).write_text(_claims_markdown(asked))
    numbers = _numbers(list(results), cells)
    extra: dict[str, Any] = {f"weight/{name}": weight for name, weight in weights.items()}
    extra |= {f"parameters/{name}": size for name, size in sizes.items()}
    if masks is not None:
        extra |= {f"mask/step_{t}": float(m) for t, m in zip(masks[0].step_S, masks[0].mean_S, strict=True)}
    first = next(iter(results.values()))
    shared = {key: value for key, value in first.contract.items() if key not in FREE}
    write_results(workdir, {**numbers, **extra, "contract": shared})
    picture = _picture(workdir, source, list(results))
    rows = [(label, *(str(column[n]) for column in cells.values())) for n, label in enumerate(labels)]
    sections: list[report.Section] = [
        report.Table(("method", *cells), rows, title="Table", caption="In brackets: 95 %, bootstrap over clips."),
        report.Table(("claim", "difference", "verdict"), _claim_rows(asked), title="The paper's findings here"),
        report.Image(picture, title="Clips", caption=f"From above: recorded, {', '.join(labels)}."),
    ]
    if masks is not None:
        caption = (
            "Of each clip: recorded, generated, mask averaged over diffusion steps; white takes the base's output."
        )
        sections += [
            report.Image(masks[1][0], title="AVID's mask", caption=caption),
            report.Image(masks[1][1], title="AVID's mask against the diffusion step"),
        ]
    sections.append(report.Table(("contract", "value"), sorted(shared.items()), title="Contract of all"))
    page = report.write_report(workdir, "AVID and its baselines", sections, config=config.to_dict())
    print(markdown(labels, cells), end="", flush=True)
    print(f"report: {page}", flush=True)


def _label(config: ConfigDict, name: str, size: int, weights: Mapping[str, float]) -> str:
    """A method's name in the table, with its trained parameters and its weight."""
    weight = f", weight {weights[name]:g}" if name in weights else ""
    return f"{config.methods[name].label} ({size / 1e6:.2f} M{weight})"


def _numbers(names: list[str], cells: Mapping[str, list[Cell]]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for metric, column in cells.items():
        for name, cell in zip(names, column, strict=True):
            key = f"{metric}/{name}"
            numbers |= {key: cell.value, f"{key}_low": cell.low, f"{key}_high": cell.high}
    return numbers


def _claim_rows(asked: list[Claim]) -> list[tuple[str, str, str]]:
    return [
        (f"{c.metric}: {c.better} better than {c.worse}", str(Cell(c.difference, c.low, c.high)), c.verdict)
        for c in asked
    ]


def _claims_markdown(asked: list[Claim]) -> str:
    lines = [("claim", "difference", "verdict"), ("---",) * 3, *_claim_rows(asked)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _picture(workdir: Path, source: avid_clips.Source, names: list[str]) -> Path:
    """A few clips: recorded above, then every method, frames side by side."""
    rows = []
    for number in range(min(SHOWN_CLIPS, len(source.paths))):
        rows.append(np.concatenate(list(source.video(number)), axis=1))
        for name in names:
            made = media.read_video(workdir / "clips" / name / source.paths[number].name)
            rows.append(np.concatenate(list(made), axis=1))
    path = workdir / "samples" / "methods.png"
    media.write_png(path, np.concatenate(rows).repeat(avid_masks.ZOOM, axis=0).repeat(avid_masks.ZOOM, axis=1))
    return path
