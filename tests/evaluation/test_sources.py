"""Clips of recorded episodes and of a model's continuations, scored as any other folder."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from configs.eval import videos as configs
from tests import tiny
from tests.tasks.test_action import random_reader
from vgen_jax import runs
from vgen_jax.config import section
from vgen_jax.data.motion import realised_motion
from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.revisits import revisits
from vgen_jax.evaluation import sources
from vgen_jax.files.exports import digest
from vgen_jax.runs import evaluate_videos
from vgen_jax.tasks import exports
from vgen_jax.types import VgenError
from vgen_jax.worlds import assembly

WINDOWS = sources.WindowsConfig("validation", 4, 2, 4, "continuous", 0)
METRICS = ("psnr", "sharpness", "scuts", "action_error_ratio_test", "fd_action_test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and a random model in the work directory of its training."""
    root = tmp_path_factory.mktemp("clips")
    tiny.write_dataset(root / "data")
    tiny.write_model(root / "slow" / "export")
    random_reader(root / "action")
    return root


def settings(folder: Path, **changes: Any) -> Any:
    config = configs.get_config()
    dirs = {"real": folder / "data", "generated": folder / "slow", "action_dir": folder / "action"}
    config.update({key: str(path) for key, path in dirs.items()})
    flat = {
        "cut.skip": 2, "score.metrics": METRICS, "windows.count": 4, "windows.past": 2, "windows.frames": 4,
        "model.future": 2, "model.batch_size": 4, "sampler.steps": 2,
    }  # fmt: skip
    config.update_from_flattened_dict({**flat, **changes})
    return config


def test_what_kind_of_folder_it_is(folder: Path) -> None:
    kinds = [(sources.is_records(str(folder / x)), sources.is_model(str(folder / x))) for x in ("data", "slow")]
    assert kinds == [(True, False), (False, True)]
    export_folder = folder / "slow" / "export"  # it has a dataset.json as well
    assert (sources.is_records(str(export_folder)), sources.is_model(str(export_folder))) == (False, True)
    assert exports.model_folder(str(folder / "slow"), folder) == export_folder
    with pytest.raises(VgenError, match="is no model"):
        exports.model_folder(str(folder / "data"), folder)


def test_recorded_clips_are_the_recordings(folder: Path, tmp_path: Path) -> None:
    data = sources.recorded(str(folder / "data"), WINDOWS)
    sources.write_recorded(data, tmp_path)
    source = EpisodeSource(folder / "data", "validation")
    assert len(list(tmp_path.iterdir())) == 4
    for number, (episode, boundary) in enumerate(data.windows):
        with np.load(tmp_path / f"{number:06d}.npz") as clip:
            np.testing.assert_array_equal(clip["frames"], source.window(episode, boundary - 1, boundary + 5))
            # the tiny square moves by 1 pixel on 'go' and by 2 on 'turn', whose first number is 5
            pose = source.head(episode).tensors["extras.pose"][boundary - 1 : boundary + 5]
            np.testing.assert_allclose((np.diff(pose[:, 0]) / 10) % tiny.SIZE, 1 + (clip["actions"][:, 0] == 5))
            np.testing.assert_array_equal(clip["visits"], revisits(pose[2:]) + 2)


def test_clips_may_hold_what_the_poses_say(folder: Path, tmp_path: Path) -> None:
    data = sources.recorded(str(folder / "data"), dataclasses.replace(WINDOWS, action="motion"))
    sources.write_recorded(data, tmp_path / "clips")
    for number, (episode, boundary) in enumerate(data.windows):
        with np.load(tmp_path / "clips" / f"{number:06d}.npz") as clip:
            pose = data.source.head(episode).tensors["extras.pose"][boundary - 1 : boundary + 5]
            np.testing.assert_allclose(clip["actions"], realised_motion(pose))
            assert "walls" not in clip.files
    with pytest.raises(VgenError, match="no actions 'joystick'"):
        sources.recorded(str(folder / "data"), dataclasses.replace(WINDOWS, action="joystick"))
    with pytest.raises(VgenError, match="windows.action is 'motion', but the action predictor reads continuous"):
        evaluate_videos.run(settings(folder, **{"windows.action": "motion"}), tmp_path / "out")


def generated(folder: Path, target: Path, batch_size: int) -> list[np.ndarray]:
    config = settings(folder)
    sampler = section(sources.Sampler, config.sampler, "sampler")
    memory = section(sources.MemoryConfig, config.memory.to_dict(), "memory")
    data = sources.recorded(str(folder / "data"), WINDOWS)
    model = sources.ModelConfig(2, 1.0, batch_size, 0)
    sources.write_generated(data, folder / "slow" / "export", model, sampler, memory, target)
    return [np.load(path)["frames"] for path in sorted(target.iterdir())]


