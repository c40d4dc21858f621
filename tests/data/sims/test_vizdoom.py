"""The real simulator: an action leads to the next frame, and nothing else decides it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vgen_jax.data.records import INFO_FILE, EpisodeSource, EpisodeWriter, write_text
from vgen_jax.data.schema import DatasetInfo, Episode
from vgen_jax.data.sims.collect import CollectConfig, record_episode
from vgen_jax.data.sims.vizdoom import VizDoomSimulator
from vgen_jax.data.windows import WindowIndex, WindowReader
from vgen_jax.types import VgenError

pytestmark = pytest.mark.simulator
CONFIG = CollectConfig("vizdoom", "train", 1, 128, (64, 64), 4, 1, 0, 1)


@pytest.fixture(scope="module")
def simulator() -> Iterator[VizDoomSimulator]:
    simulator = VizDoomSimulator((64, 64), 4)
    yield simulator
    simulator.close()


@pytest.fixture(scope="module")
def episode(simulator: VizDoomSimulator) -> Episode:
    recorded = record_episode(simulator, CONFIG, "freedoom2/map01", 1)
    assert recorded is not None
    return recorded


def turns(pose_TP: np.ndarray) -> np.ndarray:
    """Degrees turned between successive frames, in [-180, 180)."""
    return (np.diff(pose_TP[..., 3], axis=-1) + 180) % 360 - 180


def alignment_error(actions: np.ndarray, pose_TP: np.ndarray) -> float:
    """The largest disagreement (degrees) between commanded and seen turns."""
    return float(np.abs((actions[:, 0] - turns(pose_TP) + 180) % 360 - 180).max())


def test_an_action_leads_to_the_next_frame(episode: Episode) -> None:
    actions, pose = episode.actions["continuous"], episode.extras["pose"]
    assert np.abs(actions[:, 0]).max() > 5, "the episode turns"
    assert alignment_error(actions, pose) < 0.05
    for shift in (-1, 1):
        assert alignment_error(np.roll(actions, shift, axis=0), pose) > 5, "shifted actions must be noticed"


def test_windows_keep_the_alignment(tmp_path: Path, simulator: VizDoomSimulator, episode: Episode) -> None:
    """Simulator -> record -> file -> window: row t of ``action`` is the turn seen between frames t-1 and t."""
    with EpisodeWriter(tmp_path / "train-00000-of-00001.array_record") as writer:
        writer.write(episode)
    info = DatasetInfo(
        "vizdoom", "vizdoom", simulator.version, simulator.fps, (64, 64, 3), "frames", 4,
        {"continuous": simulator.action_space}, simulator.commands, {"train": (writer.info,)},
    )  # fmt: skip
    write_text(tmp_path / INFO_FILE, info.to_json())
    source = EpisodeSource(tmp_path, "train")
    read = WindowReader(source, 4, 8, "continuous", 64, True)
    index = WindowIndex(source.frames, 4, 4, 8)
    rolled = 0
    for n in range(len(index)):
        sample = read(index[n], n)
        raw = sample["action"] * np.asarray(simulator.action_space.scale, np.float32)
        assert alignment_error(raw[1:], sample["pose"]) < 0.05
        rolled += alignment_error(np.roll(raw[1:], 1, axis=0), sample["pose"]) > 5
    assert rolled > len(index) / 4


def test_the_picture_turns_with_the_action(simulator: VizDoomSimulator) -> None:
    """Turning left moves what is seen to the right: the best horizontal shift between frames has the action's sign."""
    before = simulator.reset(5, "freedoom2/map01").frame_HWC
    right = total = 0
    for sign in (1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, 1, 1, 1, 1):
        after = simulator.step(np.array([7.5 * sign, 0, 0], np.float32)).frame_HWC
        errors = {}
        for shift in (-7, -6, -5, 5, 6, 7):  # 7.5 of 74 degrees is about 6 of 64 columns
            moved = np.roll(before.astype(float), shift, axis=1)[20:44, 8:-8]
            errors[shift] = np.abs(moved - after.astype(float)[20:44, 8:-8]).mean()
        right += np.sign(min(errors, key=errors.__getitem__)) == sign
        total += 1
        before = after
    assert right >= total - 1


def test_commands_move_as_they_say(simulator: VizDoomSimulator) -> None:
    """In the player's own axes: forward is ahead, strafing to the right is to the right."""
    for name, axis, sign in (
        ("go forward", 0, 1),
        ("step back", 0, -1),
        ("strafe right", 1, 1),
        ("strafe left", 1, -1),
    ):
        command = next(c for c in simulator.commands if c.name == name)
        moved = []
        for seed in range(3):
            start = simulator.reset(seed, "freedoom2/map02").pose
            for action in np.asarray(command.actions, np.float32):
                end = simulator.step(action).pose
            heading = np.radians(start[3])
            ahead, right = (np.cos(heading), np.sin(heading)), (np.sin(heading), -np.cos(heading))
            moved.append([np.dot(end[:2] - start[:2], ahead), np.dot(end[:2] - start[:2], right)])
        best = max(m[axis] * sign for m in moved)
        assert best > 40, (name, moved)


def test_full_turns_do_not_drift(simulator: VizDoomSimulator) -> None:
    start = simulator.reset(2, "freedoom2/map03").pose[3]
    for _ in range(96):
        end = simulator.step(np.array([7.5, 0, 0], np.float32)).pose[3]
    assert abs((end - start + 180) % 360 - 180) < 0.05


def test_the_past_of_a_process_does_not_matter(simulator: VizDoomSimulator, episode: Episode) -> None:
    simulator.reset(9, "freedoom2/map15")
    for _ in range(5):
        simulator.step(np.array([3, 1, 0], np.float32))
    again = record_episode(simulator, CONFIG, "freedoom2/map01", 1)
    assert again is not None
    np.testing.assert_array_equal(again.frames_THWC, episode.frames_THWC)
    np.testing.assert_array_equal(again.extras["pose"], episode.extras["pose"])
    assert again.texts == episode.texts


def test_death_does_not_spoil_the_next_episode(simulator: VizDoomSimulator, episode: Episode) -> None:
    simulator.reset(9, "freedoom2/map15")
    simulator._engine._game.send_game_command("kill")
    for _ in range(10):
        if simulator.step(np.zeros(3, np.float32)).ended:
            break
    again = record_episode(simulator, CONFIG, "freedoom2/map01", 1)
    assert again is not None
    np.testing.assert_array_equal(again.frames_THWC, episode.frames_THWC)


def test_scenes(simulator: VizDoomSimulator) -> None:
    train, validation = simulator.scenes("train"), simulator.scenes("validation")
    assert len(train) == 24 and len(validation) == 6 and not set(train) & set(validation)
    assert all(scene.startswith("freedoom2/") for scene in train + validation)
    with pytest.raises(VgenError, match="'test'"):
        simulator.scenes("test")


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (128, 128)])
def test_sizes(size: tuple[int, int]) -> None:
    simulator = VizDoomSimulator(size, 4)
    frame = simulator.reset(0, "freedoom2/map01").frame_HWC
    simulator.close()
    assert frame.shape == (*size, 3) and frame.dtype == np.uint8 and frame.std() > 5


def test_wrong_sizes_are_refused() -> None:
    for size, fault in (((60, 64), "multiples of 8"), ((2048, 2048), "too large")):
        with pytest.raises(VgenError, match=fault):
            VizDoomSimulator(size, 4)


def test_it_leaves_nothing_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    VizDoomSimulator((32, 32), 4).close()
    assert not list(tmp_path.iterdir())
