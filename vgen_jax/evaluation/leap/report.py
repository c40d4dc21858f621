"""What a comparison of predictions leaves behind: the table, the claims, the picture, the curves, the contract."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vgen_jax.diffusion.solvers import Solver
from vgen_jax.evaluation.contract import commit
from vgen_jax.evaluation.leap import predictions, table
from vgen_jax.evaluation.sources import Recorded
from vgen_jax.files import media, report
from vgen_jax.files.run_folder import write_results
from vgen_jax.metrics.features import FeatureNet

SHOWN, EVERY = 3, 4  # clips in the picture, and every how many-th frame


def write_page(
    workdir: Path, config: Mapping[str, Any], data: Recorded, settings: predictions.PredictionConfig,
    contract: Mapping[str, str], methods: Mapping[str, predictions.Scored], labels: Mapping[str, str],
    constant: np.ndarray, real: Mapping[str, np.ndarray],
) -> None:  # fmt: skip
    """The table, the claims, the picture, the curves, the contract."""
    columns = table.cells(methods, real, settings.draws, settings.seed)
    named = dict(labels)
    if table.ACTION_ERROR in columns:
        nothing = predictions.Scored({table.ACTION_ERROR: constant}, {}, np.zeros(0), np.zeros(0))
        known = table.cells({table.MEAN_ACTION: nothing}, {}, settings.draws, settings.seed)
        columns[table.ACTION_ERROR] |= known[table.ACTION_ERROR]
        named[table.MEAN_ACTION] = "mean action"
    text = table.markdown(named, columns)
    (workdir / "table.md").write_text(text)
    waits = table.reasons_to_wait(methods, constant, settings.draws, settings.seed)
    rows = table.verdict_rows(table.verdicts(methods, constant, settings.draws, settings.seed))
    lines = [("claim", "difference", "verdict"), ("---",) * 3, *rows]
    claims = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    why = f"No verdicts yet: {'; '.join(waits)}.\n\n" if waits else ""
    (workdir / "claims.md").write_text(why + claims)
    numbers: dict[str, float] = {}
    for column, of_methods in columns.items():
        for name, cell in of_methods.items():
            key = f"{column}/{name}"
            numbers |= {key: cell.value, f"{key}_low": cell.low, f"{key}_high": cell.high}
    write_results(workdir, {**numbers, "waits": "; ".join(waits), "contract": contract})
    picture = write_picture(workdir, data, methods)
    sections: list[report.Section] = [
        report.Table(("method", *columns), table_rows(named, columns), title="Table", caption="In brackets: 95 %."),
        report.Table(("claim", "difference", "verdict"), rows, title="The paper's claims here", caption=why),
        report.Image(picture, title="Clips", caption=f"From above: recorded, {', '.join(labels.values())}."),
        *curves(methods, labels),
        *action_curves(data, methods, labels),
        report.Table(("contract", "value"), sorted(contract.items()), title="Contract"),
    ]
    page = report.write_report(workdir, "Video and action predicted together", sections, config=config)
    print(f"{text}\n{why}{claims}\nreport: {page}", flush=True)


def table_rows(labels: Mapping[str, str], columns: Mapping[str, Mapping[str, object]]) -> list[tuple[str, ...]]:
    """The rows of the table as texts."""
    return [
        (label, *(str(column[method]) if method in column else "" for column in columns.values()))
        for method, label in labels.items()
    ]


def curves(methods: Mapping[str, predictions.Scored], labels: Mapping[str, str]) -> list[report.Section]:
    """Every metric of frames against time."""
    names = dict.fromkeys(name for scores in methods.values() for name in scores.rows)
    found: list[report.Section] = []
    for name in names:
        lines = {}
        for method, scores in methods.items():
            if name in scores.rows:
                values = table.curve(scores.rows[name])
                lines[labels[method]] = (list(range(1, len(values) + 1)), values.tolist())
        found.append(report.Plot(lines, title=f"{name} against time", x_label="frame", y_label=name))
    return found


def action_curves(
    data: Recorded, methods: Mapping[str, predictions.Scored], labels: Mapping[str, str]
) -> list[report.Section]:
    """What was done in the first clip, and what the models expected."""
    _, actions = predictions.clips_of(data, [0])
    found: list[report.Section] = []
    for n, name in enumerate(data.source.info.action_spaces["continuous"].names):
        true = actions[0, data.config.past - 1 :, n]
        lines = {"recorded": (list(range(len(true))), true.tolist())}
        for method, scores in methods.items():
            if table.ACTION_ERROR in scores.rows and len(scores.actions):
                lines[labels[method]] = (list(range(len(true))), scores.actions[0, :, n].tolist())
        found.append(report.Plot(lines, title=f"{name}, first clip", x_label="frame", y_label=name))
    return found


def write_picture(workdir: Path, data: Recorded, methods: Mapping[str, predictions.Scored]) -> Path:
    """Some clips: the last real frame and every few frames after it; recorded above, then every method."""
    videos, _ = predictions.clips_of(data, list(range(min(SHOWN, len(data.windows)))))
    last, rows = data.config.past - 1, []
    for n, video in enumerate(videos):
        made = [video[data.config.past :], *(scores.shown[n] for scores in methods.values())]
        rows += [np.concatenate([video[last], *frames[EVERY - 1 :: EVERY]], axis=1) for frames in made]
    path = workdir / "samples" / "predictions.png"
    media.write_png(path, np.concatenate(rows).repeat(2, axis=0).repeat(2, axis=1))
    return path


def contract_of(
    data: Recorded, settings: predictions.PredictionConfig, solver: Solver, models: Mapping[str, str],
    nets: Mapping[str, FeatureNet],
) -> dict[str, str]:  # fmt: skip
    """What the numbers mean, and where they come from."""
    agreed = {
        "split": data.config.split,
        "clips": str(len(data.windows)),
        "clips_seed": str(data.config.seed),
        "context_frames": str(data.config.past),
        "context_frames_in_metrics": "False",
        "predicted_frames": str(data.config.frames),
        "samples": str(settings.samples),
        "samples_in_numbers": "mean of samples; columns best_of take each clip's best sample in that metric",
        "samples_in_distances": "each clip's first",
        "resolution": "x".join(str(n) for n in data.source.info.frame_shape[:2]),
        "value_range": "[0, 1]",
        "solver": f"{solver.kind}, {solver.evaluations} evaluations a frame, start {solver.start}",
        "seed": str(settings.seed),
        "models_sha256": json.dumps(dict(models)),
        "commit": commit(),
        "device": jax.devices()[0].device_kind,
    }
    for name, net in nets.items():
        agreed |= {f"{name}.{key}": value for key, value in net.contract.items()}
    return agreed
