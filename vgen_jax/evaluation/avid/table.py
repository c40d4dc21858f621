"""A row of AVID's tables: clips of one method, scored, with its weight chosen on clips of the training levels.

Recorded clips are cut once; each method continues them with the same noise and is scored by
``evaluation.scoring.score``. A world of latents needs its autoencoder, for past frames and for what was sampled. With a
``token_length`` methods that read texts are told those of the windows.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vgen_jax.data.text import encode_text, join_texts
from vgen_jax.data.windows import future_texts
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.evaluation import sources
from vgen_jax.evaluation.avid import clips as avid_clips
from vgen_jax.evaluation.avid import masks as avid_masks
from vgen_jax.evaluation.clips import Clips, Cut, check_alike
from vgen_jax.evaluation.comparison import (
    SCORES_FILE,
    Result,
    read_result,
)
from vgen_jax.evaluation.contract import contract
from vgen_jax.evaluation.networks import Nets
from vgen_jax.evaluation.scoring import ScoreConfig, score
from vgen_jax.files.run_folder import write_results
from vgen_jax.types import VgenError
from vgen_jax.worlds.avid import Base, Method, load_method

WEIGHTS_FILE = "weights.json"


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
    generate: avid_clips.ClipsConfig
    score: ScoreConfig
    cut: Cut
    nets: Nets
    workdir: Path
    codec: avid_clips.Codec
    token_length: int


def source_of(folder: str, windows: sources.WindowsConfig, target: Path, at: Setting) -> avid_clips.Source:
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


def best_weight(name: str, entry: avid_clips.TableEntry, source: avid_clips.Source, metric: str, at: Setting) -> float:
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


def scored(name: str, label: str, weight: float, folder: Path, at: Setting) -> Result:
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


def has_mask(folder: Path) -> bool:
    """Whether the method of an export mixes by a mask."""
    return bool(json.loads((folder / "config.json").read_text())["method"]["mask"])


def masks_of(
    folder: Path, method: Method, source: avid_clips.Source, count: int, at: Setting
) -> tuple[avid_masks.Masks, tuple[Path, Path]]:
    """The masks of a method's first ``count`` clips, and their pictures in ``samples/``."""
    _, _, params = load_method(folder, at.base)
    numbers = list(range(min(count, len(source.paths))))
    found = avid_masks.masks(method, params, source, numbers, at.sampler, at.base.world.schedule)
    return found, avid_masks.write_masks(found, source, numbers, at.workdir / "samples")
