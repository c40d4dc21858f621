"""LeRobot's folders, both versions, written as its own tools lay them out; then one through the run."""

import dataclasses
import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from configs.data import lerobot as config_file
from vgen_jax.data.importers.lerobot import LerobotConfig
from vgen_jax.data.importers.trajectories import plan_of
from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.schema import Episode
from vgen_jax.runs import import_lerobot
from vgen_jax.types import VgenError

FPS, SIDE, CAMERA = 10, 16, "observation.images.front"
LENGTHS = (6, 4, 1)
FEATURES = {
    CAMERA: {"dtype": "video", "shape": [SIDE, SIDE, 3]},
    "action": {"dtype": "float32", "shape": [3], "names": ["linear.x", "gripper", "angular.z"]},
    "timestamp": {"dtype": "float32", "shape": [1]},
}
FIRST_ROWS = np.cumsum([0, *LENGTHS])


def value(episode: int, frame: int) -> int:
    return 60 * episode + 9 * frame


def actions(episode: int) -> list[list[float]]:
    return [[0.01 * n, -1.0, 0.1 * episode + n] for n in range(LENGTHS[episode])]


def write_video(path: Path, values: list[int], fps: int = FPS, skipped: tuple[int, ...] = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "1"})
        stream.height = stream.width = SIDE
        stream.pix_fmt = "yuv444p"
        stream.time_base = Fraction(1, 1000 * fps)
        for number, shade in enumerate(values):
            if number in skipped:
                continue
            frame = av.VideoFrame.from_ndarray(np.full((SIDE, SIDE, 3), shade, np.uint8), format="rgb24")
            frame.pts, frame.time_base = 1000 * number, Fraction(1, 1000 * fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_table(path: Path, columns: dict[str, list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def rows(episodes: tuple[int, ...]) -> dict[str, list]:
    return {
        "action": [action for e in episodes for action in actions(e)],
        "timestamp": [n / FPS for e in episodes for n in range(LENGTHS[e])],
        "frame_index": [n for e in episodes for n in range(LENGTHS[e])],
        "episode_index": [e for e in episodes for _ in range(LENGTHS[e])],
    }


def info(version: str, data: str, video: str, **changes: Any) -> dict[str, Any]:
    about = {
        "codebase_version": version, "fps": FPS, "chunks_size": 1000, "data_path": data, "video_path": video,
        "features": FEATURES, "total_episodes": len(LENGTHS),
    }  # fmt: skip
    return {**about, **changes}


def write_second(root: Path) -> Path:
    """Version 2.1: a table and a video an episode."""
    for e, length in enumerate(LENGTHS):
        write_table(root / f"data/chunk-000/episode_{e:06d}.parquet", rows((e,)))
        write_video(root / f"videos/chunk-000/{CAMERA}/episode_{e:06d}.mp4", [value(e, n) for n in range(length)])
    about = info(
        "v2.1", "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    )  # fmt: skip
    (root / "meta").mkdir()
    (root / "meta" / "info.json").write_text(json.dumps(about))
    lines = [json.dumps({"episode_index": e, "tasks": ["drive on"], "length": n}) for e, n in enumerate(LENGTHS)]
    (root / "meta" / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    return root


def write_third(root: Path) -> Path:
    """Version 3: all episodes in one table and one video; a second table for the last."""
    write_table(root / "data/chunk-000/file-000.parquet", rows((0, 1)))
    write_table(root / "data/chunk-000/file-001.parquet", rows((2,)))
    shades = [value(e, n) for e, length in enumerate(LENGTHS) for n in range(length)]
    write_video(root / f"videos/{CAMERA}/chunk-000/file-000.mp4", shades)
    ends = FIRST_ROWS[1:]
    columns = {
        "episode_index": [0, 1, 2], "tasks": [["drive on"]] * 3, "length": list(LENGTHS),
        "data/chunk_index": [0, 0, 0], "data/file_index": [0, 0, 1],
        "dataset_from_index": FIRST_ROWS[:-1].tolist(), "dataset_to_index": ends.tolist(),
        f"videos/{CAMERA}/chunk_index": [0, 0, 0], f"videos/{CAMERA}/file_index": [0, 0, 0],
        f"videos/{CAMERA}/from_timestamp": (FIRST_ROWS[:-1] / FPS).tolist(),
        f"videos/{CAMERA}/to_timestamp": (ends / FPS).tolist(),
    }  # fmt: skip
    write_table(root / "meta/episodes/chunk-000/file-000.parquet", columns)
    about = info(
        "v3.0", "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    )  # fmt: skip
    (root / "meta" / "info.json").write_text(json.dumps(about))
    return root


WRITERS = {"v2.1": write_second, "v3.0": write_third}


def setting(folder: Path, **changes: Any) -> LerobotConfig:
    base = LerobotConfig(
        folder=str(folder), source="bot", split="train", first=0, episodes=0, camera="", action="action",
        columns=(0, 2), names=("v", "w"), scale=(0.1, 1.8), fps=0.0, size=(SIDE, SIDE), chunk=1, per_shard=10,
        workers=1,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def episodes(config: LerobotConfig) -> list[Episode]:
    return list(plan_of(config).open().record(0))


@pytest.mark.parametrize("version", WRITERS)
def test_both_versions_become_the_same_episodes(version: str, tmp_path: Path) -> None:
    found = episodes(setting(WRITERS[version](tmp_path)))
    assert [episode.scene for episode in found] == ["bot/episode_000000", "bot/episode_000001"]  # one frame: none
    for e, episode in enumerate(found):
        wanted = np.asarray([value(e, n) for n in range(LENGTHS[e])])
        assert np.abs(episode.frames_THWC.mean((1, 2, 3)) - wanted).max() < 3
        np.testing.assert_allclose(episode.actions["continuous"], np.asarray(actions(e))[:-1, [0, 2]], rtol=1e-5)
        assert episode.fps == FPS and [span.text for span in episode.texts] == ["drive on"]


@pytest.mark.parametrize("version", WRITERS)
def test_a_part_of_the_episodes(version: str, tmp_path: Path) -> None:
    (only,) = episodes(setting(WRITERS[version](tmp_path), first=1, episodes=1, fps=5.0))
    assert only.scene.endswith("000001") and len(only.frames_THWC) == 2
    with pytest.raises(VgenError, match="3 episodes, not first"):
        episodes(setting(tmp_path, first=2, episodes=4))


def test_frames_may_stand_in_the_table(tmp_path: Path) -> None:
    write_second(tmp_path)
    about = json.loads((tmp_path / "meta" / "info.json").read_text())
    about["features"][CAMERA]["dtype"] = "image"
    (tmp_path / "meta" / "info.json").write_text(json.dumps(about))
    buffers = []
    for n in range(LENGTHS[0]):
        buffer = io.BytesIO()
        Image.fromarray(np.full((SIDE, SIDE, 3), value(0, n), np.uint8)).save(buffer, "PNG")
        buffers.append({"bytes": buffer.getvalue(), "path": f"{n}.png"})
    write_table(tmp_path / "data/chunk-000/episode_000000.parquet", {**rows((0,)), CAMERA: buffers})
    (only,) = episodes(setting(tmp_path, episodes=1))
    assert [int(frame.mean()) for frame in only.frames_THWC] == [value(0, n) for n in range(LENGTHS[0])]


def test_missing_frames_and_other_rates_are_named(tmp_path: Path) -> None:
    write_second(tmp_path)
    path = tmp_path / f"videos/chunk-000/{CAMERA}/episode_000000.mp4"
    shades = [value(0, n) for n in range(LENGTHS[0])]
    for change, message in (
        ({"skipped": (2,)}, "frames are missing"), ({"fps": 7}, "the rate is not 10|frames are missing"),
    ):  # fmt: skip
        write_video(path, shades, **change)
        with pytest.raises(VgenError, match=message):
            episodes(setting(tmp_path, episodes=1))
    write_video(path, shades[:-1])
    with pytest.raises(VgenError, match="5 frames instead of 6"):
        episodes(setting(tmp_path, episodes=1))
    path.write_bytes(b"none")
    with pytest.raises(VgenError, match="cannot be decoded"):
        episodes(setting(tmp_path, episodes=1))
    path.unlink()
    with pytest.raises(VgenError, match="mp4 is missing"):
        episodes(setting(tmp_path, episodes=1))


@pytest.mark.parametrize("version", WRITERS)
def test_other_folders_are_refused_in_one_line(version: str, tmp_path: Path) -> None:
    with pytest.raises(VgenError, match="info.json is missing"):
        plan_of(setting(tmp_path))
    WRITERS[version](tmp_path)
    for change, message in (
        ({"camera": "left"}, "no left among its features; its cameras are observation.images.front"),
        ({"action": "act"}, "no column act"),
        ({"columns": (0, 7)}, "have 3 numbers"),
    ):
        with pytest.raises(VgenError, match=message) as refused:
            episodes(setting(tmp_path, **change))
        assert "\n" not in str(refused.value)
    about = json.loads((tmp_path / "meta" / "info.json").read_text())
    (tmp_path / "meta" / "info.json").write_text(json.dumps({**about, "codebase_version": "v1.6"}))
    with pytest.raises(VgenError, match="of version v1.6: v2 and v3 can be read"):
        plan_of(setting(tmp_path))
    (tmp_path / "meta" / "info.json").write_text("{")
    with pytest.raises(VgenError, match="is damaged"):
        plan_of(setting(tmp_path))


@pytest.mark.slow
def test_the_run_imports_what_its_config_says(tmp_path: Path) -> None:
    config = config_file.get_config()
    config.splits = {"train": {"first": 0, "episodes": 0}}
    config.update_from_flattened_dict(
        {
            "lerobot.folder": str(write_third(tmp_path / "raw")), "lerobot.size": (SIDE, SIDE),
            "lerobot.columns": (0, 2), "lerobot.workers": 1,
        }
    )  # fmt: skip
    import_lerobot.run(config, tmp_path / "data")
    source = EpisodeSource(tmp_path / "data", "train")
    assert source.frames == LENGTHS[:2] and source.info.action_spaces["continuous"].scale == (0.1, 1.8)
