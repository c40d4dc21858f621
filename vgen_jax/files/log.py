"""What a run writes down while it goes: ``metrics.jsonl``, ``timing.jsonl``, TensorBoard events.

``metrics.jsonl`` holds only what the computation determines, so that a run which was interrupted and resumed leaves the
same bytes as one which was not. Whatever a clock determines goes to ``timing.jsonl``. TensorBoard shows both.

The event file is written synchronously with tensorboardX's record writer. Its ``SummaryWriter`` hands events to a
thread through a bounded queue: once the disk is full the thread dies and the training loop blocks on
the queue for ever.
"""

import contextlib
import ctypes
import gc
import json
import math
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np

from vgen_jax.files.media import encode_gif, encode_png
from vgen_jax.types import VgenError

METRICS_FILE = "metrics.jsonl"
TIMING_FILE = "timing.jsonl"


def is_main_process() -> bool:
    """True on the one process that writes files and progress. Touches no backend unless several processes run."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


class MetricWriter:
    """Writes a run's scalars, timings, images and videos; does nothing on processes other than the first.

    Bit-identical resumption asks one thing of the caller: write the scalars of the steps up to n before the checkpoint
    of step n is committed.

    Args:
        workdir: the run's folder; created where it is missing.
        resume_step: the number of training steps that the restored state has behind it; entries of later steps are
            removed from the files, and TensorBoard is told to hide them. ``None`` starts anew: all entries are removed.

    Raises:
        VgenError: a file cannot be written (disk full, no permission) or holds a line that is no JSON object.
    """

    def __init__(self, workdir: str | os.PathLike[str], resume_step: int | None = None) -> None:
        self._active = is_main_process()
        if not self._active:
            return
        folder = Path(workdir)
        keep = -1 if resume_step is None else resume_step
        with _disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._metrics = _JsonLines(folder / METRICS_FILE, keep)
        self._timing = _JsonLines(folder / TIMING_FILE, keep)
        self._events = _Events(folder, purge_step=keep + 1)

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Write reproducible numbers (anything that ``float`` takes) under ``step``."""
        self._write(step, values, timing=False)

    def timings(self, step: int, values: Mapping[str, Any]) -> None:
        """Write numbers that depend on a clock (steps/s, seconds) under ``step``."""
        self._write(step, values, timing=True)

    def image(self, step: int, name: str, image_HWC: np.ndarray) -> None:
        """Show a uint8 picture in TensorBoard."""
        if self._active:
            self._events.picture(step, name, image_HWC.shape, encode_png(image_HWC))

    def video(self, step: int, name: str, frames_THWC: np.ndarray, fps: float) -> None:
        """Show a uint8 clip in TensorBoard, as a GIF. Keep it small: the event file holds it whole."""
        if self._active:
            self._events.picture(step, name, frames_THWC.shape[1:], encode_gif(frames_THWC, fps))

    def flush(self) -> None:
        """Return once everything is on the disk."""
        if self._active:
            self._metrics.sync()
            self._timing.sync()
            self._events.flush()

    def close(self) -> None:
        """Flush and close the files. Closing twice is harmless."""
        if self._active:
            self._active = False
            self._metrics.close()
            self._timing.close()
            self._events.close()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _write(self, step: int, values: Mapping[str, Any], timing: bool) -> None:
        if not self._active:
            return
        numbers = {name: float(value) for name, value in values.items()}
        (self._timing if timing else self._metrics).append(step, numbers)
        self._events.scalars(step, numbers)


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The entries of ``metrics.jsonl`` or ``timing.jsonl`` in file order; ``step`` is an int, all else a float.

    A half-written last line, as a killed process leaves it, is left out.

    Raises:
        VgenError: the file is missing, or a line other than the last is no JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise VgenError(f"{path}: no such file; it appears once a run has logged its first step")
    return [_decode(entry) for entry, _ in _entries(path)]


def peak_mib() -> float:
    """Peak memory so far, MiB: of the device where it tells, else of this process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget_peak() -> bool:
    """Gives memory that is no longer used back to the system and begins the process's peak anew.

    Returns:
        Whether the peak counts from here: not on a device that tells its own, nor where the system cannot (it can on
        Linux).
    """
    gc.collect()
    if jax.local_devices()[0].memory_stats() or not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc keeps what was freed
        libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return True


class _Events:
    """A TensorBoard event file. ``purge_step`` hides what earlier event files of the folder hold from that step on."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        # Here and not above: tensorboardX imports torch where that is installed, and only a process that logs should
        # wait for it.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        self._event, self._summary, self._path = Event, Summary, folder / "events"
        with _disk_errors(self._path):
            # Nanoseconds: tensorboardX names files by the second and would overwrite those of a quick restart.
            self._writer = EventsWriter(str(self._path), filename_suffix=f".{time.time_ns()}")
            self._writer.write_event(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        self._add(step, [self._summary.Value(tag=name, simple_value=number) for name, number in numbers.items()])

    def picture(self, step: int, name: str, shape_HWC: tuple[int, ...], encoded: bytes) -> None:
        height, width, channels = shape_HWC
        image = self._summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=encoded)
        self._add(step, [self._summary.Value(tag=name, image=image)])

    def flush(self) -> None:
        with _disk_errors(self._path):
            self._writer.flush()

    def close(self) -> None:
        with _disk_errors(self._path):
            self._writer.close()

    def _add(self, step: int, values: list[Any]) -> None:
        event = self._event(wall_time=time.time(), step=step, summary=self._summary(value=values))
        with _disk_errors(self._path):
            self._writer.write_event(event)


class _JsonLines:
    """An append-only file of JSON objects. Every entry reaches the kernel whole before ``append`` returns."""

    def __init__(self, path: Path, last_step: int) -> None:
        self._path = path
        with _disk_errors(path):
            if path.exists():
                _trim(path, last_step)
            self._file = open(path, "ab", buffering=0)

    def append(self, step: int, numbers: Mapping[str, float]) -> None:
        if "step" in numbers:
            raise VgenError(f"{self._path}: a metric may not be named 'step'; rename it")
        line = json.dumps({"step": int(step)} | {name: _encode(number) for name, number in numbers.items()})
        rest = memoryview(line.encode() + b"\n")
        size = self._file.seek(0, os.SEEK_END)
        with _disk_errors(self._path):
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                self._file.truncate(size)  # a full disk may have taken half of the line
                raise

    def sync(self) -> None:
        with _disk_errors(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        with _disk_errors(self._path):
            self._file.close()


def _trim(path: Path, last_step: int) -> None:
    """Remove the entries after ``last_step``; the old file stays in place until the new one is on the disk."""
    kept = [line for entry, line in _entries(path) if entry["step"] <= last_step]
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        file.write(b"".join(line + b"\n" for line in kept))
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _entries(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Parsed entries with their bytes; a last line without its line end that does not parse is left out."""
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            yield entry, line
        elif number < len(lines):
            raise VgenError(f"{path}: line {number} is no JSON object with a 'step'; delete that line")


def _encode(number: float) -> float | str:
    """JSON has no NaN and no infinity: these become the strings ``nan``, ``inf`` and ``-inf``."""
    return number if math.isfinite(number) else str(number)


def _decode(entry: Mapping[str, Any]) -> dict[str, float]:
    return {name: value if name == "step" else float(value) for name, value in entry.items()}


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into one line that names the file and what to do."""
    try:
        yield
    except OSError as error:
        raise VgenError(
            f"{path}: cannot be written ({error.strerror}); mend that and start the same command again: "
            "it goes on from the last checkpoint"
        ) from error
