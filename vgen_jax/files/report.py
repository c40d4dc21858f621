"""``report.html``: one self-contained page with a run's numbers, curves, pictures and videos.

Everything is inlined, so the page can be mailed or opened from a download folder; only files above ``INLINE_BYTES`` are
linked, relative to the page. All text is escaped.
"""

import base64
import importlib.metadata
import io
import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jinja2
from matplotlib.figure import Figure

from vgen_jax.files.log import METRICS_FILE, read_metrics
from vgen_jax.files.run_folder import CONFIG_FILE, RESULTS_FILE
from vgen_jax.types import VgenError

REPORT_FILE = "report.html"
INLINE_BYTES = 16 * 2**20
LINKED = (CONFIG_FILE, RESULTS_FILE, METRICS_FILE)  # files of the run's folder that the page names
PACKAGES = ("vgen_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "av")
MIME = {".png": "image/png", ".jpg": "image/jpeg", ".gif": "image/gif", ".svg": "image/svg+xml", ".mp4": "video/mp4"}


@dataclass(frozen=True)
class Text:
    """A paragraph; blank lines part it into several."""

    kind: ClassVar[str] = "text"
    text: str
    title: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells. Numbers are shown with four significant digits."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Plot:
    """Curves of (x, y) points: ``{label: (xs, ys)}``. Points that are not finite are left out."""

    kind: ClassVar[str] = "plot"
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    title: str = ""
    x_label: str = "step"
    y_label: str = ""
    log_y: bool = False
    caption: str = ""


@dataclass(frozen=True)
class Image:
    """A .png, .jpg, .gif or .svg file."""

    kind: ClassVar[str] = "image"
    path: str | os.PathLike[str]
    title: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Video:
    """An .mp4 file."""

    kind: ClassVar[str] = "video"
    path: str | os.PathLike[str]
    title: str = ""
    caption: str = ""


Section = Text | Table | Plot | Image | Video


def metric_curves(path: str | os.PathLike[str], names: Sequence[str], title: str = "", log_y: bool = False) -> Plot:
    """A plot of some metrics of a ``metrics.jsonl`` against the step.

    Raises:
        VgenError: the file lacks a metric; the message lists those which it has.
    """
    entries = read_metrics(path)
    known = sorted({name for entry in entries for name in entry} - {"step"})
    for name in names:
        if name not in known:
            raise VgenError(f"{path}: holds no metric {name!r}; it holds {', '.join(known) or 'none'}")
    curves = {}
    for name in names:
        points = [(entry["step"], entry[name]) for entry in entries if name in entry]
        curves[name] = ([step for step, _ in points], [value for _, value in points])
    return Plot(curves, title=title, y_label=names[0] if len(names) == 1 else "", log_y=log_y)


def write_report(
    workdir: str | os.PathLike[str],
    title: str,
    sections: Sequence[Section],
    command: str = "",
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``report.html`` into ``workdir`` and return its path.

    Args:
        workdir: the run's folder; created where it is missing.
        title: the page's heading.
        sections: shown in this order; ``command``, ``config`` and the installed versions follow them.
        command: what regenerates the page; empty for the command line of this program, if it is one of this package.
        config: the resolved configuration, anything that JSON can hold.

    Raises:
        VgenError: a picture or video that is missing or of an unknown type, or a page that cannot be written.
    """
    folder = Path(workdir)
    loader = jinja2.PackageLoader("vgen_jax.files")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.get_template("report.html").render(
        title=title,
        sections=[_view(section, folder) for section in sections],
        command=command or command_line(sys.argv),
        files=[name for name in LINKED if (folder / name).is_file()],
        config=json.dumps(config, indent=2, default=str) if config else "",
        versions=_versions(),
    )
    path = folder / REPORT_FILE
    part = path.with_name(path.name + ".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise VgenError(f"{path}: cannot be written ({error.strerror}); choose a folder that can") from error
    return path


def command_line(arguments: Sequence[str]) -> str:
    """The command that started this program; empty for a program that is not ``vgen_jax.main``."""
    if Path(arguments[0]).parts[-2:] != ("vgen_jax", "main.py"):
        return ""
    return shlex.join(["python", "-m", "vgen_jax.main", *arguments[1:]])


def _view(section: Section, folder: Path) -> dict[str, Any]:
    """What the template shows of a section."""
    view: dict[str, Any] = {"kind": section.kind, "title": section.title, "caption": ""}
    if isinstance(section, Text):
        return view | {"paragraphs": [part.strip() for part in section.text.split("\n\n") if part.strip()]}
    view["caption"] = section.caption
    if isinstance(section, Table):
        return view | {"columns": section.columns, "rows": [[_cell(cell) for cell in row] for row in section.rows]}
    if isinstance(section, Plot):
        return view | {"kind": "image", "source": _data_uri(_draw(section), ".svg"), "inlined": True}
    path = Path(section.path)
    suffix = path.suffix.lower()
    if suffix not in MIME or (section.kind == "video") != (suffix == ".mp4"):
        raise VgenError(f"{path}: cannot be shown as {section.kind}; pictures are .png, .jpg, .gif, .svg, videos .mp4")
    if not path.is_file():
        raise VgenError(f"{path}: no such file; write it before the report")
    if path.stat().st_size > INLINE_BYTES:
        return view | {"source": Path(os.path.relpath(path, folder)).as_posix(), "inlined": False}
    return view | {"source": _data_uri(path.read_bytes(), suffix), "inlined": True}


def _cell(value: Any) -> dict[str, Any]:
    """A cell's text, and whether it is a number. Accepts NumPy and JAX scalars."""
    if isinstance(value, str | bool) or value is None:
        return {"text": "" if value is None else str(value), "number": False}
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        large = math.isfinite(value) and abs(value) >= 1e4
        return {"text": f"{value:,.0f}" if large else f"{value:.4g}", "number": True}
    return {"text": f"{value:,}" if isinstance(value, int) else str(value), "number": isinstance(value, int)}


def _data_uri(content: bytes, suffix: str) -> str:
    return f"data:{MIME[suffix]};base64,{base64.b64encode(content).decode()}"


def _draw(plot: Plot) -> bytes:
    """The plot as SVG. Greys in the middle of the scale and no background suit a light and a dark page alike."""
    grey = "#808080"
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for label, (xs, ys) in plot.curves.items():
        points = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
        marker = "o" if len(points) == 1 else None
        axes.plot([x for x, _ in points], [y for _, y in points], label=label, linewidth=1.4, marker=marker)
    if plot.log_y:
        axes.set_yscale("log")
    axes.set_xlabel(plot.x_label, color=grey)
    axes.set_ylabel(plot.y_label, color=grey)
    axes.grid(color=grey, alpha=0.25, linewidth=0.6)
    axes.tick_params(colors=grey, which="both")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.patch.set_alpha(0)
    if len(plot.curves) > 1:
        axes.legend(frameon=False, labelcolor=grey)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True)
    return buffer.getvalue()


def _versions() -> dict[str, str]:
    versions = {"python": sys.version.split()[0], "platform": platform.platform()}
    devices = jax.devices()
    versions["devices"] = f"{len(devices)} x {devices[0].device_kind}"
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed as a package"
    return versions
