"""Frames survive files, captions and layouts."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from vgen_jax.files import media
from vgen_jax.files.media import (
    VideoWriter,
    caption_frames,
    contact_sheet,
    read_video,
    side_by_side,
    write_png,
)
from vgen_jax.files.pictures import read_image
from vgen_jax.types import VgenError


def clip(frames: int = 6, height: int = 32, width: int = 48) -> np.ndarray:
    """A few flat patches of colour that differ from frame to frame."""
    patches = np.random.default_rng(0).integers(0, 256, (frames, height // 16, width // 16, 3), np.uint8)
    return patches.repeat(16, axis=1).repeat(16, axis=2)


def write(path: Path, frames: np.ndarray, fps: float = 35 / 4) -> Path:
    with VideoWriter(path, fps, frames.shape[1:3]) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def test_mp4_keeps_order_count_rate_and_nearly_the_pixels(tmp_path: Path) -> None:
    frames = clip()
    path = write(tmp_path / "clip.mp4", frames)
    back = read_video(path)
    assert back.shape == frames.shape
    error = np.abs(back[:, None].astype(int) - frames[None]).mean(axis=(2, 3, 4))
    assert (error.argmin(axis=1) == np.arange(len(frames))).all()
    assert error.diagonal().max() < 6
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == 35 / 4
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_gif_is_exact_up_to_256_colours_a_frame(tmp_path: Path) -> None:
    frames = clip(frames=12, height=128, width=256)
    assert 100 < len(np.unique(frames[0].reshape(-1, 3), axis=0)) <= 256
    path = write(tmp_path / "clip.gif", frames)
    np.testing.assert_array_equal(read_video(path), frames)
    with Image.open(path) as image:
        durations = []
        for number in range(image.n_frames):
            image.seek(number)
            durations.append(image.info["duration"])
    assert sum(durations[:-1]) == pytest.approx(11 * 1000 * 4 / 35, abs=20)


def test_several_frames_at_once_equal_one_by_one(tmp_path: Path) -> None:
    frames = clip()
    with VideoWriter(tmp_path / "a.gif", 4, (32, 48)) as writer:
        writer.write(frames[:4])
        writer.write(frames[4])
        writer.write(frames[5:])
    assert (tmp_path / "a.gif").read_bytes() == write(tmp_path / "b.gif", frames, fps=4).read_bytes()


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_an_interrupted_video_can_be_watched(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 10, (32, 48)) as writer:
        writer.write(clip()[:4])
        assert not path.exists(), "the name stands for a finished file"
        raise KeyboardInterrupt
    assert len(read_video(path)) == 4
    assert list(tmp_path.iterdir()) == [path]


def test_unfit_frames_and_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VgenError, match=r"clip\.avi: .* name it \.mp4 or \.gif"):
        VideoWriter(tmp_path / "clip.avi", 10, (32, 48))
    with pytest.raises(VgenError, match="even sizes, got 31x48"):
        VideoWriter(tmp_path / "clip.mp4", 10, (31, 48))
    with VideoWriter(tmp_path / "clip.mp4", 10, (32, 48)) as writer:
        writer.write(clip())
        with pytest.raises(VgenError, match="float32"):
            writer.write(clip().astype(np.float32))
        with pytest.raises(VgenError, match=r"\(32, 32, 3\)"):
            writer.write(clip(width=32))
    with pytest.raises(VgenError, match="already closed"):
        writer.write(clip())


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VgenError, match="file/clip.mp4: cannot be written"):
        VideoWriter(tmp_path / "file" / "clip.mp4", 10, (32, 48))
    with pytest.raises(VgenError, match="file/a.png: cannot be written"):
        write_png(tmp_path / "file" / "a.png", clip()[0])


def test_arrays_are_read(tmp_path: Path) -> None:
    frames = clip()
    np.save(tmp_path / "clip.npy", frames)
    np.savez(tmp_path / "one.npz", anything=frames)
    np.savez(tmp_path / "two.npz", frames=frames, actions=np.zeros(5))
    for name in ("clip.npy", "one.npz", "two.npz"):
        np.testing.assert_array_equal(read_video(tmp_path / name), frames)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "float.npy", clip().astype(np.float32))
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=clip(), b=clip())
    (tmp_path / "noise.npz").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "empty.gif").write_bytes(b"")
    (tmp_path / "clip.mov").write_bytes(b"")
    whole = write(tmp_path / "whole.mp4", clip()).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    faults = {
        "absent.mp4": "no such file",
        "float.npy": r"float32 of shape \(6, 32, 48, 3\)",
        "pickle.npy": "without pickle",
        "two.npz": "arrays a, b",
        "noise.npz": "cannot be read",
        "noise.mp4": "cannot be decoded",
        "empty.gif": "cannot be decoded",
        "cut.mp4": "cannot be decoded",
        "clip.mov": r"give \.mp4, \.gif, \.npy or \.npz",
    }
    for name, fault in faults.items():
        with pytest.raises(VgenError, match=f"{name}: .*{fault}") as caught:
            read_video(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_pictures_are_cropped_about_the_centre_and_resized(tmp_path: Path) -> None:
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, 16:48] = clip()[0, :, :32]
    write_png(tmp_path / "wide.png", wide)
    np.testing.assert_array_equal(read_image(tmp_path / "wide.png", (32, 32)), wide[:, 16:48])
    assert read_image(tmp_path / "wide.png", (16, 24)).shape == (16, 24, 3)
    (tmp_path / "cut.png").write_bytes((tmp_path / "wide.png").read_bytes()[:-40])
    for name, fault in {"absent.png": "no such file", "cut.png": "cannot be read as a picture"}.items():
        with pytest.raises(VgenError, match=f"{name}: {fault}"):
            read_image(tmp_path / name, (32, 32))


def test_captions_enlarge_frames_by_whole_pixels_and_leave_them_untouched() -> None:
    frames = clip(frames=3)
    texts = ["", "go forward", "turn left and then walk on and on " * 9]
    captioned = caption_frames(frames, texts, min_height=100)
    large = frames.repeat(4, axis=1).repeat(4, axis=2)
    np.testing.assert_array_equal(captioned[:, :128, :192], large)
    assert captioned.shape[1] % 2 == captioned.shape[2] % 2 == 0
    ink = [(strip != media.BACKGROUND).any(axis=-1).sum() for strip in captioned[:, 128:]]
    assert ink[0] == 0 < ink[1] < ink[2]
    assert not (captioned[2, 128:, :2] != media.BACKGROUND).any(), "a long text stays inside the strip"


def test_captioning_piece_by_piece_equals_captioning_at_once() -> None:
    frames, texts = clip(frames=3, height=48, width=16), ["stay", "a", "b c"]
    whole = caption_frames(frames, texts)
    for t in range(3):
        np.testing.assert_array_equal(caption_frames(frames[t : t + 1], texts[t : t + 1])[0], whole[t])


def test_clips_stand_side_by_side_in_order() -> None:
    left, right = clip(), clip()[::-1]
    joined = side_by_side([left, right], ["truth", "model"], min_height=32)
    assert joined.shape[0] == 6
    np.testing.assert_array_equal(joined[:, -32:, :48], left)
    np.testing.assert_array_equal(joined[:, -32:, -48:], right)
    with pytest.raises(VgenError, match="cut them to one length"):
        side_by_side([left, right[:4]], ["truth", "model"])
    with pytest.raises(VgenError, match="2 clips but 1 titles"):
        side_by_side([left, right], ["truth"])


def test_the_contact_sheet_shows_every_frame_row_by_row(tmp_path: Path) -> None:
    frames = clip(frames=5)
    sheet = contact_sheet(frames, [str(t) for t in range(5)], columns=3, min_height=32)
    write_png(tmp_path / "sheet.png", sheet)
    with Image.open(tmp_path / "sheet.png") as image:
        shown = np.asarray(image)
    cell_height = (shown.shape[0] - media.GUTTER) // 2
    for number, frame in enumerate(frames):
        top = media.GUTTER + number // 3 * cell_height
        left = media.GUTTER + number % 3 * (48 + media.GUTTER)
        np.testing.assert_array_equal(shown[top : top + 32, left : left + 48], frame)
    with pytest.raises(VgenError, match="5 frames but 2 captions"):
        contact_sheet(frames, ["a", "b"])
