"""Training of the place encoder to its export, and back into metrics."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.eval import place_encoder
from tests import tiny
from vgen_jax.evaluation.place_encoder import SLICE, load_place
from vgen_jax.files.exports import export
from vgen_jax.files.run_folder import resolved
from vgen_jax.models.place import PlaceConfig, place_network
from vgen_jax.runs import evaluate_place, train
from vgen_jax.types import VgenError

SHAPE = PlaceConfig((8, 8), 1, 8, 4, "float32")


def stage(name: str, changes: dict) -> ConfigDict:
    found = place_encoder.get_config(f"tiny.{name}")
    found.update_from_flattened_dict(changes)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A random encoder's export."""
    params = tiny.random_params(place_network(SHAPE).init, jnp.zeros((1, 8, 8, 3)))["params"]
    export(tmp_path / "export", params, {"place": dataclasses.asdict(SHAPE), "name": "place_test"})
    return tmp_path / "export"


def test_any_number_of_frames_is_coded_alike(folder: Path) -> None:
    encoder = load_place(folder)
    frames = np.random.default_rng(0).integers(0, 256, (SLICE + 3, 16, 16, 3), np.uint8)
    code = encoder.embed(frames)
    assert encoder.name == "place_test" and code.shape == (SLICE + 3, 8)
    np.testing.assert_allclose(encoder.embed(frames[SLICE:]), code[SLICE:], atol=1e-6)
    assert encoder.embed(frames[:0]).shape == (0, 8)
    assert [layer.shape for layer in encoder.layers(frames)] == [(SLICE + 3, 4, 4, 8), (SLICE + 3, 2, 2, 8)]


def test_an_export_of_another_kind_is_refused(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "place": {**raw["place"], "width": 16}}))
    with pytest.raises(VgenError, match="out/kernel is"):
        load_place(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(VgenError, match="no place encoder"):
        load_place(folder)


@pytest.mark.slow
def test_it_learns_to_tell_places_apart(tmp_path: Path) -> None:
    """Through the one training loop; afterwards equal views are more alike than others, on data it has not seen."""
    tiny.write_dataset(tmp_path / "data")
    near = {"near": 15.0, "turn": 5.0}
    changes = {f"data.{key}": value for key, value in near.items()}
    changes |= {"objective.loss.near": 25.0, "objective.loss.augment.shift": 0.5, "train.steps": 60}
    train.run(resolved(stage("encoder", changes), tmp_path / "encoder"), tmp_path / "encoder")
    changes = {"places.near": 15.0, "places.apart": 40.0, "augment.shift": 0.5}
    evaluate_place.run(resolved(stage("evaluate", changes), tmp_path / "evaluate"), tmp_path / "evaluate")
    results = json.loads((tmp_path / "evaluate" / "results.json").read_text())
    same, other = (results[f"cosine_{kind}_place_test_degraded"] for kind in ("same", "other"))
    assert same > other + 0.2
    assert 0 <= results["retrieval_pixels"] <= 1 and results["retrieval_place_test_count"] >= 4
