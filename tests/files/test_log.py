"""What a run writes down survives kills, full disks and restarts."""

import errno
import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from vgen_jax.files import log
from vgen_jax.files.log import MetricWriter, read_metrics
from vgen_jax.types import VgenError


def run(workdir: Path, first: int, last: int, resume_step: int | None = None) -> None:
    """A run that logs the steps first..last."""
    with MetricWriter(workdir, resume_step) as writer:
        for step in range(first, last + 1):
            writer.scalars(step, {"loss": np.float32(1 / (step + 3)), "grad_norm": step * 0.1})
            writer.timings(step, {"steps_per_second": 1.0})


def events(workdir: Path) -> list[Event]:
    """Every event of the folder: TFRecords are length, checksum, bytes, checksum."""
    found = []
    for path in sorted(workdir.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_a_resumed_run_leaves_the_bytes_of_an_uninterrupted_one(tmp_path: Path) -> None:
    run(tmp_path / "whole", 1, 20)
    run(tmp_path / "cut", 1, 13)
    run(tmp_path / "cut", 11, 20, resume_step=10)
    assert (tmp_path / "cut/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_a_half_written_line_is_dropped(tmp_path: Path) -> None:
    run(tmp_path, 1, 5)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 6, "lo')
    assert [entry["step"] for entry in read_metrics(path)] == [1, 2, 3, 4, 5]
    run(tmp_path, 6, 5, resume_step=5)
    assert path.read_bytes() == whole


def test_a_new_start_leaves_nothing_of_the_old_run(tmp_path: Path) -> None:
    run(tmp_path, 0, 5)
    run(tmp_path, 0, 1)
    assert [entry["step"] for entry in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    run(tmp_path, 1, 3)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:-4], lines[2]]) + "\n")
    with pytest.raises(VgenError, match="metrics.jsonl: line 2 is no JSON object"):
        run(tmp_path, 4, 4, resume_step=3)


def test_numbers_come_back_exactly(tmp_path: Path) -> None:
    values = {"float32": float(np.float32(0.1)), "tiny": 5e-324, "inf": np.inf, "minus": -np.inf, "nan": np.nan}
    with MetricWriter(tmp_path) as writer:
        writer.scalars(7, values)
    text = (tmp_path / "metrics.jsonl").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (entry,) = read_metrics(tmp_path / "metrics.jsonl")
    np.testing.assert_equal(entry, {"step": 7, **values})


def test_timings_stay_out_of_the_metrics(tmp_path: Path) -> None:
    run(tmp_path, 1, 1)
    assert set(read_metrics(tmp_path / "metrics.jsonl")[0]) == {"step", "loss", "grad_norm"}
    assert set(read_metrics(tmp_path / "timing.jsonl")[0]) == {"step", "steps_per_second"}


def test_tensorboard_gets_everything_and_hides_what_was_undone(tmp_path: Path) -> None:
    run(tmp_path, 1, 3)
    with MetricWriter(tmp_path, resume_step=2) as writer:
        writer.image(3, "frame", np.zeros((8, 8, 3), np.uint8))
        writer.video(3, "clip", np.zeros((4, 8, 8, 3), np.uint8), fps=4)
    found = events(tmp_path)
    values = {value.tag: value for event in found for value in event.summary.value}
    assert set(values) == {"loss", "grad_norm", "steps_per_second", "frame", "clip"}
    assert values["frame"].image.encoded_image_string.startswith(b"\x89PNG")
    assert values["clip"].image.encoded_image_string.startswith(b"GIF8")
    assert [event.step for event in found if event.session_log.status] == [0, 3]


class FillingDisk:
    """Takes half of the next write and then reports that the disk is full."""

    def __init__(self, file) -> None:
        self.file, self.calls = file, 0

    def write(self, data: memoryview) -> int:
        self.calls += 1
        if self.calls > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data[: len(data) // 2])

    def __getattr__(self, name: str):
        return getattr(self.file, name)


def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    run(tmp_path, 1, 3)
    path = tmp_path / "metrics.jsonl"
    before = path.read_bytes()
    writer = MetricWriter(tmp_path, resume_step=3)
    writer._metrics._file = FillingDisk(writer._metrics._file)
    with pytest.raises(VgenError, match=r"metrics\.jsonl: cannot be written \(No space left on device\)"):
        writer.scalars(4, {"loss": 1.0})
    writer.close()
    assert path.read_bytes() == before


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VgenError, match="file/run: cannot be written"):
        MetricWriter(tmp_path / "file" / "run")


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "is_main_process", lambda: False)
    run(tmp_path / "run", 1, 3)
    assert not (tmp_path / "run").exists()


def test_a_missing_file_and_a_metric_named_step_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VgenError, match="metrics.jsonl: no such file"):
        read_metrics(tmp_path / "metrics.jsonl")
    with MetricWriter(tmp_path) as writer, pytest.raises(VgenError, match="named 'step'"):
        writer.scalars(1, {"step": 1})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can begin a process's peak anew")
def test_the_peak_begins_anew() -> None:
    size = 64
    block = np.ones(size * 2**20, np.uint8)
    assert block.sum() == block.size
    before = log.peak_mib()
    del block
    assert log.forget_peak()
    assert log.peak_mib() < before - size / 2
