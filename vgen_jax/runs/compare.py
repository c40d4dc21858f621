"""Run ``compare``: videos of several ``generate`` runs along the same commands, side by side, and how places come back.

Where the camera is follows from the commands: a turn and its reverse lead back to the same heading, and to the same
view. What was generated at the first and at a later visit is compared frame by frame, without loss. This looks at one
video; whether a memory helps is for the revisit benchmark to say, on many.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vgen_jax.config import Sections, later, section
from vgen_jax.data.records import read_info
from vgen_jax.data.revisits import revisits
from vgen_jax.data.schema import DatasetInfo
from vgen_jax.data.units import units_of
from vgen_jax.evaluation.place_encoder import Place, load_place
from vgen_jax.files import media, report
from vgen_jax.files.run_folder import RESULTS_FILE, keep_config, write_results
from vgen_jax.files.videos import START_CAPTION, read_frames, read_same_texts
from vgen_jax.metrics.revisit import revisit_distance, revisit_psnr
from vgen_jax.metrics.scene_return import scene_return
from vgen_jax.metrics.sharpness import sharpness
from vgen_jax.types import VgenError
from vgen_jax.worlds.actions import commanded_pose


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """What is compared.

    Attributes:
        folders: a title -> the work directory of a ``generate`` run.
        baseline: the title of the run that the others are compared with, and that stands on the left.
        video: the number of the video in each.
        model_dir: the slow model of all of them, whose ``dataset.json`` tells what the commands do.
        place_dir: the export of a place encoder, for what the pictures of a place have in common.
        map_units: that a forward or sideways action of 1 moves in a step; 0 for what the data's simulator declares.
    """

    folders: dict[str, str]
    baseline: str
    video: int
    model_dir: str
    place_dir: str
    map_units: float = later(0.0)

    def __post_init__(self) -> None:
        if len(self.folders) < 2:
            raise VgenError("config key compare.folders names fewer than two runs: name two or more")
        if self.baseline not in self.folders:
            raise VgenError(f"config key compare.baseline is '{self.baseline}': use one of {', '.join(self.folders)}")


SECTIONS: Sections = {"compare": CompareConfig}


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes ``samples/side_by_side.mp4``, ``results.json``, ``report.html``."""
    keep_config(config, workdir)
    settings = section(CompareConfig, config.compare.to_dict(), "compare")
    titles = sorted(settings.folders, key=lambda title: (title != settings.baseline, title))
    folders = {title: Path(settings.folders[title]) for title in titles}
    texts = read_same_texts(folders)
    videos = {title: read_frames(folder, settings.video) for title, folder in folders.items()}
    info = read_info(settings.model_dir)
    units = units_of(info.simulator)
    pairs_N2 = revisits(commanded_pose(info, texts, settings.map_units or units.run), units)
    if not len(pairs_N2):
        raise VgenError("the commands of these videos never come back to a view: use others, a turn and its reverse")
    place = load_place(Path(settings.place_dir))
    results = compared(videos, pairs_N2, place) | {
        f"seconds/{title}": seconds(folder) for title, folder in folders.items()
    }
    write_results(workdir, results)
    path = workdir / "samples" / "side_by_side.mp4"
    write_side_by_side(path, videos, texts, info)
    shown = {
        "PSNR between visits, dB": "revisit_psnr", "SRC": f"src_{place.name}", "distance": f"lpips_{place.name}",
        "sharpness ÷ the left one's": "relative_sharpness", "seconds": "seconds",
    }  # fmt: skip
    rows = [(title, *(results[f"{name}/{title}"] for name in shown.values())) for title in videos]
    sections: list[report.Section] = [
        report.Video(path, title="Side by side", caption="The commands stand under the frames."),
        report.Table(
            ("memory", *shown),
            rows,
            title=f"{len(pairs_N2)} frames that show a view again",
            caption=f"Between the first and the later visit; SRC and distance by {place.name}. A blank picture comes "
            "back perfectly, so none of this counts where the sharpness has gone; and one video proves nothing: the "
            "revisit benchmark measures many.",
        ),
    ]
    report.write_report(workdir, "The same commands, side by side", sections, config=config.to_dict())


def seconds(folder: Path) -> float:
    """How long a ``generate`` run took."""
    return float(json.loads((folder / RESULTS_FILE).read_text())["seconds"])


def compared(videos: Mapping[str, np.ndarray], pairs_N2: np.ndarray, place: Place) -> dict[str, Any]:
    """``<metric>/<title>`` of each video; the first one is the baseline."""
    first = next(iter(videos.values()))
    results: dict[str, Any] = {"frames": len(first) - 1, "revisits": len(pairs_N2)}
    for title, video in videos.items():
        results[f"revisit_psnr/{title}"] = revisit_psnr(video, pairs_N2)
        results[f"src_{place.name}/{title}"] = scene_return(place.embed(video), pairs_N2)
        results[f"lpips_{place.name}/{title}"] = revisit_distance(place.layers, video, pairs_N2)
        results[f"relative_sharpness/{title}"] = sharpness(video[1:], first[1:])
    return results


def write_side_by_side(
    path: Path, videos: Mapping[str, np.ndarray], texts: Sequence[tuple[int, str]], info: DatasetInfo
) -> None:
    """All videos next to each other under their titles, with the commands under the frames."""
    joined = media.side_by_side(list(videos.values()), list(videos))
    starts = [0, *(frame for frame, _ in texts), len(joined)]
    captions = [START_CAPTION, *(text for _, text in texts)]
    spans = zip(captions, itertools.pairwise(starts), strict=True)
    each = [text for text, (begin, end) in spans for _ in range(end - begin)]
    captioned = media.caption_frames(joined, each)
    with media.VideoWriter(path, info.fps, captioned.shape[1:3]) as writer:
        writer.write(captioned)
