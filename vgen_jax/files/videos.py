"""The files of generated videos: frames without loss as they come, and mp4, GIF and contact sheet made of them.

An mp4 that was not finished cannot be gone on with. So the decoded frames are kept beside it, byte for byte, in an
``.npy`` file that only ever grows; a rollout that goes on makes its mp4 of them anew, a chunk at a time. Metrics, too,
are computed on these frames and never on a video that was compressed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from vgen_jax.files import media
from vgen_jax.types import Array, VgenError

SHEET_FRAMES = 48  # pictures on a contact sheet
CAPTIONS_FILE = "captions.jsonl"
START_CAPTION = "start"


class FrameFile:
    """Frames appended to an ``.npy`` file, uint8 (T, H, W, 3).

    NumPy leaves room in a header for T to grow: it is put right in place at every flush.

    Args:
        path: where to write.
        shape_HWC: of a frame.
        keep: frames of the existing file to go on after; 0 begins anew.

    Raises:
        VgenError: if the file has not that many frames of that shape.
    """

    def __init__(self, path: Path, shape_HWC: tuple[int, ...], keep: int):
        self._path, self._shape, self._count = path, shape_HWC, keep
        if keep:
            _check_frames(path, shape_HWC, keep)
        self._file = path.open("r+b" if keep else "w+b")
        self._write_header()
        self._file.seek(self._file.tell() + keep * int(np.prod(shape_HWC)))
        self._file.truncate()

    def append(self, frames_THWC: np.ndarray) -> None:
        """Writes frames at the end."""
        self._file.write(np.ascontiguousarray(frames_THWC, np.uint8).tobytes())
        self._count += len(frames_THWC)

    def flush(self) -> None:
        """Afterwards the file is whole, also for whoever reads it when this process is dead."""
        end = self._file.tell()
        self._write_header()
        self._file.seek(end)
        self._file.flush()

    def close(self) -> None:
        """Flushes and closes."""
        self.flush()
        self._file.close()

    def read(self) -> np.ndarray:
        """The frames so far, mapped into memory."""
        self.flush()
        return np.load(self._path, mmap_mode="r", allow_pickle=False)

    def _write_header(self) -> None:
        self._file.seek(0)
        described = {"descr": "|u1", "fortran_order": False, "shape": (self._count, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, described)


def _check_frames(path: Path, shape_HWC: tuple[int, ...], count: int) -> None:
    remedy = f"delete {path.parent.parent} to generate from the start"
    try:
        have = np.load(path, mmap_mode="r", allow_pickle=False).shape
    except (OSError, ValueError) as error:
        raise VgenError(f"{path} cannot be gone on with ({error}): {remedy}") from error
    if have[1:] != shape_HWC or have[0] < count:
        raise VgenError(f"{path} holds frames {have}, not {count} of {shape_HWC}: {remedy}")


class VideoFiles:
    """The files of one video, and the frames kept for its contact sheet.

    Args:
        stem: their path without a suffix.
        first_HWC: the real frame that opens the video.
        gif: write a GIF beside the mp4.
        texts: captions of the chunks that are there already, of ``chunk`` frames each.
    """

    def __init__(
        self, stem: Path, first_HWC: np.ndarray, fps: float, gif: bool, texts: Sequence[str] = (), chunk: int = 0
    ):
        size = media.caption_frames(first_HWC[None], [START_CAPTION]).shape[1:3]
        suffixes = (".mp4", ".gif") if gif else (".mp4",)
        self._sheet = stem.with_suffix(".png")
        self._frames = FrameFile(stem.with_suffix(".npy"), first_HWC.shape, 1 + chunk * len(texts) if texts else 0)
        self._writers = [media.VideoWriter(stem.with_suffix(s), fps, size) for s in suffixes]
        self._kept: list[tuple[np.ndarray, str]] = []
        if not texts:
            self._frames.append(first_HWC[None])
        self._show(first_HWC[None], START_CAPTION)
        self.keep(first_HWC, START_CAPTION)
        for number, text in enumerate(texts):
            frames_THWC = np.array(self._frames.read()[1 + number * chunk : 1 + (number + 1) * chunk])
            self._show(frames_THWC, text)
            self.keep(frames_THWC[-1], text)

    def _show(self, frames_THWC: np.ndarray, text: str) -> None:
        captioned = media.caption_frames(frames_THWC, [text] * len(frames_THWC))
        for writer in self._writers:
            writer.write(captioned)

    def add(self, frames_THWC: np.ndarray, text: str) -> None:
        """Appends frames with their caption."""
        self._frames.append(frames_THWC)
        self._show(frames_THWC, text)

    def keep(self, frame_HWC: np.ndarray, text: str) -> None:
        """Keeps a chunk's last frame for the contact sheet, as long as there is room."""
        if len(self._kept) < SHEET_FRAMES:
            self._kept.append((frame_HWC, text))

    def flush(self) -> None:
        """What has been added can be gone on with."""
        self._frames.flush()

    def close(self) -> None:
        """Finishes the videos and writes the contact sheet."""
        self._frames.close()
        for writer in self._writers:
            writer.close()
        frames, texts = zip(*self._kept, strict=True)
        media.write_png(self._sheet, media.contact_sheet(frames, texts))


