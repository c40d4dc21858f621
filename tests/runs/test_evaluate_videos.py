"""The run ``evaluate_videos`` on folders that another program could have made."""

import json
import socket
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import jax
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from configs.eval import compare as compare_configs
from configs.eval import videos as configs
from tests import tiny
from tests.tasks.test_action import random_reader
from vgen_jax.evaluation import scoring
from vgen_jax.evaluation.clips import Clips, Cut
from vgen_jax.files.exports import digest, export
from vgen_jax.metrics.features import FeatureNet
from vgen_jax.models.place import PlaceConfig, place_network
from vgen_jax.runs import compare_results, evaluate_videos
from vgen_jax.simulators.maze_view import wall_shades
from vgen_jax.types import VgenError

CONFIG = "configs/eval/videos.py"
COUNT = 5


def frames(seed: int) -> np.ndarray:
    """A smooth picture that drifts: 6 frames of 24x32."""
    wide = gaussian_filter(np.random.default_rng(seed).normal(size=(24, 48, 3)), (2, 2, 0))
    wide = np.clip(128 + 60 * wide / wide.std(), 0, 255).astype(np.uint8)
    return np.stack([wide[:, t : t + 32] for t in range(6)])


def noisy(video: np.ndarray, scale: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, scale, video.shape)
    return np.clip(video + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Real videos, as .npz and as GIFs of imageio's, and three sets that are more and more noisy."""
    root = tmp_path_factory.mktemp("videos")
    found = {name: root / name for name in ("real", "gif", "little", "more", "much")}
    for name, path in found.items():
        path.mkdir()
        for n in range(COUNT):
            video = frames(n)
            if name == "gif":
                imageio.imwrite(path / f"{n}.gif", video)
            else:
                scale = {"real": 0, "little": 2, "more": 20, "much": 60}[name]
                np.savez(path / f"{n}.npz", noisy(video, scale))
    return found


def run(real: Path, generated: Path, workdir: Path, **changes: Any) -> dict[str, Any]:
    config = configs.get_config()
    config.update({"real": str(real), "generated": str(generated)})
    config.update_from_flattened_dict(changes)
    evaluate_videos.run(config, workdir)
    return json.loads((workdir / "results.json").read_text())


def test_it_scores_and_says_what_the_numbers_mean(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = {name: run(folders["real"], folders[name], tmp_path / name) for name in ("real", "little", "more")}
    assert results["real"]["psnr"] == 100 and results["real"]["ssim"] == pytest.approx(1)
    assert 38 < results["little"]["psnr"] and 19 < results["more"]["psnr"] < 25  # 20 log10(255 / 20) = 22.1
    assert results["more"]["psnr_count"] == COUNT and results["real"]["scuts"] == 0
    contract = results["more"]["contract"]
    assert contract["frames"] == "6" and contract["resolution"] == "32x24" and contract["real_count"] == str(COUNT)
    assert contract["real_sha256"] == results["little"]["contract"]["real_sha256"] != contract["generated_sha256"]
    assert "psnr" in capsys.readouterr().out
    for name in ("report.html", "samples/pairs.png", "config.json", "scores.npz"):
        assert (tmp_path / "more" / name).stat().st_size
    config = compare_configs.get_config()
    config.compare.update({"results": tuple(str(tmp_path / name) for name in ("little", "more"))})
    compare_results.run(config, tmp_path / "table")
    assert json.loads((tmp_path / "table" / "results.json").read_text())["psnr/more_low"] < results["more"]["psnr"]


def test_gifs_of_another_program(folders: dict[str, Path], tmp_path: Path) -> None:
    results = run(folders["real"], folders["gif"], tmp_path / "out", **{"cut.skip": 1, "cut.frames": 4})
    assert results["psnr"] > 25  # a palette of 256 colours
    contract = results["contract"]
    assert contract["generated_files"] == ".gif (lossy)" and contract["frames"] == "4"
    with pytest.raises(VgenError, match="cannot be compared: context_frames_left_out is 0 in one and 1"):
        config = compare_configs.get_config()
        run(folders["real"], folders["gif"], tmp_path / "whole")
        config.compare.update({"results": (str(tmp_path / "whole"), str(tmp_path / "out"))})
        compare_results.run(config, tmp_path / "table")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"score.metrics": ("psnr", "fvd")}, "score.metrics has 'fvd': use some of psnr, ssim"),
        ({"score.paired": False}, "score.metrics has psnr, which compares pairs"),
        ({"score.metrics": ("fvd_i3d",)}, "fvd_i3d needs i3d_pretrained_400.pt"),
        ({"cut.frames": 7}, "0.npz has 6 frames, too few"),
        ({"score.batch_size": 0}, "score.batch_size below 1"),
    ],
)
def test_a_mistake_is_named_before_anything_is_written(
    changes: dict[str, Any], named: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VGEN_WEIGHTS", raising=False)
    with pytest.raises(VgenError, match=named):
        run(folders["real"], folders["more"], tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def brightness(params: Any, rows: Any) -> Any:
    """Mean colours, of a frame or of a clip."""
    return rows.astype("float32").mean(tuple(range(1, rows.ndim - 1))) / 255


def test_distances_of_frames_and_of_clips(folders: dict[str, Path]) -> None:
    nets = {
        "fvd_i3d": FeatureNet("fvd_i3d", "clip", 3, brightness, {}, {}),
        "fid_inception": FeatureNet("fid_inception", "frame", 3, brightness, {}, {}),
    }
    real, generated = (Clips(folders[name], name, Cut(0, 0)) for name in ("real", "much"))
    found = [
        scoring.score(real, generated, scoring.ScoreConfig(tuple(nets), False, batch_size), nets)
        for batch_size in (1, 3, 32)
    ]
    for scores in found:
        assert scores.results["fvd_i3d_count_real"] == COUNT
        assert scores.results["fid_inception_count_generated"] == 6 * COUNT
        assert set(scores.rows) == {"fvd_i3d.real", "fvd_i3d.generated"}
        for name in nets:
            assert scores.results[name] == pytest.approx(found[0].results[name], rel=1e-6)
    same = scoring.score(real, real, scoring.ScoreConfig(tuple(nets), False, 4), nets).results
    assert same["fvd_i3d"] < 1e-6 < found[0].results["fvd_i3d"]


def test_the_place_encoder_has_a_distance_of_its_own(folders: dict[str, Path], tmp_path: Path) -> None:
    shape = {"level_channels": (8, 8), "blocks_per_level": 1, "width": 8, "norm_groups": 4, "dtype": "float32"}
    encoder = place_network(PlaceConfig(**shape))
    params = tiny.random_params(encoder.init, np.zeros((1, 8, 8, 3), np.float32))["params"]
    export(tmp_path / "place", params, {"place": shape, "name": "place_vizdoom"})
    changes = {"score.metrics": ("fd_place_vizdoom",), "place_dir": str(tmp_path / "place")}
    found = {name: run(folders["real"], folders[name], tmp_path / name, **changes) for name in ("real", "much")}
    assert found["real"]["fd_place_vizdoom"] < 1e-6 < found["much"]["fd_place_vizdoom"]
    assert found["real"]["fd_place_vizdoom_count_real"] == 6 * COUNT
    assert found["real"]["contract"]["fd_place_vizdoom.sha256"] == digest(tmp_path / "place")
    export(tmp_path / "other", params, {"place": shape, "name": "place_elsewhere"})
    for folder, named in (("other", "holds no place_vizdoom"), ("none", "is missing")):
        with pytest.raises(VgenError, match=named):
            run(folders["real"], folders["much"], tmp_path / "out", **{**changes, "place_dir": str(tmp_path / folder)})
    with pytest.raises(VgenError, match="--config.place_dir=FOLDER"):
        run(folders["real"], folders["much"], tmp_path / "out", **{**changes, "place_dir": ""})


def test_a_place_encoder_of_any_data_serves(folders: dict[str, Path], tmp_path: Path) -> None:
    shape = {"level_channels": (8, 8), "blocks_per_level": 1, "width": 8, "norm_groups": 4, "dtype": "float32"}
    params = tiny.random_params(place_network(PlaceConfig(**shape)).init, np.zeros((1, 8, 8, 3), np.float32))["params"]
    export(tmp_path / "place", params, {"place": shape, "name": "place_maze_plain"})
    changes = {"score.metrics": ("fd_place_maze_plain",), "place_dir": str(tmp_path / "place")}
    assert run(folders["real"], folders["much"], tmp_path / "out", **changes)["fd_place_maze_plain"] > 0
    with pytest.raises(VgenError, match="holds no place_vizdoom, the encoder that fd_place_vizdoom is named after"):
        run(folders["real"], folders["much"], tmp_path / "no", **{**changes, "score.metrics": ("fd_place_vizdoom",)})
    with pytest.raises(VgenError, match=r"'fd_place_': use some of .*fd_place_<data>"):
        run(folders["real"], folders["much"], tmp_path / "no", **{"score.metrics": ("fd_place_",)})


def test_sharpness_of_a_set_is_a_ratio_of_means(tmp_path: Path) -> None:
    """Where a real video is flat there is still a ratio; the last frames alone may differ from the rest."""
    for n, name in enumerate("abcdef"):
        real = np.zeros((8, 8, 8, 3), np.uint8)
        real[:, :, 4:] = 40 * n  # the first is flat
        made = real.copy()
        made[-scoring.LAST :] //= 2
        for role, video in (("real", real), ("made", made)):
            (tmp_path / role).mkdir(exist_ok=True)
            np.savez(tmp_path / role / f"{name}.npz", frames=video)
    names = tuple(scoring.SHARPNESS_RATIOS)
    found = run(tmp_path / "real", tmp_path / "made", tmp_path / "out", **{"score.metrics": names})
    wanted = {
        "gradient_ratio": 0.625,
        "gradient_ratio_last": 0.25,
        "laplacian_ratio": 0.75,
        "laplacian_ratio_last": 0.5,
    }
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value) and found[f"{name}_low"] <= value <= found[f"{name}_high"]


def test_walls_are_counted_where_they_are_known(tmp_path: Path) -> None:
    shades = wall_shades()
    for n, name in enumerate("ab"):
        walls = np.random.default_rng(n).integers(0, 12, (6, 10))
        real = np.broadcast_to(shades[walls, 0][:, None], (6, 16, 10, 3)).copy()
        made = real.copy()
        made[2:, :, : 3 * n] = shades[(walls[2:, : 3 * n] + 1) % 12, 0][:, None]
        for role, video in (("real", real), ("made", made)):
            (tmp_path / role).mkdir(exist_ok=True)
            np.savez(tmp_path / role / f"{name}.npz", frames=video, **({"walls": walls} if role == "real" else {}))
    found = run(tmp_path / "real", tmp_path / "made", tmp_path / "out", **{"score.metrics": ("walls",), "cut.skip": 1})
    assert found["walls_columns"] == pytest.approx((1 + (1 + 4 * 0.7) / 5) / 2)
    assert found["walls_frames"] == pytest.approx((1 + 1 / 5) / 2) and found["walls_clips"] == 0.5
    assert found["walls_columns_real"] == found["walls_clips_real"] == 1 and found["walls_clips_count"] == 2
    with pytest.raises(VgenError, match=r"a\.npz does not say where walls are"):
        run(tmp_path / "made", tmp_path / "real", tmp_path / "no", **{"score.metrics": ("walls",)})


def test_a_place_that_is_seen_again(folders: dict[str, Path], tmp_path: Path) -> None:
    """SRC of the videos that say where they come back; the others are left out. Sharpness is 1 for the real ones."""
    shape = {"level_channels": (8, 8), "blocks_per_level": 1, "width": 8, "norm_groups": 4, "dtype": "float32"}
    params = tiny.random_params(place_network(PlaceConfig(**shape)).init, np.zeros((1, 8, 8, 3), np.float32))["params"]
    export(tmp_path / "place", params, {"place": shape, "name": "place_vizdoom"})
    for role in ("real", "generated"):
        (tmp_path / role).mkdir()
        for n in range(3):
            video = frames(n)
            video[5] = video[1] if role == "real" else video[3]
            beside = {"visits": np.array([[1, 5], [0, 1]])} if n and role == "real" else {}
            np.savez(tmp_path / role / f"{n}.npz", frames=video, **beside)
    changes = {"score.metrics": ("src_place_vizdoom", "sharpness"), "place_dir": str(tmp_path / "place"), "cut.skip": 1}
    found = run(tmp_path / "real", tmp_path / "generated", tmp_path / "out", **changes)
    assert found["src_place_vizdoom_real"] == pytest.approx(100)  # (0, 1) is cut off
    assert found["src_place_vizdoom"] < 99.99
    assert found["src_place_vizdoom_count"] == 2 and found["sharpness_count"] == 3
    assert found["sharpness"] == pytest.approx(1, abs=0.2) and "visits_sha256" in found["contract"]
    with pytest.raises(VgenError, match="no video in .* says where it comes back"):
        run(folders["real"], folders["more"], tmp_path / "none", **{**changes, "cut.skip": 0})


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """128 pairs of short clips, and random networks of frames and of clips."""
    root = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    for role in ("real", "more"):
        (root / role).mkdir()
    for n in range(128):
        video = frames(n)[:3, :16, :16]
        actions = rng.normal(size=(2, 2)).astype(np.float32)
        np.savez(root / "real" / f"{n:03d}.npz", frames=video, actions=actions)
        np.savez(root / "more" / f"{n:03d}.npz", noisy(video, 20))
    random_reader(root / "action")
    shape = {"level_channels": (8, 8), "blocks_per_level": 1, "width": 8, "norm_groups": 4, "dtype": "float32"}
    params = tiny.random_params(place_network(PlaceConfig(**shape)).init, np.zeros((1, 8, 8, 3), np.float32))["params"]
    export(root / "place", params, {"place": shape, "name": "place_vizdoom"})
    return {name: root / name for name in ("real", "more", "action", "place")}


OF_MANY = (
    "psnr", "ssim", "sharpness", "fd_place_vizdoom", "fd_action_test", "action_error_ratio_test",
)  # fmt: skip


def changes_for(many: dict[str, Path], batch_size: int) -> dict[str, Any]:
    dirs = {f"{name}_dir": str(many[name]) for name in ("place", "action")}
    return {**dirs, "score.metrics": OF_MANY, "score.batch_size": batch_size}


@pytest.fixture(scope="module")
def one(many: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of them, on eight devices, 32 videos at a time."""
    workdir = tmp_path_factory.mktemp("one") / "out"
    run(many["real"], many["more"], workdir, **changes_for(many, 32))
    return workdir


def check_equal(a: Path, b: Path) -> None:
    """Every number of two runs, and what their bootstraps draw from."""
    results = [json.loads((workdir / "results.json").read_text()) for workdir in (a, b)]
    for found in results:
        assert found.pop("contract")["real_count"] == "128"
        assert found["fd_action_test_count_real"] == 128 and found["fd_place_vizdoom_count_real"] == 3 * 128
    assert results[0] == pytest.approx(results[1], rel=1e-6)
    with np.load(a / "scores.npz") as x, np.load(b / "scores.npz") as y:
        assert x.files == y.files and "action_error_ratio_test.over" in x.files
        for name in x.files:
            np.testing.assert_allclose(x[name], y[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "devices"), [(1, 1), (7, 1), (7, 8)])
def test_batches_and_devices_change_nothing(
    batch_size: int, devices: int, many: dict[str, Path], one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = jax.local_devices()
    assert len(everyone) == 8
    monkeypatch.setattr(jax, "local_devices", lambda *args, **kwargs: everyone[:devices])
    run(many["real"], many["more"], tmp_path / "out", **changes_for(many, batch_size))
    check_equal(tmp_path / "out", one)


@pytest.mark.long
def test_two_processes_print_what_one_does(many: dict[str, Path], one: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    joined = {"distributed": "true", "num_processes": "2", "coordinator_address": f"localhost:{port}"}
    given = {"real": many["real"], "generated": many["more"], **{f"mesh.{k}": v for k, v in joined.items()}}
    flags = [f"--config.{key}={value}" for key, value in (changes_for(many, 7) | given).items()]
    start = [tiny.start(CONFIG, tmp_path / "two", *flags, f"--config.mesh.process_id={n}", devices=2) for n in range(2)]
    try:
        errors = [process.communicate(timeout=300)[1] for process in start]
    finally:
        for process in start:
            process.kill()
    assert [process.returncode for process in start] == [0, 0], errors
    check_equal(tmp_path / "two", one)
