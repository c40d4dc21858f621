"""Frames in and out of files: mp4, GIF and PNG, captions under frames, clips side by side.

Frames are uint8 RGB, (H, W, 3), in [0, 255]; clips are (T, H, W, 3). Writers stream: memory does not grow with length.
H.264 is lossy; metrics are computed on the frames themselves, never on a video that was written and read back.
"""

import io
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vgen_jax.types import VgenError

Frame = np.ndarray

BACKGROUND = (24, 24, 27)
FOREGROUND = (244, 244, 245)
FONT_SIZE = 15
LINE_HEIGHT = 20
GUTTER = 4


class VideoWriter:
    """Writes frames one at a time to an ``.mp4`` (H.264, yuv420p) or a ``.gif`` (a palette of its own for each frame).

    The file gets its name on ``close``; until then it carries the suffix ``.part``. Leaving the ``with`` block through
    an exception closes it too, so that what was written by then can be looked at.

    Args:
        path: where to write; the suffix chooses the format.
        fps: frames per second, > 0. A GIF rounds each frame's time to 10 ms.
        size: (height, width) of every frame; even numbers for mp4.

    Raises:
        VgenError: another suffix, an odd size for mp4, a frame of another size or type, or an unwritable file.
    """

    def __init__(self, path: str | os.PathLike[str], fps: float, size: tuple[int, int]) -> None:
        self.path = Path(path)
        self._part = self.path.with_name(self.path.name + ".part")
        self._encoder: _Encoder | None = None
        kind = self.path.suffix.lower().lstrip(".")
        if kind not in ("mp4", "gif"):
            raise VgenError(f"{path}: cannot write a video of this type; name it .mp4 or .gif")
        if kind == "mp4" and (size[0] % 2 or size[1] % 2):
            raise VgenError(f"{path}: mp4 needs even sizes, got {size[0]}x{size[1]}; pad or scale the frames")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._encoder = _Encoder(str(self._part), kind, fps, size)
        except (OSError, av.FFmpegError) as error:
            raise _unwritable(path, error) from error

    def write(self, frames: np.ndarray) -> None:
        """Append one frame (H, W, 3) or several (T, H, W, 3)."""
        if self._encoder is None:
            raise VgenError(f"{self.path}: already closed; open a new VideoWriter")
        frames = frames if frames.ndim == 4 else frames[None]
        for frame in frames:
            try:
                self._encoder.write(_checked(frame, str(self.path), self._encoder.size))
            except (OSError, av.FFmpegError) as error:
                raise _unwritable(self.path, error) from error

    def close(self) -> None:
        """Finish the file. Closing twice is harmless."""
        if self._encoder is None:
            return
        encoder, self._encoder = self._encoder, None
        try:
            encoder.close()
            os.replace(self._part, self.path)
        except (OSError, av.FFmpegError) as error:
            raise _unwritable(self.path, error) from error

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class _Encoder:
    """One FFmpeg output stream."""

    def __init__(self, target: str | BinaryIO, kind: str, fps: float, size: tuple[int, int]) -> None:
        self.size = size
        self._container = av.open(target, "w", format=kind)
        rate = Fraction(fps).limit_denominator(1001)
        codec = "libx264" if kind == "mp4" else "gif"
        try:
            stream: Any = self._container.add_stream(codec, rate=rate)
        except (ValueError, av.FFmpegError) as error:
            self._container.close()
            raise VgenError(f"this PyAV lacks the {codec} encoder; install its wheel: pip install av") from error
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p" if kind == "mp4" else "pal8"
        if kind == "mp4":
            stream.options = {"crf": "16"}
        # Now and not at the first frame: closing a container whose header could not be written (disk full) crashes
        # FFmpeg, and an encoder whose construction failed is never closed.
        self._container.start_encoding()
        self._stream = stream
        self._paletted = kind == "gif"

    def write(self, frame_HWC: Frame) -> None:
        self._container.mux(self._stream.encode(_paletted(frame_HWC) if self._paletted else _plain(frame_HWC)))

    def close(self) -> None:
        try:
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()


def _plain(frame_HWC: Frame) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")


