"""Mazes in the engine: what is rendered is what the ground truth says, and a seed is all that decides it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vgen_jax.config import section
from vgen_jax.data.check import check_data
from vgen_jax.data.records import EpisodeSource, read_info
from vgen_jax.metrics.walls import Walls, columns_right
from vgen_jax.simulators.collect import CollectConfig, collect, make_simulator, record_episode
from vgen_jax.simulators.maze import PATTERNED, PLAIN, MazeSimulator
from vgen_jax.simulators.maze_layout import COLORS, WALL, MazeConfig
from vgen_jax.simulators.maze_view import colors_seen, column_angles, wall_shades, walls_seen
from vgen_jax.simulators.maze_wad import CEILING_RGB, CELL, SHADE_RGB, WALL_RGB, spots
from vgen_jax.simulators.paths import PathsConfig, read_script
from vgen_jax.types import VgenError

pytestmark = pytest.mark.simulator
SMALL = dataclasses.replace(PLAIN, grid=6, rooms=6)  # of one block only a few mazes are looked at
CONFIG = CollectConfig("maze_plain", "train", 34, 16, (32, 32), 4, 2, 0, 1, SMALL)
RGB = np.asarray(WALL_RGB, float)
EYE = 31  # the row of 64 that looks ahead
STAY = np.zeros(3, np.float32)


@pytest.fixture(scope="module")
def simulator() -> Iterator[MazeSimulator]:
    simulator = MazeSimulator((64, 64), 4, PLAIN)
    yield simulator
    simulator.close()


def turned(degrees: float) -> np.ndarray:
    return np.array([degrees, 0, 0], np.float32)


def apart(pixels_N3: np.ndarray) -> np.ndarray:
    """How far pixels are from each colour of the palette, (N, 12)."""
    return np.linalg.norm(pixels_N3[:, None].astype(float) - RGB, axis=-1)


def rows_at_eye_level(simulator: MazeSimulator, scenes: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels (N, 3) at eye level of every wall column, and the colour that it has to have."""
    pixels, wanted = [], []
    for number, scene in enumerate(simulator.scenes("validation")[:scenes]):
        simulator.reset(number, scene)
        layout = simulator.layout(scene)
        for _ in range(8):
            seen = simulator.step(turned(45))
            walls = walls_seen(layout.room_YX, seen.pose, column_angles(64))
            pixels.append(seen.frame_HWC[EYE])
            wanted.append(layout.color_R2[walls.room, walls.axis])
    return np.concatenate(pixels), np.concatenate(wanted)


def test_walls_have_the_colours_that_the_rays_say(simulator: MazeSimulator) -> None:
    pixels, wanted = rows_at_eye_level(simulator, 12)
    assert (apart(pixels).argmin(1) == wanted).mean() >= 0.97
    found = np.stack([np.median(pixels[wanted == color], axis=0) for color in range(COLORS)])
    np.testing.assert_allclose(found, RGB, atol=4)  # as rendered, not as drawn
    between = np.linalg.norm(found[:, None] - found[None], axis=-1)
    assert between[~np.eye(COLORS, dtype=bool)].min() > 55


def longest(flags_W: np.ndarray) -> int:
    """The most flags that are set in a row."""
    return max(map(len, "".join("01"[int(flag)] for flag in flags_W).split("0")))


def test_there_is_no_hole(simulator: MazeSimulator) -> None:
    """From the middle of every cell, looking four ways: walls at eye level, ceiling above, floor below."""
    scene = simulator.scenes("train")[3]
    simulator.reset(0, scene)
    for x, y in spots(simulator.layout(scene)).tolist():
        simulator._engine.place(x, y)
        for _ in range(4):
            seen = simulator.step(turned(90))
            assert np.abs(seen.pose[:2] - (x, y)).max() < 1
            assert longest(apart(seen.frame_HWC[EYE]).min(1) > 25) < 4, "wider than where two walls are blended"
            ceiling = np.linalg.norm(seen.frame_HWC[0].astype(float) - CEILING_RGB, axis=-1)
            assert longest(np.minimum(ceiling, apart(seen.frame_HWC[0]).min(1)) > 40) < 4
            assert (seen.frame_HWC.reshape(-1, 3).max(1) > 0).all(), "black is in no texture"


