"""Run ``avid_table``: every method of AVID's tables on the same recorded clips, scored alike, in one table.

Recorded clips are cut once; each method continues them with the same noise and is scored by
``evaluation.scoring.score``. Weights of mixtures are chosen on clips of the training levels, by ``tune.metric``. A
world of latents needs its autoencoder in ``autoencoder_dir``, for past frames and for what was sampled; ``test_data``
and ``tune_data`` hold frames in any world. With a ``token_length`` methods that read texts are told those of the
windows. Left in the work directory: ``table.md``, ``results.json``, ``claims.md``, clips and scores of each method,
pictures of masks, ``report.html``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.evaluation import sources
from vgen_jax.evaluation.avid import clips as avid_clips
from vgen_jax.evaluation.avid import masks as avid_masks
from vgen_jax.evaluation.avid.claims import Claim, claims
from vgen_jax.evaluation.avid.table import (
    Setting,
    TableConfig,
    TuneConfig,
    best_weight,
    has_mask,
    masks_of,
    scored,
    source_of,
)
from vgen_jax.evaluation.clips import Cut
from vgen_jax.evaluation.comparison import COMPARED, FREE, NORMALISED, Estimate, Result, markdown, normalised, table
from vgen_jax.evaluation.networks import load_nets
from vgen_jax.evaluation.scoring import ScoreConfig
from vgen_jax.files import media, report
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.types import VgenError
from vgen_jax.worlds.avid import load_base

TABLE_FILE, CLAIMS_FILE = "table.md", "claims.md"
SHOWN_CLIPS = 2


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
        section(avid_clips.ClipsConfig, config.generate, "generate"),
        score_config,
        section(Cut, config.cut, "cut"),
        load_nets((*score_config.metrics, tune.metric), config),
        workdir,
        avid_clips.codec(base.world, config.autoencoder_dir),
        config.token_length,
    )
    windows = section(sources.WindowsConfig, config.windows, "windows")
    test = source_of(config.test_data, windows, workdir / "clips" / "real", at)
    training: avid_clips.Source | None = None
    results: dict[str, Result] = {}
    sizes, weights = {}, {}
    masks: tuple[avid_masks.Masks, tuple[Path, Path]] | None = None
    for name in config.order:
        if name not in config.methods:
            raise VgenError(f"config key order names method '{name}': methods has {', '.join(config.methods)}")
        chosen = section(avid_clips.TableEntryConfig, config.methods[name].to_dict(), f"methods.{name}")
        frame = test.video(0).shape[1:]
        entry, method = avid_clips.load_entry(chosen, at.base, frame)
        weight = 0.0
        if chosen.weights:
            if training is None:
                training = source_of(config.tune_data, tune.windows, workdir / "tune" / "real", at)
            weight = weights[name] = best_weight(name, entry, training, tune.metric, at)
        folder = workdir / "clips" / name
        avid_clips.write_clips(entry, weight, test, at.sampler, at.base.world.schedule, at.generate, folder)
        results[name] = scored(name, chosen.label, weight, folder, at)
        sizes[name] = entry.trained
        if masks is None and method is not None and method.parts is not None and has_mask(Path(chosen.dir)):
            masks = masks_of(Path(chosen.dir), method, test, settings.mask_clips, at)
    _write(config, workdir, settings, results, sizes, weights, masks, test)


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


def _numbers(names: list[str], cells: Mapping[str, list[Estimate]]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for metric, column in cells.items():
        for name, cell in zip(names, column, strict=True):
            key = f"{metric}/{name}"
            numbers |= {key: cell.value, f"{key}_low": cell.low, f"{key}_high": cell.high}
    return numbers


def _claim_rows(asked: list[Claim]) -> list[tuple[str, str, str]]:
    return [
        (f"{c.metric}: {c.better} better than {c.worse}", str(Estimate(c.difference, c.low, c.high)), c.verdict)
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