def _paletted(frame_HWC: Frame) -> av.VideoFrame:
    """The frame in the 256 colours that suit it best; FFmpeg's own conversion has one palette of 3-3-2 bits."""
    image = Image.fromarray(frame_HWC).quantize(256, dither=Image.Dither.NONE)
    colours = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    palette_ARGB = np.full((256, 4), 255, np.uint8)
    palette_ARGB[: len(colours), 1:] = colours
    pal8: Any = (np.asarray(image), palette_ARGB)  # PyAV takes a pair here, its stub does not
    return av.VideoFrame.from_ndarray(pal8, format="pal8")


def encode_gif(frames_THWC: np.ndarray, fps: float) -> bytes:
    """A short clip as the bytes of a GIF."""
    buffer = io.BytesIO()
    encoder = _Encoder(buffer, "gif", fps, frames_THWC.shape[1:3])
    for frame in frames_THWC:
        encoder.write(_checked(frame, "GIF", encoder.size))
    encoder.close()
    return buffer.getvalue()


def encode_png(image_HWC: Frame) -> bytes:
    """A picture as the bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(_checked(image_HWC, "PNG", image_HWC.shape[:2])).save(buffer, "PNG")
    return buffer.getvalue()


def write_png(path: str | os.PathLike[str], image_HWC: Frame) -> None:
    """Write a uint8 picture. Raises VgenError where the file cannot be written."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(encode_png(image_HWC))
    except OSError as error:
        raise _unwritable(path, error) from error


def read_video(path: str | os.PathLike[str]) -> np.ndarray:
    """All frames of an ``.mp4``, ``.gif``, ``.npy`` or ``.npz`` file, uint8 (T, H, W, 3).

    An ``.npz`` must hold one array, or one named ``frames``.

    Raises:
        VgenError: no such file, another suffix, a damaged file, no frames, or an array that is not uint8 (T, H, W, 3).
    """
    path = Path(path)
    if not path.is_file():
        raise VgenError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        frames = _read_array(path)
    elif suffix in (".mp4", ".gif"):
        frames = _decode_video(path)
    else:
        raise VgenError(f"{path}: cannot read this type of video; give .mp4, .gif, .npy or .npz")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise VgenError(
            f"{path}: holds {frames.dtype} of shape {frames.shape}; a video is uint8 of shape (T, H, W, 3) with T > 0"
        )
    return frames


def _read_array(path: Path) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = loaded.files
            if "frames" not in names and len(names) != 1:
                raise VgenError(f"{path}: holds the arrays {', '.join(names) or 'none'}; name one of them frames")
            return loaded["frames" if "frames" in names else names[0]]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise VgenError(f"{path}: cannot be read as a NumPy array ({error}); write it again without pickle") from error


def _decode_video(path: Path) -> np.ndarray:
    try:
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise VgenError(f"{path}: cannot be decoded ({error}); the file is damaged or holds no video") from error
    if not frames:
        raise VgenError(f"{path}: holds no frames")
    return np.stack(frames)


def caption_frames(frames_THWC: np.ndarray, captions: Sequence[str], min_height: int = 256) -> np.ndarray:
    """Enlarge small frames by whole pixels and write each one's caption in a strip under it.

    The result's size depends on the frames' size alone, so that a stream may be captioned piece by piece.

    Args:
        frames_THWC: uint8 frames.
        captions: T texts; at most two lines are shown, the rest is cut with an ellipsis.
        min_height: frames lower than this are enlarged by the smallest whole factor that reaches it.

    Returns:
        uint8 (T, H·s + strip, W·s, 3), height and width even.
    """
    if len(captions) != len(frames_THWC):
        raise VgenError(f"{len(frames_THWC)} frames but {len(captions)} captions; give one caption for each frame")
    return np.stack([_captioned(frame, text, min_height) for frame, text in zip(frames_THWC, captions, strict=True)])


def _captioned(frame_HWC: Frame, text: str, min_height: int) -> Frame:
    scale = max(1, math.ceil(min_height / frame_HWC.shape[0]))
    frame = frame_HWC.repeat(scale, axis=0).repeat(scale, axis=1)
    return _even(np.concatenate([frame, _strip(text, frame.shape[1], lines=2)]))


