"""Run ``evaluate``: the next-chunk numbers of a slow model on held-out scenes, with pictures and a report.

Keys:
    model_dir: a slow model: an export, or the work directory of a training.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from vgen_jax.config import Sections, later, section
from vgen_jax.data.batches import BatchesConfig, evaluation_windows, to_batch
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.evaluation import next_chunk
from vgen_jax.evaluation.contract import commit
from vgen_jax.files import media, report
from vgen_jax.files.exports import digest
from vgen_jax.files.progress import progress
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.tasks.exports import model_folder
from vgen_jax.types import VgenError, VideoBatch
from vgen_jax.worlds.slow import frame_size, load_slow_model
from vgen_jax.worlds.texts import with_window_texts

SHOWN = 8


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What to evaluate on.

    Attributes:
        windows: how many windows, a multiple of the data's batch size; spread over scenes and time.
        guidance: scale of classifier-free guidance; 1 for none.
        seed: of the noise.
        text: measure how far texts are obeyed without actions, too; the model has to have both.
    """

    windows: int
    guidance: float
    seed: int
    text: bool = later(False)


SECTIONS: Sections = {"evaluate": EvaluateConfig, "data": BatchesConfig, "sampler": Sampler}


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes ``results.json``, ``samples/next_chunk.png`` and ``report.html``."""
    keep_config(config, workdir)
    settings = section(EvaluateConfig, config.evaluate, "evaluate")
    sampler = section(Sampler, config.sampler, "sampler")
    data = section(BatchesConfig, config.data, "data")
    if settings.windows % data.batch_size:
        raise VgenError(f"evaluate.windows {settings.windows} is no multiple of data.batch_size {data.batch_size}")
    if data.batch_size < 2:
        raise VgenError("data.batch_size is 1: use 2 or more, so that actions can be shuffled among windows")
    folder = model_folder(config.model_dir, workdir)
    model = with_window_texts(load_slow_model(folder), folder, data)
    if settings.text and (data.action == "none" or not data.token_length):
        raise VgenError("evaluate.text is set: give data.action and data.token_length, or a model that reads both")
    past, future = data.windows[0]
    networks = next_chunk.evaluated_model(model, sampler, settings.guidance, past, future)
    rng = jax.random.key(settings.seed)
    digest_of_real = hashlib.sha256()

    def batches() -> Iterator[VideoBatch]:
        for raw in evaluation_windows(data, settings.windows, 0, 1):
            digest_of_real.update(raw["video"].tobytes())
            yield to_batch(raw)

    shown = progress(batches(), total=settings.windows // data.batch_size, desc="evaluate", unit="batch")
    results = next_chunk.evaluate(networks, shown, future, rng, settings.text)
    contract = {
        "split": data.split,
        "windows": settings.windows,
        "past_frames": past,
        "future_frames": future,
        "context_frames_in_metrics": False,
        "resolution": "x".join(str(n) for n in frame_size(model)),
        "value_range": "[0, 1]",
        "real_sha256": digest_of_real.hexdigest(),
        "sampler": f"{sampler.kind} {sampler.steps} steps eta {sampler.eta} guidance {settings.guidance}",
        "seed": settings.seed,
        "model_sha256": digest(folder),
        "commit": commit(),
        "device": jax.devices()[0].device_kind,
    }
    write_results(workdir, {**results, "contract": contract})
    picture = workdir / "samples" / "next_chunk.png"
    first = next(to_batch(b) for b in evaluation_windows(data, settings.windows, 0, 1))
    _, generated = next_chunk.evaluate_batch(networks, first, future, jax.random.fold_in(rng, 0))
    video = np.asarray(first.video_BTHWC)[:SHOWN]
    sheet = next_chunk.comparison_rows(video[:, past:], generated[:SHOWN], video[:, :past])
    media.write_png(picture, sheet.repeat(2, axis=0).repeat(2, axis=1))
    write_page(workdir, results, contract, picture, config)


def write_page(workdir: Path, results: dict, contract: dict, picture: Path, config: ConfigDict) -> None:
    """report.html: a table against the baseline, everything measured, pictures, the contract."""
    rows = []
    for name in ("psnr", "ssim", "psnr_moving", "ssim_moving"):
        base = name.replace("_moving", "") + "_repeat_last" + ("_moving" if name.endswith("_moving") else "")
        rows.append((name, results[name], results[f"{name}_ci95"], results[base], results[f"{base}_ci95"]))
    sections: list[report.Section] = [
        report.Table(("metric", "model", "± 95 %", "repeat last frame", "± 95 %"), rows, title="Next chunk"),
        report.Table(("result", "value"), sorted(results.items()), title="Everything measured"),
        report.Image(
            picture,
            title="Next chunk",
            caption="Pairs of rows: above the simulator, below the model, after the same real past frames.",
        ),
        report.Table(("contract", "value"), sorted((k, str(v)) for k, v in contract.items()), title="Contract"),
    ]
    report.write_report(workdir, "Next-chunk evaluation", sections, config=config.to_dict())
