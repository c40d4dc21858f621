"""SCuts equals what PySceneDetect's own command line finds in the same file."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vgen_jax.files.media import VideoWriter, read_video
from vgen_jax.metrics.scene_cuts import scene_cuts

FPS = 25.0  # at which the command line's shortest scene, 0.6 s, is the detector's own default of 15 frames


def video(size: tuple[int, int], lengths: tuple[int, ...]) -> np.ndarray:
    """One smooth picture a scene, in colours of its own, drifting."""
    rng = np.random.default_rng(0)
    height, width = size
    scenes = []
    for count in lengths:
        wide = gaussian_filter(rng.normal(size=(height, width + max(lengths), 3)), (4, 4, 0))
        wide = 128 + 40 * wide / wide.std() + rng.uniform(-80, 80, 3)
        scenes += [np.clip(wide[:, t : t + width], 0, 255) for t in range(count)]
    return np.stack(scenes).astype(np.uint8)


def by_command_line(path: Path) -> int:
    """Scenes less one."""
    command = [sys.executable, "-m", "scenedetect", "-i", str(path), "-o", str(path.parent), "-q"]
    done = subprocess.run([*command, "detect-adaptive", "list-scenes", "-s", "-q"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with (path.parent / f"{path.stem}-Scenes.csv").open() as file:
        return len(list(csv.DictReader(file))) - 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "lengths", "cuts"),
    [((64, 64), (20, 20, 20, 20), 3), ((48, 80), (30, 8, 30), None), ((270, 360), (20, 25, 16), None)],
)
def test_it_is_what_the_command_line_finds(
    size: tuple[int, int], lengths: tuple[int, ...], cuts: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "video.mp4"
    with VideoWriter(path, FPS, size) as writer:
        writer.write(video(size, lengths))
    found = scene_cuts(read_video(path), FPS)
    assert found == by_command_line(path) and cuts in (None, found)
    assert found > 0
