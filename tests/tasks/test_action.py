"""Training of the action predictor to its export, and back into metrics."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from configs.eval import action_predictor
from tests import tiny
from vgen_jax.data.batches import BatchesConfig
from vgen_jax.data.records import EpisodeSource
from vgen_jax.evaluation.action_predictor import (
    ActionConfig,
    distance_net,
    frames_net,
    load_action_reader,
    perceptual_net,
    predictor_network,
    steps_net,
)
from vgen_jax.files.exports import export
from vgen_jax.metrics.action_error import action_scores
from vgen_jax.metrics.features import extractor
from vgen_jax.objectives.action import ActionTarget
from vgen_jax.runs import train
from vgen_jax.tasks.action import action_target
from vgen_jax.types import VgenError

SHAPE = ActionConfig((8, 8), 1, 16, 1, 4, "float32")
TARGET = ActionTarget("continuous", (0.25, 1.0), (0.5, 2.0))


def random_reader(folder: Path, name: str = "action_test") -> Path:
    """A random predictor's export; it knows the actions of ``tiny.write_dataset``."""
    example = np.zeros((1, 2, 8, 8, 3), np.float32)
    params = tiny.random_params(predictor_network(SHAPE, 2).init, example)["params"]
    about = {"action": SHAPE, "space": tiny.SPACES["continuous"], "target": TARGET}
    export(folder, params, {**{key: dataclasses.asdict(value) for key, value in about.items()}, "name": name})
    return folder


def test_actions_are_written_as_the_network_knows_them(tmp_path: Path) -> None:
    reader = load_action_reader(random_reader(tmp_path / "export"))
    assert reader.source == "test"
    raw = np.array([[5.0, 0.5], [0.0, 1.0]], np.float32)  # scales 10 and 0.5
    np.testing.assert_allclose(reader.wanted(raw), [[(0.5 - 0.25) / 0.5, 0.0], [-0.5, 0.5]], atol=1e-6)
    for wrong in (np.zeros(3, np.int32), np.zeros((3, 3), np.float32)):
        with pytest.raises(VgenError, match=r"not the continuous ones \(turn, forward\)"):
            reader.wanted(wrong)


def test_an_export_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = random_reader(tmp_path / "export")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "action": {**raw["action"], "width": 32}}))
    with pytest.raises(VgenError, match="out/kernel is"):
        load_action_reader(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(VgenError, match="no action predictor"):
        load_action_reader(folder)


def test_the_features_of_a_clip_are_a_mean_over_its_steps(tmp_path: Path) -> None:
    reader = load_action_reader(random_reader(tmp_path / "export"))
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 8, 3), np.uint8)
    found = extractor(distance_net(reader), 2)(clips[:, None])
    assert distance_net(reader).name == "fd_action_test" and found.shape == (2, 1, 16)
    steps = extractor(steps_net(reader, 4), 2)(clips[:, None])
    assert steps_net(reader, 4).name == "action_error_ratio_test" and steps.shape == (2, 1, 3 * 2)


def test_single_frames_are_compared_in_what_the_predictor_sees(tmp_path: Path) -> None:
    reader = load_action_reader(random_reader(tmp_path / "export"))
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 5, 16, 16, 3), np.uint8)
    little, much = (
        np.clip(frames + rng.normal(0, deviation, frames.shape), 0, 255).astype(np.uint8) for deviation in (8.0, 80.0)
    )
    net = perceptual_net(reader)
    assert (net.name, net.rows) == ("lpips_action_test", "pair")
    measure = extractor(net, 3)
    same, near, far, back = (
        measure(np.stack(pair, axis=2))[..., 0]
        for pair in ((frames, frames), (frames, little), (frames, much), (much, frames))
    )
    assert same.shape == (3, 5) and (same == 0).all()
    assert (0 < near).all() and (near < far).all() and (far < 4).all()
    np.testing.assert_allclose(back, far, rtol=1e-5)
    np.testing.assert_allclose(measure(np.stack((frames, much), axis=2)[:, 3:4])[:, 0, 0], far[:, 3], rtol=1e-5)

    net = frames_net(reader)
    assert (net.name, net.rows, net.width) == ("fd_frames_test", "frame", 16)
    features = extractor(net, 3)
    found = features(frames)
    assert found.shape == (3, 5, 16)
    np.testing.assert_allclose(features(frames[:, 2:3]), found[:, 2:3], rtol=1e-4, atol=1e-5)
    assert not np.allclose(features(much), found, atol=1e-2)


def batches(folder: Path, action: str) -> BatchesConfig:
    return BatchesConfig(str(folder), "train", ((1, 4),), (1.0,), 4, 0, 0, action, True, True, 0, False)


def test_the_target_is_normalised_over_all_training_data(tmp_path: Path) -> None:
    folder = tiny.write_dataset(tmp_path / "data")
    source = EpisodeSource(folder, "train")
    raw = np.concatenate([source.head(n).tensors["actions.continuous"] for n in range(len(source))]) / (10.0, 0.5)
    space, target = action_target(batches(folder, "continuous"))
    assert space.names == ("turn", "forward")
    np.testing.assert_allclose([target.mean, target.std], [raw.mean(0), raw.std(0)], rtol=1e-5)
    assert action_target(batches(folder, "discrete"))[1] == ActionTarget("discrete", (), ())
    with pytest.raises(VgenError, match="data.action is 'none'"):
        action_target(batches(folder, "none"))


@pytest.mark.slow
@pytest.mark.parametrize("action", ["continuous", pytest.param("discrete", marks=pytest.mark.long)])
def test_it_learns_to_read_actions(action: str, tmp_path: Path) -> None:
    """Through the one training loop; then from data it has not seen, and not from videos that stand still."""
    folder = tiny.write_dataset(tmp_path / "data")
    config = action_predictor.get_config("tiny")
    config.update_from_flattened_dict({"data.data_dir": str(folder), "data.action": action})
    train.run(config, tmp_path / "action")
    reader = load_action_reader(tmp_path / "action" / "export")
    source = EpisodeSource(folder, "validation")
    clips = np.stack([source.window(n, 0, 17) for n in range(len(source))])
    wanted = np.stack([reader.wanted(source.head(n).tensors[f"actions.{action}"]) for n in range(len(source))])
    extract = extractor(steps_net(reader, 17), 4)
    moving, frozen = (
        action_scores(reader.space.kind, extract(x[:, None]).reshape(wanted.shape), wanted).mean()
        for x in (clips, np.repeat(clips[:, :1], 17, axis=1))
    )
    if action == "discrete":
        assert moving > 0.9 and frozen < 0.8
    else:
        assert moving < 0.5 * frozen
