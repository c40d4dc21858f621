"""Folders of videos: every kind of file, and one line for each fault."""

from pathlib import Path

import numpy as np
import pytest

from vgen_jax.evaluation.clips import Clips, Cut, check_alike, write_clip
from vgen_jax.files.media import VideoWriter
from vgen_jax.types import VgenError

WHOLE = Cut(0, 0)


def frames(count: int = 6, height: int = 16, width: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def folder(path: Path, **videos: np.ndarray) -> Path:
    """Videos by name, as .npz."""
    path.mkdir()
    for name, video in videos.items():
        np.savez(path / f"{name}.npz", frames=video)
    return path


def test_every_kind_of_file_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    video = frames()
    (tmp_path / "deep").mkdir()
    np.save(tmp_path / "b.npy", video)
    np.savez(tmp_path / "deep" / "c.npz", video)
    for name in ("a.gif", "d.mp4"):
        with VideoWriter(tmp_path / name, 8, video.shape[1:3]) as writer:
            writer.write(video)
    (tmp_path / "notes.txt").write_text("ignored")
    clips = Clips(tmp_path, "real", WHOLE)
    assert clips.names == ["a", "b", "d", "deep/c"] and clips.shape == video.shape and len(clips) == 4
    np.testing.assert_array_equal(clips.read([3, 1]), [video, video])
    assert clips.suffixes() == ".gif, .mp4, .npy, .npz (lossy)"


def test_the_cut_says_which_frames_count(tmp_path: Path) -> None:
    video = frames(7)
    clips = Clips(folder(tmp_path / "a", x=video, y=frames(9)), "real", Cut(2, 4))
    np.testing.assert_array_equal(clips.read([0])[0], video[2:6])
    assert clips.suffixes() == ".npz (lossless)"


def test_the_digest_is_of_the_frames_that_count(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", x=frames(6), y=frames(6, seed=1))
    b = folder(tmp_path / "b", x=frames(6), y=frames(6, seed=2))
    whole = {Clips(path, "real", WHOLE).digest() for path in (a, b)}
    assert len(whole) == 2
    np.save(a / "y.npy", frames(6, seed=2))
    (a / "y.npz").unlink()
    assert Clips(a, "real", WHOLE).digest() == Clips(b, "real", WHOLE).digest() in whole


@pytest.mark.parametrize(
    ("videos", "cut", "named"),
    [
        ({"x": frames()}, WHOLE, "holds 1 videos .*real needs 2 or more"),
        ({"x": frames(), "y": frames(5)}, WHOLE, "y.npz has 5 frames of 20x16, but x.npz has 6 of 20x16"),
        ({"x": frames(), "y": frames(6, 8)}, WHOLE, "y.npz has 6 frames of 20x8, but x.npz has 6 of 20x16"),
        ({"x": frames(), "y": frames(5)}, Cut(2, 4), "y.npz has 5 frames, too few for cut.skip 2 and cut.frames 4"),
        ({"x": frames(2), "y": frames(2)}, Cut(2, 0), "x.npz has 2 frames, too few"),
        ({"x": frames(), "y": np.zeros((6, 16, 20, 3))}, WHOLE, "y.npz: holds float64"),
    ],
)
def test_a_fault_is_named_in_one_line(videos: dict, cut: Cut, named: str, tmp_path: Path) -> None:
    with pytest.raises(VgenError, match=named) as caught:
        Clips(folder(tmp_path / "a", **videos), "real", cut).read([0, 1])
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_none_or_ambiguous_is_named(tmp_path: Path) -> None:
    with pytest.raises(VgenError, match="config key generated is .*no folder"):
        Clips(tmp_path / "none", "generated", WHOLE)
    np.save(folder(tmp_path / "a", x=frames(), y=frames()) / "x.npy", frames())
    with pytest.raises(VgenError, match="holds x under two suffixes"):
        Clips(tmp_path / "a", "real", WHOLE)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 damaged"])
@pytest.mark.parametrize("suffix", [".npz", ".npy", ".mp4", ".gif"])
def test_a_broken_file_is_named(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = folder(tmp_path / "a", x=frames(), y=frames()) / f"z{suffix}"
    path.write_bytes(content)
    with pytest.raises(VgenError, match=f"z{suffix}") as caught:
        Clips(tmp_path / "a", "real", WHOLE).read([2])
    assert "\n" not in str(caught.value)


def test_both_folders_have_to_fit(tmp_path: Path) -> None:
    def clips(name: str, **videos: np.ndarray) -> Clips:
        return Clips(folder(tmp_path / name, **videos), "real", WHOLE)

    a = clips("a", x=frames(), y=frames())
    check_alike(a, clips("b", y=frames(), x=frames()), True)
    other = clips("c", x=frames(), z=frames())
    check_alike(a, other, False)
    with pytest.raises(VgenError, match="c has no video named y, which .*a has"):
        check_alike(a, other, True)
    with pytest.raises(VgenError, match="a has 6 frames of 20x16, .*d has 6 frames of 24x16"):
        check_alike(a, clips("d", x=frames(6, 16, 24), y=frames(6, 16, 24)), False)
    with pytest.raises(VgenError, match="e has no video named z|a has no video named z"):
        check_alike(a, clips("e", x=frames(), y=frames(), z=frames()), True)
    with pytest.raises(VgenError, match="cut.skip is -1"):
        Cut(-1, 0)


def test_walls_are_cut_with_their_frames(tmp_path: Path) -> None:
    walls = np.arange(7 * 3).reshape(7, 3)
    write_clip(tmp_path / "x.npz", frames(7), None, None, walls)
    write_clip(tmp_path / "y.npz", frames(7), None, None)
    clips = Clips(tmp_path, "real", Cut(2, 4))
    found = clips.walls(0)
    assert found is not None and clips.walls(1) is None
    np.testing.assert_array_equal(found, walls[2:6])


def test_what_lies_beside_the_frames_is_cut_alike(tmp_path: Path) -> None:
    video, actions = frames(7), np.arange(6)
    for name in ("x", "y"):
        write_clip(tmp_path / f"{name}.npz", video, actions, np.array([[0, 3], [2, 5], [3, 6]]))
    clips = Clips(tmp_path, "real", Cut(2, 4))
    np.testing.assert_array_equal(clips.steps([0])[0], video[1:6])  # with the last given frame
    np.testing.assert_array_equal(clips.actions([0])[0], [1, 2, 3, 4])
    np.testing.assert_array_equal(clips.visits(0), [[0, 3]])
    whole = Clips(tmp_path, "real", WHOLE)
    np.testing.assert_array_equal(whole.steps([0])[0], video)
    np.testing.assert_array_equal(whole.actions([0])[0], actions)
    before = clips.digest_beside("actions")
    write_clip(tmp_path / "y.npz", video, actions + 1, None)
    assert clips.digest_beside("actions") != before and not len(clips.visits(1))


@pytest.mark.parametrize(("actions", "named"), [(None, "no actions for 7"), (np.arange(7), "7 actions for 7")])
def test_actions_are_one_fewer_than_frames(actions: np.ndarray | None, named: str, tmp_path: Path) -> None:
    for name in ("x", "y"):
        write_clip(tmp_path / f"{name}.npz", frames(7), actions, None)
    with pytest.raises(VgenError, match=f"x.npz holds {named} frames: store 6 in it"):
        Clips(tmp_path, "real", WHOLE).actions([0])
