"""Run ``evaluate_action``: how well an action predictor reads actions off real frames that it has never seen.

Every number is a mean absolute error per step, in raw units (degrees, map units), of a dimension and, as ``moved``, of
the length of the error of all dimensions but the first where those are a motion's. Beside the predictor stand ``zero``,
which says that nothing moves, and ``constant``, which always says the training data's mean. ``moved_share`` is relative
to the mean step. Of ids there is the accuracy alone, beside that of the most frequent id.

Keys:
    model_dir: the export of an action predictor.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.data.batches import BatchesConfig, evaluation_windows
from vgen_jax.data.motion import MOTION_SPACE
from vgen_jax.evaluation.action_predictor import ActionReader, load_action_reader
from vgen_jax.files.exports import digest
from vgen_jax.files.progress import progress
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.metrics.base import Mean
from vgen_jax.nn.pixels import to_unit
from vgen_jax.types import VgenError


@dataclasses.dataclass(frozen=True)
class EvaluateActionConfig:
    """What to evaluate on.

    Attributes:
        windows: how many windows, a multiple of the data's batch size; spread over scenes and time.
    """

    windows: int


SECTIONS: Sections = {"evaluate": EvaluateActionConfig, "data": BatchesConfig}


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes ``results.json``.

    Raises:
        VgenError: data of other actions than the predictor's.
    """
    keep_config(config, workdir)
    settings = section(EvaluateActionConfig, config.evaluate, "evaluate")
    data = section(BatchesConfig, config.data, "data")
    reader = load_action_reader(Path(config.model_dir))
    if (data.action == "motion") != (reader.space == MOTION_SPACE):
        known = "motion" if reader.space == MOTION_SPACE else reader.space.kind
        raise VgenError(f"config key data.action is '{data.action}': the predictor reads {known}, use that")
    read = jax.jit(lambda params, video: reader.network.apply({"params": params}, to_unit(video))[0])
    found, wanted = [], []
    batches = evaluation_windows(data, settings.windows, 0, 1)
    for batch in progress(batches, total=settings.windows // data.batch_size, desc="evaluate", unit="batch"):
        found.append(np.asarray(read(reader.params, batch["video"]), np.float64))
        wanted.append(batch["action"][:, 1:].astype(np.float64))
    results = errors(reader, np.concatenate(found), np.concatenate(wanted))
    contract = {
        "split": data.split, "windows": settings.windows, "frames": sum(data.windows[0]), "source": reader.source,
        "actions": f"{reader.space.kind}: {', '.join(reader.space.names)}", "seed": data.seed,
        "model_sha256": digest(Path(config.model_dir)),
    }  # fmt: skip
    write_results(workdir, {**results, "contract": contract})
    for name, value in results.items():
        if not name.endswith(("_ci95", "_count")):
            print(f"{name:40} {value:.4f}", flush=True)


def errors(reader: ActionReader, found_BTA: np.ndarray, wanted_BTA: np.ndarray) -> dict[str, float]:
    """The numbers of the module's docstring.

    Args:
        found_BTA: as the network writes them.
        wanted_BTA: in model units, or one-hot.
    """
    if reader.target.kind == "discrete":
        ids = wanted_BTA.argmax(-1)
        frequent = np.broadcast_to(np.bincount(ids.ravel()).argmax(), ids.shape)
        return _mean("accuracy", found_BTA.argmax(-1) == ids) | _mean("accuracy_frequent", frequent == ids)
    scale, mean, std = (np.asarray(x) for x in (reader.space.scale, reader.target.mean, reader.target.std))
    wanted = wanted_BTA * scale
    guesses = {"": (found_BTA * std + mean) * scale, "_zero": 0.0 * wanted, "_constant": 0.0 * wanted + mean * scale}
    results: dict[str, float] = {}
    step = np.linalg.norm(wanted[..., 1:], axis=-1)
    for guess, values in guesses.items():
        for n, name in enumerate(reader.space.names):
            results |= _mean(f"mae_{name}{guess}", np.abs(values - wanted)[..., n])
        if reader.space == MOTION_SPACE:
            away = np.linalg.norm((values - wanted)[..., 1:], axis=-1)
            results |= _mean(f"mae_moved{guess}", away)
            results[f"moved_share{guess}"] = float(away.mean() / step.mean())
    if reader.space == MOTION_SPACE:
        results |= _mean("step", step)
    return results


def _mean(name: str, values_BT: np.ndarray) -> dict[str, float]:
    """Over steps, with an interval over windows."""
    metric = Mean(name)
    return metric.compute(metric.update(metric.init(), values=np.asarray(values_BT, np.float64).mean(1)))