def played(simulator: MazeSimulator, seed: int, scene: str) -> tuple[np.ndarray, np.ndarray]:
    first = simulator.reset(seed, scene)
    rest = [simulator.step(np.array([9, 0.5, 0.1], np.float32)) for _ in range(6)]
    return np.stack([first.frame_HWC, *[s.frame_HWC for s in rest]]), np.stack([first.pose, *[s.pose for s in rest]])


def test_the_past_of_a_process_does_not_matter(simulator: MazeSimulator) -> None:
    """Another maze, another block of mazes and a death in between, or a process of its own."""
    frames, poses = played(simulator, 5, "maze/42")
    played(simulator, 6, "maze/43")
    for between in ("maze/42", "maze/7", "maze/100000012"):
        played(simulator, 9, between)
        for one, other in zip(played(simulator, 5, "maze/42"), (frames, poses), strict=True):
            np.testing.assert_array_equal(one, other)
    fresh = MazeSimulator((64, 64), 4, PLAIN)
    for one, other in zip(played(fresh, 5, "maze/42"), (frames, poses), strict=True):
        np.testing.assert_array_equal(one, other)
    fresh.close()
    for seed, scene in ((6, "maze/42"), (5, "maze/43")):
        assert not np.array_equal(played(simulator, seed, scene)[0], frames)


def test_a_start_is_in_an_open_cell(simulator: MazeSimulator) -> None:
    layout = simulator.layout("maze/8")
    starts = [simulator.reset(seed, "maze/8").pose for seed in range(12)]
    cells = np.floor(np.stack(starts)[:, 1::-1] / CELL).astype(int)
    assert (layout.room_YX[tuple(cells.T)] != WALL).all() and len({tuple(cell) for cell in cells.tolist()}) > 3


def test_scenes_are_named_by_their_seeds(simulator: MazeSimulator) -> None:
    train, validation = simulator.scenes("train"), simulator.scenes("validation")
    assert len(train) == 4000 and len(validation) == 400 and not set(train) & set(validation)
    with pytest.raises(VgenError, match="'test'"):
        simulator.scenes("test")
    for scene in (
        "maze",
        "maze/",
        "maze/a",
        "maze/-1",
        "maze/007",
        "maze/1.5",
        "maze/²",
        "freedoom2/map01",
        "x/maze/1",
    ):
        with pytest.raises(VgenError, match="is no maze: name one like maze/123") as caught:
            simulator.layout(scene)
        assert "\n" not in str(caught.value)


def test_landmarks_are_seen() -> None:
    """From the side of a room's landmark the picture is another one than without it."""
    marked, empty = (MazeSimulator((64, 64), 4, dataclasses.replace(PLAIN, landmarks=count)) for count in (6, 0))
    layout = marked.layout("maze/1")
    changed = 0
    for simulator in (marked, empty):
        simulator.reset(0, "maze/1")
    for y, x in layout.landmark_Y2.tolist():
        views = []
        for simulator in (marked, empty):
            simulator._engine.place(x * CELL + 96, y * CELL + 30)
            views.append(np.stack([simulator.step(turned(90)).frame_HWC for _ in range(4)]))
        changed += (np.abs(views[0].astype(int) - views[1]).max(-1) > 30).sum() > 20
    for simulator in (marked, empty):
        simulator.close()
    assert changed == len(layout.landmark_Y2) == 6


@pytest.mark.parametrize(("world", "least"), [(PLAIN, 0.98), (PATTERNED, 0.965)], ids=["plain", "patterned"])
def test_real_frames_have_the_right_walls(world: MazeConfig, least: float) -> None:
    """The instrument's own error, and that it tells the right walls from those of another place."""
    simulator = MazeSimulator((64, 64), 4, world)
    videos, truths = [], []
    for number, scene in enumerate(simulator.scenes("validation")[:12]):
        frames, poses = played(simulator, number, scene)
        videos.append(frames)
        truths.append(colors_seen({**simulator.extras(poses), "pose": poses}, 64))
    simulator.close()
    right = [columns_right(video, truth, wall_shades()) for video, truth in zip(videos, truths, strict=True)]
    metric = Walls()
    results = metric.compute(metric.update(metric.init(), right=right))
    assert results["walls_columns"] >= least and results["walls_frames"] >= 0.97
    elsewhere = [columns_right(videos[n], truths[n - 1], wall_shades()) for n in range(12)]
    assert np.mean(elsewhere) < 0.3