def test_a_clip_does_not_depend_on_the_others(folder: Path, tmp_path: Path) -> None:
    whole = generated(folder, tmp_path / "whole", 4)
    sources.write_recorded(sources.recorded(str(folder / "data"), WINDOWS), tmp_path / "real")
    for number, clip in enumerate(whole):
        real = np.load(tmp_path / "real" / f"{number:06d}.npz")["frames"]
        np.testing.assert_array_equal(clip[:2], real[:2])
        assert clip.shape == real.shape and np.abs(clip[2:].astype(int) - real[2:]).max() > 0
    (tmp_path / "whole" / "000002.npz").unlink()  # a run that was stopped goes on
    before = (tmp_path / "whole" / "000001.npz").stat().st_mtime_ns
    for again in (generated(folder, tmp_path / "whole", 4), generated(folder, tmp_path / "three", 3)):
        for a, b in zip(whole, again, strict=True):
            assert np.abs(a.astype(int) - b.astype(int)).max() <= 1  # rounding to bytes
    assert (tmp_path / "whole" / "000001.npz").stat().st_mtime_ns == before


def test_each_chunk_is_told_its_own_actions(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def fake(model: Any, *args: Any) -> Any:
        def sample(recalled: Any, window: Any, key_B: Any) -> Any:
            told.append((np.asarray(window.action_BTA), np.asarray(window.action_valid_BT)))
            return jnp.zeros((4, 2, 4, 4, 3))

        return sample, lambda: 1

    monkeypatch.setattr(assembly, "chunk_sampler", fake)
    generated(folder, tmp_path, 4)
    data = sources.recorded(str(folder / "data"), WINDOWS)
    space = tiny.SPACES["continuous"]
    assert len(told) == 2
    for row, (episode, boundary) in enumerate(data.windows):
        raw = data.source.head(episode).tensors["actions.continuous"]
        for chunk, (action_BTA, valid_BT) in enumerate(told):
            first = boundary - 1 + 2 * chunk  # of the window's four frames; row t leads to frame t
            np.testing.assert_allclose(action_BTA[row, 1:], space.to_model(raw[first : first + 3]), rtol=1e-6)
            np.testing.assert_array_equal(valid_BT[row], [False, True, True, True])


def test_a_model_is_scored_with_one_command(folder: Path, tmp_path: Path) -> None:
    evaluate_videos.run(settings(folder), tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    contract = results["contract"]
    assert results["psnr_count"] == 4 and results["fd_action_test"] > 0
    ratio = results["action_error_ratio_test_mae_generated"] / results["action_error_ratio_test_mae_real"]
    assert results["action_error_ratio_test"] == pytest.approx(ratio)
    assert results["action_error_ratio_test_low"] <= ratio <= results["action_error_ratio_test_high"]
    assert contract["model_sha256"] == digest(folder / "slow" / "export") and contract["frames"] == "4"
    assert contract["context_frames_left_out"] == "2" and contract["real_windows"] == "4 of validation, seed 0"
    assert contract["action_error_ratio_test.sha256"] == digest(folder / "action")
    config = settings(folder, **{"score.metrics": ("psnr",)})
    config.generated = str(tmp_path / "out" / "clips" / "generated")  # the same, as a folder of videos
    evaluate_videos.run(config, tmp_path / "again")
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    assert again["psnr"] == pytest.approx(results["psnr"])
    assert again["contract"]["generated_sha256"] == contract["generated_sha256"]


def test_an_unfinished_training_is_scored(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow" / "checkpoints").mkdir(parents=True)
    (tmp_path / "slow" / "config.json").write_text('{"run": "train"}')
    asked = []
    monkeypatch.setattr(exports, "export_newest", lambda *args: asked.append(args))
    target = exports.model_folder(str(tmp_path / "slow"), tmp_path / "out")
    assert target == tmp_path / "out" / "model" and asked[0][0].run == "train"
    assert asked[0][1:] == (tmp_path / "slow", target)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"real": "slow"}, "give recorded episodes as --config.real"),
        ({"windows.frames": 5, "cut.frames": 4}, "windows.frames 5 is no multiple of model.future 2"),
        ({"windows.count": 4000}, "4000 windows asked of split validation"),
        ({"windows.action": "spoken"}, "use one of continuous, discrete, motion"),
        (
            {"score.metrics": ("fd_action_elsewhere",)},
            "predictor of test, which fd_action_elsewhere is not named after",
        ),
        ({"action_dir": ""}, "--config.action_dir=FOLDER"),
        ({"score.metrics": ("src_resnet18",), "weights_dir": "."}, "src_resnet18 needs resnet18"),
    ],
)
def test_a_mistake_is_one_line(changes: dict[str, Any], named: str, folder: Path, tmp_path: Path) -> None:
    config = settings(folder, **{key: value for key, value in changes.items() if key != "real"})
    if "real" in changes:
        config.real = str(folder / changes["real"])
    with pytest.raises(VgenError, match=named):
        evaluate_videos.run(config, tmp_path / "out")


def test_the_vizdoom_evaluation_has_valid_stages() -> None:
    from configs.eval import vizdoom

    for variant in ("bundled", "smoke"):
        for name in vizdoom.get_config(variant).order:
            stage = vizdoom.get_config(f"{variant}.{name}").to_dict()
            assert stage["run"] in runs.RUNS
            if stage["run"] == "evaluate_videos":
                sections = {"windows": sources.WindowsConfig, "model": sources.ModelConfig}
                windows, model = (section(cls, stage[key], key) for key, cls in sections.items())
                assert windows.past == stage["cut"]["skip"] and not windows.frames % model.future
                section(evaluate_videos.ScoreConfig, stage["score"], "score")