class Captions:
    """``captions.jsonl``: a line per chunk with the number of its first frame, its text, and the actions if they are
    shown.

    Args:
        keep: lines of the existing file to go on after; 0 begins anew.

    Raises:
        VgenError: if the file has fewer.
    """

    def __init__(self, path: Path, chunk: int, keep: int):
        self._chunk = chunk
        try:
            self._file = path.open("r+" if keep else "w+", encoding="utf-8")
            rows = [json.loads(self._file.readline()) for _ in range(keep)]
            self.texts = [str(row["text"]) for row in rows]
            self.notes: list[list[str] | None] = [row["notes"] if "notes" in row else None for row in rows]
        except (OSError, ValueError) as error:
            raise VgenError(
                f"{path} does not have the {keep} lines that the rollout has left: delete {path.parent.parent} to "
                "generate from the start"
            ) from error
        self._file.seek(self._file.tell())
        self._file.truncate()

    def add(self, text: str, notes: Sequence[str] | None = None) -> None:
        """Appends a chunk's line; ``notes`` has what is to be said of each video."""
        row: dict[str, Any] = {"frame": 1 + self._chunk * len(self.texts), "text": text}
        if notes is not None:
            row["notes"] = list(notes)
        self._file.write(json.dumps(row) + "\n")
        self.texts.append(text)
        self.notes.append(None if notes is None else list(notes))

    def shown(self, video: int) -> list[str]:
        """What stands under each chunk of a video: its text, and what is said of that video."""
        pairs = zip(self.texts, self.notes, strict=True)
        return [text if notes is None else f"{text} {notes[video]}".strip() for text, notes in pairs]

    def flush(self) -> None:
        """Hands everything to the system."""
        self._file.flush()

    def close(self) -> None:
        """Flushes and closes."""
        self._file.close()


class Videos:
    """The files of all videos of a rollout; what is there when something fails stays readable.

    Args:
        folder: where to write ``video_<n>.*`` and ``captions.jsonl``.
        first_BHWC: the real frame that opens each video, uint8.
        fps: frames per second.
        gif: write a GIF beside every mp4.
        chunk: frames of a chunk.
        done: chunks that are there already, to go on after.
    """

    def __init__(self, folder: Path, first_BHWC: np.ndarray, fps: float, gif: bool, chunk: int, done: int = 0):
        folder.mkdir(parents=True, exist_ok=True)
        self._captions = Captions(folder / CAPTIONS_FILE, chunk, done)
        self._videos: list[VideoFiles] = []
        try:
            for b, first_HWC in enumerate(first_BHWC):
                self._videos.append(
                    VideoFiles(folder / f"video_{b}", first_HWC, fps, gif, self._captions.shown(b), chunk)
                )
        except VgenError:
            self.close()
            raise

    def add(self, parts: Iterable[Array], text: str, notes: Sequence[str] | None = None) -> None:
        """A chunk's frames, uint8 (B, T, H, W, 3), in parts along T.

        Args:
            notes: what is to be said of each video beside the text.
        """
        self._captions.add(text, notes)
        shown = [self._captions.shown(b)[-1] for b in range(len(self._videos))]
        for part in parts:
            frames_BTHWC = np.asarray(part)
            for video, frames_THWC, caption in zip(self._videos, frames_BTHWC, shown, strict=True):
                video.add(frames_THWC, caption)
        for video, frames_THWC, caption in zip(self._videos, frames_BTHWC, shown, strict=True):
            video.keep(frames_THWC[-1], caption)

    def flush(self) -> None:
        """What has been added can be gone on with."""
        self._captions.flush()
        for video in self._videos:
            video.flush()

    def close(self) -> None:
        """Finishes all files."""
        self._captions.close()
        for video in self._videos:
            video.close()

    def __enter__(self) -> "Videos":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def read_same_texts(folders: Mapping[str, Path]) -> list[tuple[int, str]]:
    """(number of the first frame, text) of each chunk, which has to be the same in all runs."""
    found = {}
    for title, folder in folders.items():
        path = folder / "samples" / CAPTIONS_FILE
        if not path.is_file():
            raise VgenError(f"{path} is missing: run generate in {folder} first")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found[title] = [(int(row["frame"]), str(row["text"])) for row in rows]
    first, *others = found
    for other in others:
        if found[other] != found[first]:
            raise VgenError(f"{folders[other]} followed other commands than {folders[first]}: generate with the same")
    return found[first]


def read_frames(folder: Path, video: int) -> np.ndarray:
    """The frames of a ``generate`` run as they were decoded, uint8 (T, H, W, 3), the real first one included."""
    return media.read_video(folder / "samples" / f"video_{video}.npy")