def test_shades_are_rendered_as_they_are_listed() -> None:
    simulator = MazeSimulator((64, 64), 4, PATTERNED)
    pixels, wanted = rows_at_eye_level(simulator, 24)
    simulator.close()
    for color in np.unique(wanted):
        found, count = np.unique(pixels[wanted == color], axis=0, return_counts=True)
        if count.sum() > 300:
            common = {tuple(rgb) for rgb in found[np.argsort(count)[-2:]].tolist()}
            assert common == {WALL_RGB[color], SHADE_RGB[color]}


def gradients(frames: np.ndarray) -> float:
    return float(np.abs(np.diff(frames.astype(float), axis=2)).mean())


def test_the_patterned_world_has_patterns_and_lines() -> None:
    simulator = MazeSimulator((64, 64), 4, PATTERNED)
    frames = played(simulator, 5, "maze/42")[0]
    simulator.close()
    eye = np.linalg.norm(frames[:, EYE, :, None].astype(float) - RGB, axis=-1).min(-1)
    assert (eye > 25).mean() > 0.2, "half of a pattern is in the second shade"
    plain = MazeSimulator((64, 64), 4, PLAIN)
    floor, lined = played(plain, 5, "maze/42")[0][:, 50:], frames[:, 50:]
    plain.close()
    assert gradients(lined) > 2 * gradients(floor)


def test_wrong_worlds_are_one_line() -> None:
    values = dataclasses.asdict(CONFIG)
    for changes, fault in (
        ({"simulator": "vizdoom"}, r"collect\.maze is given, but collect\.simulator is 'vizdoom'"),
        ({"maze": {**values["maze"], "colors": 13}}, r"collect\.maze\.colors is 13"),
        ({"maze": {**values["maze"], "wall": 1}}, r"collect\.maze\.wall is unknown"),
        ({"maze": {k: v for k, v in values["maze"].items() if k != "grid"}}, r"collect\.maze\.grid is missing"),
    ):
        with pytest.raises(VgenError, match=fault) as caught:
            section(CollectConfig, {**values, **changes}, "collect")
        assert "\n" not in str(caught.value)
    assert section(CollectConfig, values, "collect").maze == SMALL
    assert section(CollectConfig, {k: v for k, v in values.items() if k != "maze"}, "collect").maze is None


def test_worlds_have_their_defaults() -> None:
    for name, world in (("maze_plain", PLAIN), ("maze_patterned", PATTERNED)):
        simulator = make_simulator(dataclasses.replace(CONFIG, simulator=name, maze=None))
        assert isinstance(simulator, MazeSimulator) and simulator.config == world
        simulator.close()


@pytest.mark.slow
def test_records_keep_the_ground_truth(tmp_path: Path) -> None:
    assert collect(tmp_path, CONFIG).frames == 34
    assert not check_data(tmp_path).faults
    info = read_info(tmp_path)
    assert (info.source, info.simulator) == ("maze_plain", "maze")
    source = EpisodeSource(tmp_path, "train")
    simulator = make_simulator(CONFIG)
    assert isinstance(simulator, MazeSimulator)
    for number in range(2):
        episode = source.episode(number)
        layout = simulator.layout(episode.scene)
        pose = episode.extras["pose"]
        np.testing.assert_array_equal(episode.extras["rooms"], layout.room_YX)
        np.testing.assert_array_equal(episode.extras["wall_colors"], layout.color_R2)
        np.testing.assert_array_equal(episode.extras["palette"], np.asarray(WALL_RGB, np.uint8))
        np.testing.assert_array_equal(episode.extras["cell"], np.floor(pose[:, 1::-1] / CELL))
        assert (layout.room_YX[tuple(episode.extras["cell"].T)] != WALL).all()
    again = record_episode(simulator, CONFIG, episode.scene, episode.seed)
    simulator.close()
    assert again is not None
    np.testing.assert_array_equal(again.frames_THWC, episode.frames_THWC)
    with pytest.raises(VgenError, match="before its first reset"):
        make_simulator(CONFIG).extras(episode.extras["pose"])


@pytest.mark.slow
def test_paths_are_recorded(tmp_path: Path) -> None:
    paths = PathsConfig("validation", 2, 64, ("look", "walk"))
    config = dataclasses.replace(CONFIG, split="revisit_64", episode_steps=64, frames=2 * 65)
    assert collect(tmp_path, config, paths).frames == 130
    source = EpisodeSource(tmp_path, "revisit_64")
    for number, kind in enumerate(paths.kinds):
        extras = source.episode(number).extras
        assert read_script(extras).kind == kind and {"rooms", "cell", "wall_colors", "palette"} <= set(extras)
