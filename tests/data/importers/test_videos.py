"""Videos and a table become records, or one line says what is wrong."""

import dataclasses
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vgen_jax.data.check import check_data
from vgen_jax.data.importers.videos import ImportConfig, import_videos, read_frames
from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.schema import TextSpan
from vgen_jax.types import VgenError

FRAMES = 6


def write_video(path: Path, frames_THWC: np.ndarray, fps: int = 10) -> None:
    """Losslessly coded, so that pixels can be compared."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(fps))
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = "bgr0"
        for frame in frames_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def gradient(value: int, size: tuple[int, int] = (16, 32)) -> np.ndarray:
    """Frame t is value + t in the middle square and a filter's reach beside it, and white at the edges."""
    frames = np.full((FRAMES, *size, 3), 255, np.uint8)
    for t in range(FRAMES):
        frames[t, :, 6:26] = value + t
    return frames


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for n in range(4):
        write_video(tmp_path / f"v{n}.mkv", gradient(40 * n))
    return tmp_path


def setting(folder: Path, table: str, **changes) -> ImportConfig:
    base = ImportConfig(
        folder=str(folder), table=str(folder / table), source="kitchen", size=(8, 8), chunk=2,
        actions=("turn", "walk"), scale=(10.0, 1.0), ids=(), validation_fraction=0.25, videos_per_shard=2, seed=0,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def csv_rows(videos: int = 4) -> list[str]:
    rows = ["video,step,turn,walk,text"]
    for n in range(videos):
        rows += [f"v{n}.mkv,{t},{t},{n},{'left' if t < 2 else ''}" for t in range(FRAMES - 1)]
    return rows


def json_row(n: int, **changes) -> str:
    row = {
        "video": f"v{n}.mkv", "actions": [[t, n] for t in range(FRAMES - 1)],
        "texts": [{"start": 0, "stop": 2, "text": "left"}],
    }  # fmt: skip
    return json.dumps(row | changes)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_import(videos: Path, tmp_path: Path, kind: str) -> None:
    lines = csv_rows() if kind == "csv" else [json_row(n) for n in range(4)]
    (videos / f"table.{kind}").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    info = import_videos(out, setting(videos, f"table.{kind}"))
    assert info.fps == 10 and len(info.splits["validation"]) == 1
    assert not check_data(out).faults
    seen = set()
    for split in info.splits:
        source = EpisodeSource(out, split)
        for index in range(len(source)):
            episode = source.episode(index)
            n = int(episode.actions["continuous"][0, 1])
            seen.add(n)
            assert episode.scene == f"kitchen/v{n}.mkv" and episode.texts == (TextSpan(0, 2, "left"),)
            np.testing.assert_array_equal(episode.actions["continuous"][:, 0], np.arange(FRAMES - 1))
            # Cropped to the middle square and reduced: frame t is 40 n + t all over.
            expected = np.broadcast_to(40 * n + np.arange(FRAMES)[:, None, None, None], episode.frames_THWC.shape)
            np.testing.assert_array_equal(episode.frames_THWC, expected)
    assert seen == {0, 1, 2, 3}
    with pytest.raises(VgenError, match="exists"):
        import_videos(out, setting(videos, f"table.{kind}"))


def test_ids_and_given_splits(videos: Path, tmp_path: Path) -> None:
    rows = [json_row(n, ids=[1] * 5, split="test" if n == 2 else "train") for n in range(4)]
    (videos / "t.jsonl").write_text("\n".join(rows))
    info = import_videos(tmp_path / "out", setting(videos, "t.jsonl", ids=("stop", "go"), actions=(), scale=()))
    assert [shard.scenes for shard in info.splits["test"]] == [("kitchen/v2.mkv",)]
    head = EpisodeSource(tmp_path / "out", "test").head(0)
    np.testing.assert_array_equal(head.tensors["actions.discrete"], [1] * 5)


def test_reducing_does_not_alias(tmp_path: Path) -> None:
    """A one-pixel checkerboard becomes grey, not black or white."""
    board = ((np.indices((64, 64)).sum(0) % 2) * 255).astype(np.uint8)
    write_video(tmp_path / "v.mkv", np.repeat(board[None, :, :, None], 3, axis=3).repeat(2, axis=0))
    frames, fps = read_frames(tmp_path / "v.mkv", (16, 16))
    assert fps == 10 and np.abs(frames.astype(int) - 127).max() < 8


def drop(rows: list[str]) -> list[str]:
    return [row for row in rows if not row.startswith("v1.mkv,4")]


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda rows: [r.replace("v2.mkv", "gone.mkv") for r in rows], "gone.mkv is missing"),
        (drop, "4 continuous actions for the 6 frames of v1.mkv; expected 5"),
        (lambda rows: [r.replace("v1.mkv,3,3,", "v1.mkv,3,nan,") for r in rows], "line 7.*step 3 is not finite"),
        (lambda rows: [r.replace("v1.mkv,3,3,", "v1.mkv,3,fast,") for r in rows], "line 10: 'fast'"),
        (lambda rows: [r.replace("v1.mkv,3,", "v1.mkv,5,") for r in rows], "line 10: step '5'.*expected 3"),
        (lambda rows: [rows[0].replace("turn", "spin"), *rows[1:]], "no column 'turn'"),
        (lambda rows: rows + rows[1:6], "already given"),
        (lambda rows: rows[:1], "no rows"),
    ],
)
def test_faults_of_a_csv(videos: Path, tmp_path: Path, edit: Callable, fault: str) -> None:
    (videos / "table.csv").write_text("\n".join(edit(csv_rows())))
    with pytest.raises(VgenError, match=fault) as caught:
        import_videos(tmp_path / "out", setting(videos, "table.csv"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("{", "line 2: not valid JSON"),
        (json.dumps({"video": "v1.mkv"}), "line 2.*'actions'"),
        (json_row(1, actions=[[1.0]] * 5), r"shape \(5, 1\); expected \(5, 2\)"),
        (json_row(1, actions=[[1.0, 2.0], [3.0]]), "not a table of numbers"),
        (json_row(1, texts=[{"start": 3, "stop": 9, "text": "left"}]), r"v1.mkv: text 'left' spans actions \[3, 9\)"),
        (json_row(1, split="train"), "v0.mkv has no split"),
    ],
)
def test_faults_of_json_lines(videos: Path, tmp_path: Path, row: str, fault: str) -> None:
    (videos / "t.jsonl").write_text("\n".join([json_row(0), row]))
    with pytest.raises(VgenError, match=fault):
        import_videos(tmp_path / "out", setting(videos, "t.jsonl", validation_fraction=0.5))


