"""Videos side by side: where the commands lead, and whether a place comes back as it was."""

import json
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from tests import tiny
from vgen_jax.data.schema import ActionSpace, Command
from vgen_jax.evaluation.place_encoder import Place
from vgen_jax.files import media
from vgen_jax.runs import compare
from vgen_jax.types import VgenError
from vgen_jax.worlds.actions import commanded_pose

NAMES = ("turn", "forward", "strafe")
LEFT, RIGHT = Command(0, "left", ("left",), ((30.0, 0, 0),) * 2), Command(1, "right", ("right",), ((-30.0, 0, 0),) * 2)
GO = Command(2, "go", ("go",), ((0.0, 0.5, 0),) * 2)
TEXTS = ["left", "left", "right", "right"]


def info() -> object:
    space = {"continuous": ActionSpace("continuous", NAMES, (10.0, 0.5, 0.6))}
    return tiny.info().__class__(**{**tiny.info().__dict__, "action_spaces": space, "commands": (LEFT, RIGHT, GO)})


@pytest.fixture(autouse=True)
def pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place encoder to which a picture is its pixels."""

    def embed(frames: np.ndarray) -> np.ndarray:
        flat = frames.reshape(len(frames), -1) - 127.5
        return (flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float32)

    place = Place("pixels", embed, lambda frames: (frames.astype(np.float32),))
    monkeypatch.setattr(compare, "load_place", lambda folder: place)


def write_run(folder: Path, views: list[int], texts: list[str]) -> None:
    """A run whose frame t shows picture ``views[t]``."""
    (folder / "samples").mkdir(parents=True)
    pictures = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    np.save(folder / "samples" / "video_0.npy", pictures[views])
    lines = [json.dumps({"frame": 1 + 2 * n, "text": text}) for n, text in enumerate(texts)]
    (folder / "samples" / "captions.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "results.json").write_text('{"seconds": 3.5}')


def config(folder: Path) -> ConfigDict:
    folders = {"without": str(folder / "a"), "with": str(folder / "b")}
    settings = {
        "folders": folders,
        "baseline": "without",
        "video": 0,
        "model_dir": str(folder),
        "place_dir": "place",
        "map_units": 66.0,
    }
    return ConfigDict({"run": "compare", "compare": settings})


def test_a_video_that_comes_back_beats_one_that_does_not(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(info().to_json())
    write_run(tmp_path / "a", list(range(9)), TEXTS)
    write_run(tmp_path / "b", [0, 1, 2, 3, 4, 3, 2, 1, 0], TEXTS)
    compare.run(config(tmp_path), tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    # Only the last frame is far enough behind its first visit.
    assert results["revisits"] == 1 and results["frames"] == 8
    assert results["revisit_psnr/with"] > 60 and results["revisit_psnr/without"] < 12
    assert results["src_pixels/with"] > 99.9 and abs(results["src_pixels/without"]) < 20
    assert results["lpips_pixels/with"] == 0 < 0.1 < results["lpips_pixels/without"]
    assert results["relative_sharpness/without"] == 1.0 and results["seconds/with"] == 3.5
    assert len(media.read_video(tmp_path / "run" / "samples" / "side_by_side.mp4")) == 9
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_pose_is_where_the_commands_lead() -> None:
    pose = commanded_pose(info(), [(1, "left"), (3, "go, then right")], 66.0)
    np.testing.assert_allclose(pose[:, 3], [0, 30, 60, 60, 60, 30, 0])
    np.testing.assert_allclose(pose[4, :2], [66 * np.cos(np.pi / 3), 66 * np.sin(np.pi / 3)], atol=1e-9)
    np.testing.assert_allclose(pose[6, :2], pose[4, :2])


def test_mistakes_are_named(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(info().to_json())
    with pytest.raises(VgenError, match="captions.jsonl is missing: run generate"):
        compare.run(config(tmp_path), tmp_path / "run")
    write_run(tmp_path / "a", list(range(9)), TEXTS)
    write_run(tmp_path / "b", list(range(9)), TEXTS[::-1])
    with pytest.raises(VgenError, match="followed other commands"):
        compare.run(config(tmp_path), tmp_path / "run")
    with pytest.raises(VgenError, match="never come back"):
        write_run(tmp_path / "c" / "a", list(range(5)), ["go", "go"])
        write_run(tmp_path / "c" / "b", list(range(5)), ["go", "go"])
        (tmp_path / "c" / "dataset.json").write_text(info().to_json())
        compare.run(config(tmp_path / "c"), tmp_path / "c" / "run")
    with pytest.raises(VgenError, match="fewer than two"):
        compare.CompareConfig({"a": "x"}, "a", 0, "", "", 1.0)
    with pytest.raises(VgenError, match="compare.baseline is 'c': use one of a, b"):
        compare.CompareConfig({"a": "x", "b": "y"}, "c", 0, "", "", 1.0)
