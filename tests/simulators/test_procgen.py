"""Procgen: an action leads to the next frame, no episode crosses a reset, and the fixed sets are what they say."""

import dataclasses
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vgen_jax.config import section
from vgen_jax.data.check import check_data
from vgen_jax.data.records import INFO_FILE, EpisodeSource, EpisodeWriter, write_text
from vgen_jax.data.shards import collect_shards
from vgen_jax.data.windows import WindowIndex, WindowReader
from vgen_jax.simulators.procgen import (
    ACTIONS,
    GAMES,
    Play,
    ProcgenConfig,
    ProcgenRecorder,
    ProcgenSimulator,
    pieces,
    random_actions,
    reduced,
)
from vgen_jax.types import VgenError

real = pytest.mark.simulator
needs_envpool = pytest.mark.skipif(
    importlib.util.find_spec("envpool") is None, reason="envpool is not installed: pip install -e '.[procgen]'"
)
CONFIG = ProcgenConfig("train", ("coinrun", "bossfight"), 0, 2, 60, 0, 0, (32, 32), 2, 0, 1)
LEFT, RIGHT, UP_RIGHT = (ACTIONS.index(name) for name in ("left", "right", "up right"))


class Counter:
    """A game whose frame shows (steps since the reset, number of the episode, last action); it ends every 7 steps."""

    version = "1"

    def play(self, game: str, level: int, action_T: np.ndarray) -> Play:
        shown, reset_T, since, episode = [(0, 0, 255)], [], 0, 0
        for action in action_T:
            over = since == 7
            since, episode = (0, episode + 1) if over else (since + 1, episode)
            reset_T.append(over)
            shown.append((since, episode, 255 if over else action))
        frames = np.asarray(shown, np.uint8)[:, None, None] * np.ones((1, 8, 8, 1), np.uint8)
        return Play(frames, np.asarray(reset_T))


@pytest.fixture(scope="module")
def simulator() -> ProcgenSimulator:
    return ProcgenSimulator((64, 64))


def test_no_window_crosses_a_reset(tmp_path: Path) -> None:
    """Without the game: whatever a play shows, a window is of one episode, and its actions lead to its frames."""
    config = dataclasses.replace(CONFIG, size=(8, 8))
    recorder = ProcgenRecorder(config, Counter())
    with EpisodeWriter(tmp_path / "train-00000-of-00001.array_record") as writer:
        for shard in range(config.shards):
            for episode in recorder.record(shard):
                writer.write(episode)
    info = dataclasses.replace(recorder.describe(), splits={"train": (writer.info,)})
    write_text(tmp_path / INFO_FILE, info.to_json())
    source = EpisodeSource(tmp_path, "train")
    assert sum(source.frames) >= config.visits * (config.steps - 2)
    read, index = WindowReader(source, 2, 3, "discrete", 0, False), WindowIndex(source.frames, info.chunk, 2, 3)
    assert len(index) > config.visits * config.steps / 3
    for n in range(len(index)):
        sample = read(index[n], n)
        since, number, action = sample["video"][:, 0, 0].T
        assert len(set(number)) == 1 and (np.diff(since.astype(int)) == 1).all()
        np.testing.assert_array_equal(sample["action"][1:].argmax(1), action[1:])


def test_pieces() -> None:
    reset_T = np.zeros(9, bool)
    assert pieces(reset_T) == [(0, 10)]
    reset_T[[3, 4, 8]] = True  # frames 4, 5 and 9 begin an episode; those of 4 and of 9 have no second frame
    assert pieces(reset_T) == [(0, 4), (5, 9)]


def test_every_level_is_visited_once() -> None:
    config = dataclasses.replace(CONFIG, levels=3, first_level=5)
    visits = [visit for shard in range(config.shards) for visit in config.visits_of(shard)]
    assert visits == list(range(6))
    assert sorted(map(config.place, visits)) == [(game, n) for game in ("bossfight", "coinrun") for n in (5, 6, 7)]


def test_clips_are_whole_and_at_random_places() -> None:
    config = dataclasses.replace(CONFIG, games=("coinrun",), clips=40, clip_frames=5, size=(8, 8))
    recorder = ProcgenRecorder(config, Counter())
    clips = [clip for shard in range(config.shards) for clip in recorder.record(shard)]
    assert len(clips) == 40 and {clip.frames_THWC.shape[0] for clip in clips} == {5}
    starts = {int(clip.frames_THWC[0, 0, 0, 0]) for clip in clips}
    assert len(starts) > 2
    for clip in clips:
        np.testing.assert_array_equal(clip.frames_THWC[1:, 0, 0, 2], clip.actions["discrete"])
    again = [clip for shard in range(config.shards) for clip in ProcgenRecorder(config, Counter()).record(shard)]
    for one, other in zip(clips, again, strict=True):
        np.testing.assert_array_equal(one.frames_THWC, other.frames_THWC)


def test_clips_that_cannot_be_are_named() -> None:
    config = dataclasses.replace(CONFIG, clips=1, clip_frames=12, size=(8, 8))
    with pytest.raises(VgenError, match="coinrun/0.*clip_frames=12"):
        list(ProcgenRecorder(config, Counter()).record(0))


