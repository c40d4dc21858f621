"""Run ``bundle``: an export as weights that come with the package (``files.assets``), with a model card.

The card says what it takes to make the weights again: data, command, steps, hardware, and what was measured.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.files.assets import ASSETS, PREFIX, write_asset
from vgen_jax.files.exports import EXPORT_WEIGHTS, digest, load_export
from vgen_jax.files.log import METRICS_FILE, read_metrics
from vgen_jax.files.run_folder import CONFIG_FILE, RESULTS_FILE
from vgen_jax.types import VgenError


@dataclasses.dataclass(frozen=True)
class BundleConfig:
    """What is bundled.

    Attributes:
        source: an export.
        name: of the asset, ``vizdoom/slow``.
        folder: where assets are; empty for the package's own.
        autoencoder: a slow model's autoencoder, an asset that is there already; empty for other networks.
    """

    source: str
    name: str
    folder: str
    autoencoder: str


@dataclasses.dataclass(frozen=True)
class CardConfig:
    """What the model card says.

    Attributes:
        title: what the network is.
        command: what trains it.
        data: what it was trained on.
        hardware: what it was trained on, and for how long.
        training: the training's work directory.
        evaluation: the work directory of a run whose results.json goes into the card; empty for none.
    """

    title: str
    command: str
    data: str
    hardware: str
    training: str
    evaluation: str

    def __post_init__(self) -> None:
        for field in ("title", "command", "data", "hardware"):
            if not getattr(self, field):
                raise VgenError(f"config key card.{field} is empty: a model card has to say it")


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes the asset; ``workdir`` gets nothing."""
    bundle = section(BundleConfig, config.bundle, "bundle")
    card = section(CardConfig, config.card, "card")
    source = Path(bundle.source)
    text = model_card(card, bundle.name, source)
    folder = write_asset(source, Path(bundle.folder or ASSETS), bundle.name, text, bundle.autoencoder)
    size = (folder / EXPORT_WEIGHTS).stat().st_size
    print(f"bundled {PREFIX}{bundle.name}: {size / 2**20:.2f} MiB in {folder}", flush=True)


def model_card(card: CardConfig, name: str, source: Path) -> str:
    """The card as Markdown."""
    params, _ = load_export(source)
    count = sum(x.size for x in jax.tree.leaves(params))
    rows = {
        "parameters": f"{count:,}, stored as float16, restored to float32",
        "SHA-256 before rounding": f"`{digest(source)}`",
        "data": card.data,
        "command": f"`{card.command}`",
        **training_facts(Path(card.training)),
        "hardware": card.hardware,
        "licence": "Apache-2.0, as the code",
    }
    parts = [f"# {card.title}", f"`{PREFIX}{name}` in a config.", table("", rows)]
    if card.evaluation:
        results, contract = evaluation_facts(Path(card.evaluation))
        parts += ["## Measured before rounding", table("metric", results), "## Contract", table("", contract)]
    return "\n\n".join(part for part in parts if part) + "\n"


def training_facts(workdir: Path) -> dict[str, str]:
    """What a training's folder tells of it."""
    path = workdir / CONFIG_FILE
    if not path.is_file():
        raise VgenError(f"{path} is missing: name the training's work directory in card.training")
    config = json.loads(path.read_text())
    last = read_metrics(workdir / METRICS_FILE)[-1]
    rate = config["optimizer"]["learning_rate"]
    return {
        "steps": f"{last['step']:,.0f} of batch {config['data']['batch_size']}, learning rate {rate}, "
        f"last loss {last['loss']:.4g}",
    }


def evaluation_facts(workdir: Path) -> tuple[dict[str, str], dict[str, str]]:
    """A run's results, and their contract."""
    path = workdir / RESULTS_FILE
    if not path.is_file():
        raise VgenError(f"{path} is missing: evaluate the network first, or leave card.evaluation empty")
    results = json.loads(path.read_text())
    contract = results.pop("contract", {})
    numbers = {
        key: f"{x:.4g}" for key, x in results.items() if isinstance(x, (int, float)) and not key.endswith("_ci95")
    }
    for key in numbers:
        if isinstance(margin := results.get(f"{key}_ci95"), float):
            numbers[key] += f" ± {margin:.2g}"
    return numbers, {key: str(value) for key, value in contract.items()}


def table(head: str, rows: Mapping[str, Any]) -> str:
    """A Markdown table of two columns."""
    lines = (f"| {key} | {str(value).replace('|', '/')} |" for key, value in rows.items())
    return "\n".join([f"| {head} | |", "|---|---|", *lines])
