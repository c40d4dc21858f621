"""A run's folder: where other runs' results are found, and the config that made it.

In a config, a path that begins with ``@`` names a sibling of the run's work directory: with
``--workdir=out/slow``, ``@data`` is ``out/data``. Pipelines put every stage in such a sibling. One that begins with
``asset:`` names weights that come with the package (``files.assets``).
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vgen_jax.files.assets import PREFIX, asset_folder
from vgen_jax.types import VgenError

CONFIG_FILE, RESULTS_FILE = "config.json", "results.json"
CHECKPOINTS = "checkpoints"  # the folder of a training's
# Keys that may change when a run is started again: they do not alter what has been computed so far.
CHANGEABLE = (
    "train.steps", "train.log_every", "train.checkpoint_every", "train.keep", "train.profile_start",
    "train.profile_steps", "train.sample_minutes", "mesh", "data.workers", "slow.unet.remat", "finetune.remat",
    "collect.workers",
    "generate.save_every", "memories.", "revisit.lengths", "revisit.protocols", "revisit.batch",
    "revisit.memories", "revisit.shown_memories", "remote.", "serve.",
)  # fmt: skip


def resolved(config: ConfigDict, workdir: Path) -> ConfigDict:
    """A locked copy of ``config`` with every ``@name`` and ``asset:name`` replaced by its folder."""
    return ConfigDict(_resolve(config.to_dict(), workdir)).lock()


def _resolve(value: Any, workdir: Path) -> Any:
    if isinstance(value, Mapping):
        return {k: v if k == "stages" else _resolve(v, workdir) for k, v in value.items()}
    if isinstance(value, str) and value.startswith("@"):
        return str(workdir.parent / value[1:])
    if isinstance(value, str) and value.startswith(PREFIX):
        return str(asset_folder(value.removeprefix(PREFIX)))
    return value


def as_json(config: ConfigDict) -> str:
    """The config as stable JSON."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def keep_config(config: ConfigDict, workdir: Path, changeable: tuple[str, ...] = CHANGEABLE) -> None:
    """Writes ``config.json``; refuses a folder that another config made.

    Args:
        changeable: beginnings of keys that may differ.

    Raises:
        VgenError: naming the first key that differs and must not.
    """
    path = workdir / CONFIG_FILE
    text = as_json(config)
    if path.is_file():
        old, new = _flat(json.loads(path.read_text())), _flat(json.loads(text))
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key) and not key.startswith(changeable):
                raise VgenError(
                    f"{path} says {key} = {old.get(key)} but the config now says {new.get(key)}: "
                    "use another --workdir, or the old value"
                )
    workdir.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)


def write_results(workdir: Path, results: Mapping[str, Any]) -> None:
    """Writes ``results.json``; a number that is not finite becomes null, which is what JSON has for it."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in results.items()}
    (workdir / RESULTS_FILE).write_text(json.dumps(clean, indent=2, sort_keys=True, allow_nan=False) + "\n")


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, Mapping):
        return {prefix[:-1]: values}
    return {k: v for name, value in values.items() for k, v in _flat(value, f"{prefix}{name}.").items()}