def _strip(text: str, width: int, lines: int) -> Frame:
    """A strip of ``lines`` lines with the text centred in it."""
    height = lines * LINE_HEIGHT + 2 * GUTTER
    image = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(FONT_SIZE)
    shown = _wrapped(text, lambda line: draw.textlength(line, font), width - 2 * GUTTER, lines)
    top = (height - len(shown) * LINE_HEIGHT) / 2
    for row, line in enumerate(shown):
        middle = (width / 2, top + (row + 0.5) * LINE_HEIGHT)
        draw.text(middle, line, fill=FOREGROUND, font=font, anchor="mm")
    return np.asarray(image)


def _wrapped(text: str, measure: Callable[[str], float], width: float, lines: int) -> list[str]:
    """``text`` broken at spaces into at most ``lines`` lines; an ellipsis stands for what does not fit."""
    shown: list[str] = []
    for word in text.split():
        if shown and measure(f"{shown[-1]} {word}") <= width:
            shown[-1] = f"{shown[-1]} {word}"
        else:
            shown.append(word)
    if len(shown) > lines:
        shown = [*shown[: lines - 1], " ".join(shown[lines - 1 :])]
    return [_cut(line, measure, width) for line in shown]


def _cut(line: str, measure: Callable[[str], float], width: float) -> str:
    if measure(line) <= width:
        return line
    while line and measure(line + "…") > width:
        line = line[:-1]
    return line + "…"


def side_by_side(clips: Sequence[np.ndarray], titles: Sequence[str], min_height: int = 256) -> np.ndarray:
    """Clips of one shape (T, H, W, 3) next to each other, each under its title; small ones are enlarged.

    Returns:
        uint8 (T, H', W', 3), height and width even.
    """
    if len(clips) != len(titles) or not clips:
        raise VgenError(f"{len(clips)} clips but {len(titles)} titles; give one title for each clip")
    shapes = {clip.shape for clip in clips}
    if len(shapes) > 1:
        raise VgenError(f"clips of shapes {sorted(shapes)} cannot stand side by side; cut them to one length and size")
    columns = []
    for clip, title in zip(clips, titles, strict=True):
        scale = max(1, math.ceil(min_height / clip.shape[1]))
        large = clip.repeat(scale, axis=1).repeat(scale, axis=2)
        strip = _strip(title, large.shape[2], lines=1)
        columns.append(np.concatenate([np.broadcast_to(strip, (len(large), *strip.shape)), large], axis=1))
    gutter = np.full((*columns[0].shape[:2], GUTTER, 3), BACKGROUND, np.uint8)
    joined = [part for column in columns for part in (gutter, column)][1:]
    return np.stack([_even(frame) for frame in np.concatenate(joined, axis=2)])


def contact_sheet(frames: Iterable[Frame], captions: Sequence[str], columns: int = 8, min_height: int = 128) -> Frame:
    """One picture of many frames, row by row, each with its caption under it. See ``write_png``.

    Args:
        frames: uint8 frames (H, W, 3) of one size.
        captions: one text for each frame.
        columns: frames in a row, > 0.
        min_height: see ``caption_frames``.
    """
    cells = caption_frames(np.stack(list(frames)), captions, min_height)
    rows = math.ceil(len(cells) / columns)
    height, width = cells.shape[1] + GUTTER, cells.shape[2] + GUTTER
    sheet = np.full((rows * height + GUTTER, min(columns, len(cells)) * width + GUTTER, 3), BACKGROUND, np.uint8)
    for number, cell in enumerate(cells):
        top, left = GUTTER + number // columns * height, GUTTER + number % columns * width
        sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return sheet


def _even(frame_HWC: Frame) -> Frame:
    """Pad to even height and width, which H.264 with yuv420p needs."""
    pad = ((0, frame_HWC.shape[0] % 2), (0, frame_HWC.shape[1] % 2), (0, 0))
    return np.pad(frame_HWC, pad, mode="edge")


def _checked(frame_HWC: Frame, name: str, size: tuple[int, ...]) -> Frame:
    if frame_HWC.dtype != np.uint8 or frame_HWC.shape != (*size, 3):
        expected = f"uint8 of shape {(*size, 3)}"
        raise VgenError(f"{name}: got a frame of {frame_HWC.dtype} {frame_HWC.shape}; a frame here is {expected}")
    return frame_HWC


def _unwritable(path: str | os.PathLike[str], error: OSError | av.FFmpegError) -> VgenError:
    return VgenError(f"{path}: cannot be written ({error.strerror}); free space or choose another folder")
