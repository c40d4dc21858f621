"""How well actions are read off real frames, beside guesses that look at nothing."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from configs.eval import action_predictor
from tests import tiny
from tests.tasks.test_action import random_reader
from vgen_jax.data.motion import MOTION_SPACE
from vgen_jax.evaluation.action_predictor import load_action_reader
from vgen_jax.objectives.action import ActionTarget
from vgen_jax.runs import evaluate_action, train
from vgen_jax.types import VgenError

MOTION = {"data.action": "motion", "action.mixers": 0, "action.grid": 2, "train.steps": 20}


def test_guesses_are_what_they_say(tmp_path: Path) -> None:
    reader = load_action_reader(random_reader(tmp_path))
    mean, std = (0.1, -0.2, 0.3), (0.5, 0.6, 0.7)
    reader = reader._replace(space=MOTION_SPACE, target=ActionTarget("continuous", mean, std))
    wanted = np.random.default_rng(0).normal(0, 1, (4, 5, 3))
    raw, scale = wanted * MOTION_SPACE.scale, np.asarray(MOTION_SPACE.scale)
    exact = evaluate_action.errors(reader, (wanted - mean) / std, wanted)
    for name in (*(f"mae_{n}" for n in MOTION_SPACE.names), "mae_moved", "moved_share"):
        assert exact[name] == pytest.approx(0, abs=1e-9)
    assert exact["mae_turn_degrees_zero"] == pytest.approx(np.abs(raw[..., 0]).mean())
    assert exact["mae_forward_units_constant"] == pytest.approx(np.abs(raw - scale * mean)[..., 1].mean())
    assert exact["moved_share_zero"] == pytest.approx(1) and exact["step_count"] == 4
    off = evaluate_action.errors(reader, (wanted + np.array([0, 3 / 33, 4 / 33]) - mean) / std, wanted)
    assert off["mae_moved"] == pytest.approx(5) and off["mae_turn_degrees"] == pytest.approx(0, abs=1e-9)


def test_ids_have_an_accuracy(tmp_path: Path) -> None:
    reader = load_action_reader(random_reader(tmp_path))._replace(target=ActionTarget("discrete", (), ()))
    wanted = np.eye(3)[[[0, 0, 1], [0, 2, 0]]]
    found = evaluate_action.errors(reader, np.roll(wanted, 1, axis=0), wanted)
    assert found["accuracy"] == pytest.approx(1 / 3) and found["accuracy_frequent"] == pytest.approx(4 / 6)


@pytest.mark.slow
def test_a_motion_is_learnt_from_poses_and_measured_on_held_out_frames(tmp_path: Path) -> None:
    folder = tiny.write_dataset(tmp_path / "data")
    config = action_predictor.get_config("tiny")
    changes = {**MOTION, "optimizer.decay_steps": 20, "optimizer.warmup_steps": 2, "train.checkpoint_every": 20}
    config.update_from_flattened_dict({"data.data_dir": str(folder), **changes})
    train.run(config, tmp_path / "action")
    export = tmp_path / "action" / "export"
    reader = load_action_reader(export)
    assert reader.space == MOTION_SPACE and json.loads((export / "config.json").read_text())["action"]["grid"] == 2
    measure = action_predictor.get_config("tiny.evaluate")
    measure.update_from_flattened_dict(
        {"data.data_dir": str(folder), "model_dir": str(export), "data.batch_size": 2, "evaluate.windows": 2}
    )
    with pytest.raises(VgenError, match="data.action is 'continuous': the predictor reads motion"):
        evaluate_action.run(measure, tmp_path / "wrong")
    measure.data.action = "motion"
    evaluate_action.run(measure, tmp_path / "measured")
    results = json.loads((tmp_path / "measured" / "results.json").read_text())
    assert {"mae_turn_degrees", "moved_share", "moved_share_zero", "moved_share_constant"} <= results.keys()
    assert dataclasses.asdict(MOTION_SPACE)["names"][0] in results["contract"]["actions"]
