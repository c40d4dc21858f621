"""The report stands on its own, escapes what it is given, and names what it lacks."""

import base64
import re
from pathlib import Path

import numpy as np
import pytest

from vgen_jax.files import report
from vgen_jax.files.log import MetricWriter
from vgen_jax.files.media import VideoWriter, write_png
from vgen_jax.files.report import Image, Plot, Table, Text, Video, command_line, metric_curves, write_report
from vgen_jax.types import VgenError


def curve_segments(page: str) -> int:
    """Number of lines that join the points of the first curve of a page's first plot."""
    svg = base64.b64decode(re.search(r"data:image/svg\+xml;base64,([^\"]+)", page).group(1)).decode()
    path = re.search(r'<path d="([^"]+)"[^>]*stroke: #1f77b4', svg).group(1)
    return path.count("L")


def test_the_page_is_self_contained(tmp_path: Path) -> None:
    write_png(tmp_path / "sheet.png", np.zeros((8, 8, 3), np.uint8))
    with VideoWriter(tmp_path / "rollout.mp4", 8, (16, 16)) as writer:
        writer.write(np.zeros((4, 16, 16, 3), np.uint8))
    sections = [
        Image(tmp_path / "sheet.png", "Sheet"),
        Video(tmp_path / "rollout.mp4", "Rollout"),
        Plot({"loss": ([0, 1], [2.0, 1.0])}, "Loss"),
    ]
    page = write_report(tmp_path, "Run", sections, command="python -m vgen_jax.main").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert [source.split(";")[0] for source in sources] == ["data:image/png", "data:video/mp4", "data:image/svg+xml"]
    assert base64.b64decode(sources[0].split(",")[1]) == (tmp_path / "sheet.png").read_bytes()


def test_everything_is_escaped(tmp_path: Path) -> None:
    evil = '<script>"x"&</script>'
    sections = [Text(evil, evil), Table([evil], [[evil]], evil, evil), Plot({evil: ([0], [1.0])}, evil)]
    page = write_report(tmp_path, evil, sections, command=evil, config={evil: evil}).read_text()
    assert "<script" not in page and page.count("&lt;script&gt;") >= 9


def test_the_command_config_and_versions_are_there(tmp_path: Path) -> None:
    page = write_report(tmp_path, "Run", [], command="run --this", config={"optimizer": {"rate": 1e-4}}).read_text()
    for text in ("run --this", "&#34;rate&#34;: 0.0001", "python", "jaxlib"):
        assert text in page
    (tmp_path / "config.json").write_text("{}")
    page = write_report(tmp_path, "Run", []).read_text()
    assert '<a href="config.json">config.json</a>' in page and "results.json" not in page


def test_the_command_is_that_of_this_program() -> None:
    started = ["/somewhere/vgen_jax/main.py", "--config=quickstart", "--config.title=two words"]
    assert command_line(started) == "python -m vgen_jax.main --config=quickstart '--config.title=two words'"
    assert command_line(["/usr/bin/pytest", "-q"]) == ""


def test_numbers_are_readable(tmp_path: Path) -> None:
    row = ["psnr", np.float32(24.123456), 12345678, 123456.7, float("nan"), True, None]
    page = write_report(tmp_path, "Run", [Table([""] * 7, [row])]).read_text()
    cells = re.findall(r"<td( class=\"number\")?>([^<]*)</td>", page)[:7]
    assert [text for _, text in cells] == ["psnr", "24.12", "12,345,678", "123,457", "nan", "True", ""]
    assert [bool(number) for number, _ in cells] == [False, True, True, True, True, False, False]


def test_large_files_are_linked_relative_to_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_png(tmp_path / "samples" / "big.png", np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr(report, "INLINE_BYTES", 10)
    page = write_report(tmp_path / "run", "Run", [Image(tmp_path / "samples" / "big.png")]).read_text()
    assert 'href="../samples/big.png"' in page


def test_curves_come_from_the_metrics_file(tmp_path: Path) -> None:
    with MetricWriter(tmp_path) as writer:
        for step, loss in enumerate([3.0, np.nan, 2.0, np.inf, 1.0]):
            writer.scalars(step, {"loss": loss})
        writer.scalars(9, {"eval/loss": 1.0})
    plot = metric_curves(tmp_path / "metrics.jsonl", ["loss", "eval/loss"])
    assert plot.curves["loss"][0] == [0, 1, 2, 3, 4] and plot.curves["eval/loss"] == ([9], [1.0])
    with pytest.raises(VgenError, match="no metric 'los'; it holds eval/loss, loss"):
        metric_curves(tmp_path / "metrics.jsonl", ["los"])


def test_points_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    ys = [3.0, float("nan"), 5.0, float("inf"), 1.0]
    page = write_report(tmp_path, "Run", [Plot({"loss": (range(5), ys)})]).read_text()
    assert curve_segments(page) == 2, "the three finite points are joined"


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        (Image("absent.png"), "absent.png: no such file"),
        (Video("absent.mp4"), "absent.mp4: no such file"),
        (Image("clip.mp4"), "clip.mp4: cannot be shown as image"),
        (Video("frame.png"), "frame.png: cannot be shown as video"),
    ],
)
def test_what_cannot_be_shown_is_named(tmp_path: Path, section: report.Section, fault: str) -> None:
    with pytest.raises(VgenError, match=fault):
        write_report(tmp_path, "Run", [section])
    assert not (tmp_path / "report.html").exists()


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VgenError, match="report.html: cannot be written"):
        write_report(tmp_path / "file", "Run", [])