@pytest.mark.parametrize("size", [(32, 32), (16, 64)])
def test_reduction_is_the_mean(size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    small = reduced(frames, size).astype(float)
    means = frames.reshape(2, size[0], 64 // size[0], size[1], 64 // size[1], 3).mean((2, 4))
    assert small.shape == (2, *size, 3) and np.abs(small - means).max() <= 0.5


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"games": ("quake",)}, "'quake'"), ({"games": ()}, "at least one"), ({"steps": 0}, "steps=0"),
        ({"clips": 3}, "clips=3"), ({"clips": 3, "clip_frames": 62}, "2 to 61"), ({"first_level": -1}, "first_level"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(changes: dict, fault: str) -> None:
    with pytest.raises(VgenError, match=fault):
        dataclasses.replace(CONFIG, **changes)


def test_the_papers_sets() -> None:
    get_config = importlib.import_module("configs.data.procgen").get_config

    def splits(arg: str) -> Iterator[ProcgenConfig]:
        config = get_config(arg)
        for split, values in config.splits.items():
            merged = {**config.collect.to_dict(), **values.to_dict(), "split": split}
            yield section(ProcgenConfig, merged, split)

    (pretrain,), (small,), (test,) = map(list, map(splits, ("pretrain", "pretrain150k.32", "test")))
    assert set(pretrain.games) == set(GAMES) - {"coinrun"} == set(small.games)
    assert pretrain.visits * pretrain.steps == 30_000_000 and small.visits * small.steps == 150_000
    assert small.size == (32, 32) and pretrain.size == (64, 64)
    for name, frames in (("coinrun100k", 100_000), ("coinrun500k", 500_000), ("coinrun2500k", 2_500_000)):
        (coinrun,) = splits(name)
        assert coinrun.games == ("coinrun",) and coinrun.steps == 1000 and coinrun.visits * 1000 == frames
        assert coinrun.levels * 1000 == frames and coinrun.first_level == 0
    assert (test.clips, test.clip_frames, test.first_level, test.levels) == (1024, 10, 10_000, 1000)
    with pytest.raises(ValueError, match="has no variant 'doom'"):
        get_config("doom")


@real
@needs_envpool
def test_the_level_and_the_actions_decide_every_frame(simulator: ProcgenSimulator) -> None:
    action_T = random_actions(np.random.default_rng(0), 40)
    first = simulator.play("coinrun", 3, action_T)
    simulator.play("heist", 1, action_T)
    again = simulator.play("coinrun", 3, action_T)
    np.testing.assert_array_equal(first.frames_THWC, again.frames_THWC)
    assert (simulator.play("coinrun", 4, action_T[:1]).frames_THWC[0] != first.frames_THWC[0]).mean() > 0.1


@real
@needs_envpool
def test_an_action_leads_to_the_next_frame(simulator: ProcgenSimulator) -> None:
    """Two plays that part in action t alone have the same frames 0 .. t, and other frames from t+1 on."""
    for level in (0, 1, 2):
        action_T = np.full(24, RIGHT, np.int32)
        plain = simulator.play("coinrun", level, action_T)
        for t in (4, 11):
            other_T = action_T.copy()
            other_T[t] = LEFT
            other = simulator.play("coinrun", level, other_T)
            same = (plain.frames_THWC == other.frames_THWC).all((1, 2, 3))
            assert same[: t + 1].all(), "the frame at which an action is taken does not show it"
            assert not same[t + 1], "the very next frame does"


@real
@needs_envpool
def test_after_a_reset_comes_the_levels_first_frame(simulator: ProcgenSimulator) -> None:
    """And nowhere else: the frame that a reset shows is where the level began, the one before it is not."""
    action_T = random_actions(np.random.default_rng(1), 400)
    for game in ("bossfight", "fruitbot"):  # lost within a few dozen random steps
        played = simulator.play(game, 1, action_T)
        begins = np.flatnonzero(played.reset_T) + 1
        assert len(begins) > 2
        first = played.frames_THWC[0]
        for frame in begins:
            np.testing.assert_array_equal(played.frames_THWC[frame], first)
            assert (played.frames_THWC[frame - 1] != first).any()


@real
@needs_envpool
@pytest.mark.slow
def test_windows_of_the_real_games(tmp_path: Path) -> None:
    """Simulator -> record -> file -> window: replayed from its level's start, a window shows the same frames."""
    report = collect_shards(tmp_path, dataclasses.replace(CONFIG, steps=150))
    source = EpisodeSource(tmp_path, "train")
    assert not check_data(tmp_path).faults and report.frames == sum(source.frames)
    assert len(source) > 4, "bossfight was lost in between"
    index = WindowIndex(source.frames, source.info.chunk, 2, 8)
    read = WindowReader(source, 2, 8, "discrete", 0, False)
    simulator = ProcgenSimulator((32, 32))
    for number in range(0, len(source), 3):
        windows = index.episode_range(number)
        if not windows:
            continue
        window = index[windows[len(windows) // 2]]
        sample = read(window, 0)
        assert sample["video"].shape == (10, 32, 32, 3)
        ids = source.head(number).tensors["actions.discrete"]
        np.testing.assert_array_equal(sample["action"][1:].argmax(1), ids[window.boundary - 1 : window.boundary + 8])
        game, level = source.scenes[number].split("/")
        again = simulator.play(game, int(level), ids)
        assert not again.reset_T.any()
        np.testing.assert_array_equal(again.frames_THWC[window.boundary - 1 : window.boundary + 9], sample["video"])


@real
@needs_envpool
def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(VgenError, match="48x64"):
        ProcgenSimulator((48, 64))
