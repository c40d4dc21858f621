"""The robot among figures: the same seed the same drive, what it is told it does, and walls stop it."""

import dataclasses

import numpy as np
import pytest

from vgen_jax.simulators.base import Simulator
from vgen_jax.simulators.robot import FPS, HELD, SPEED, TURN, Driver, RobotConfig, RobotSimulator
from vgen_jax.simulators.robot_view import Figures, Hall, distances, draw
from vgen_jax.simulators.world import SimulatorWorld
from vgen_jax.types import VgenError

CONFIG = RobotConfig(
    split="train", episodes=3, steps=60, size=(16, 24), figures=3, boxes=4, side=1.6, episodes_per_shard=2, seed=0,
    workers=1,
)  # fmt: skip
NOBODY = Figures(np.zeros((0, 2, 2)), np.zeros(0), np.zeros(0), np.zeros((0, 2, 3), np.float32))
EMPTY = Hall(1.6, np.zeros((0, 4)), np.full((4, 3), 200, np.float32), np.full((2, 3), 90, np.float32))


def drives() -> list:
    return [episode for shard in range(CONFIG.shards) for episode in CONFIG.open().record(shard)]


def test_drives_depend_on_the_plan_alone() -> None:
    found, again = drives(), drives()
    assert len(found) == 3
    for a, b in zip(found, again, strict=True):
        np.testing.assert_array_equal(a.frames_THWC, b.frames_THWC)
    np.testing.assert_array_equal(next(CONFIG.open().record(1)).frames_THWC, found[2].frames_THWC)
    assert len({episode.scene for episode in found}) == 3
    assert not set(RobotSimulator((8, 8)).scenes("train")) & set(RobotSimulator((8, 8)).scenes("validation"))


def test_commands_are_held_and_are_within_roams_range() -> None:
    for episode in drives():
        held = episode.actions["continuous"].reshape(-1, HELD, 2)
        assert (held == held[:, :1]).all() and len(np.unique(held[:, 0], axis=0)) > 3
        assert (np.abs(held) <= np.float32((SPEED, TURN)) * 1.0001).all() and (held[..., 0] >= 0).all()


def test_it_does_what_it_is_told_after_a_while() -> None:
    simulator: Simulator = RobotSimulator((8, 8), figures=0, boxes=0)
    assert isinstance(simulator, RobotSimulator)
    start = simulator.reset(1, "robot/5").pose
    poses = np.stack([start, *(simulator.step(np.array([SPEED, 0.9])).pose for _ in range(20))])
    turns = np.diff(poses[:, 3])
    assert turns[0] < turns[2] <= turns[-1] and abs(turns[-1] - np.degrees(0.9) / FPS) < 1e-3
    speeds = np.linalg.norm(np.diff(poses[:, :2], axis=0), axis=1)
    assert speeds[0] < speeds[2] and abs(speeds[-1] - SPEED / FPS) < 1e-5


def test_walls_stop_it() -> None:
    simulator = RobotSimulator((8, 8), figures=0, boxes=0)
    simulator.reset(1, "robot/5")
    for _ in range(400):
        last = simulator.step(np.array([SPEED, 0.0]))
    assert 0.05 < min(*last.pose[:2], *(1.6 - last.pose[:2])) < 0.08
    assert abs(simulator.clearance()[1]) < 0.3


def test_rays_meet_the_nearest_wall() -> None:
    hall = EMPTY._replace(box_N4=np.array([[1.0, 0.6, 1.2, 1.0]]), color_S3=np.zeros((8, 3), np.float32))
    rays = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    far, wall, along = distances(hall, np.array([0.8, 0.8]), rays)
    np.testing.assert_allclose(far, [0.2, 0.8, 0.8, 0.2])
    np.testing.assert_array_equal(wall, [4, 0, 3, 4])
    np.testing.assert_allclose(along, [0.8, 0.8, 0.8, 1.0])


def test_a_turn_moves_the_picture_and_a_figure_covers_the_wall() -> None:
    place = np.array([0.8, 0.8])
    views = [draw(EMPTY, NOBODY, place, heading, 0.0, (32, 32)) for heading in (0.0, 0.0, 0.2)]
    np.testing.assert_array_equal(views[0], views[1])
    assert np.abs(views[0].astype(int) - views[2]).mean() > 1.0
    red = np.array([[[250.0, 0, 0], [250.0, 0, 0]]], np.float32)
    before = Figures(np.full((1, 2, 2), (1.1, 0.8)), np.ones(1), np.zeros(1), red)
    behind = before._replace(ends_K22=np.full((1, 2, 2), (0.5, 0.8)))
    seen = [
        (draw(EMPTY, figures, place, 0.0, 0.0, (32, 32))[..., 1] < 60).mean() for figures in (before, behind, NOBODY)
    ]
    assert seen[0] > 0.02 and seen[1] == seen[2] == 0.0


def test_figures_cross_the_view() -> None:
    episode = drives()[0]
    still = RobotSimulator(CONFIG.size)
    first = still.reset(episode.seed, episode.scene).frame_HWC
    later = [still.step(np.zeros(2)).frame_HWC for _ in range(100)]
    np.testing.assert_array_equal(first, episode.frames_THWC[0])
    assert any((frame != first).any() for frame in later)


def test_the_driver_turns_away_from_what_is_near() -> None:
    driver = Driver(0)
    near = driver.next((0.5, 0.1, 0.3))
    assert near[0] == 0 and near[1] > 0.5 and Driver(0).next((0.3, 0.1, 0.5))[1] < -0.5
    assert driver.next((1.0, 1.0, 1.0))[0] > 0.3 * SPEED


def test_it_is_a_world_and_says_what_it_cannot() -> None:
    world = SimulatorWorld(RobotSimulator((8, 8)), "robot/3")
    _, step = world.step(world.start(), "go forward")
    assert step.frames_BTHWC.shape == (1, HELD, 8, 8, 3) and np.allclose(step.actions[0, :, 0], SPEED)
    for change in ({"steps": 61}, {"size": (12, 16)}, {"side": 0.5}, {"episodes": 0}):
        with pytest.raises(VgenError):
            dataclasses.replace(CONFIG, **change)
    with pytest.raises(VgenError, match="no halls"):
        RobotSimulator((8, 8)).scenes("test")
    with pytest.raises(VgenError, match="reset it"):
        RobotSimulator((8, 8)).clearance()