def test_other_faults(videos: Path, tmp_path: Path) -> None:
    (videos / "t.jsonl").write_text("\n".join(json_row(n) for n in range(4)))
    with pytest.raises(VgenError, match="multiples of 8"):
        setting(videos, "t.jsonl", size=(8, 12))
    with pytest.raises(VgenError, match="leaves a split empty"):
        import_videos(tmp_path / "out", setting(videos, "t.jsonl", validation_fraction=0.01))
    write_video(videos / "v3.mkv", gradient(0), fps=25)
    with pytest.raises(VgenError, match="25 frames/s, but .* has 10|10 frames/s, but v3.mkv has 25"):
        import_videos(tmp_path / "out", setting(videos, "t.jsonl"))
    (videos / "v0.mkv").write_bytes(b"no video")
    with pytest.raises(VgenError, match="v0.mkv: cannot be decoded"):
        import_videos(tmp_path / "out", setting(videos, "t.jsonl", validation_fraction=0.0))
    with pytest.raises(VgenError, match="table.xml"):
        import_videos(tmp_path / "out", setting(videos, "table.xml"))


def test_a_table_in_each_episodes_folder(tmp_path: Path) -> None:
    rows = csv_rows(1)
    for n in range(4):
        (tmp_path / f"episode_{n}").mkdir()
        write_video(tmp_path / f"episode_{n}" / "v0.mkv", gradient(40 * n))
        (tmp_path / f"episode_{n}" / "actions.csv").write_text("\n".join(rows))
    info = import_videos(tmp_path / "out", setting(tmp_path, "episode_*/actions.csv"))
    scenes = {scene for shards in info.splits.values() for shard in shards for scene in shard.scenes}
    assert scenes == {f"kitchen/episode_{n}/v0.mkv" for n in range(4)}
    with pytest.raises(VgenError, match="no file of that pattern"):
        import_videos(tmp_path / "other", setting(tmp_path, "nothing_*/actions.csv"))
