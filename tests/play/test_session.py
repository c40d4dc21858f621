"""A player's run: branches, memories, the simulator beside it, and recordings that are generated again bit by bit."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.play.conftest import SIMULATOR
from vgen_jax.command_line import configs
from vgen_jax.files import media
from vgen_jax.files.run_folder import resolved
from vgen_jax.play import controls
from vgen_jax.play.session import Session
from vgen_jax.play.sessions import NoRoom, NoSession, Sessions
from vgen_jax.runs import generate
from vgen_jax.types import VgenError

pytestmark = pytest.mark.slow
GO, TURN = ("go",), ("turn",)


def walked(session: Session, commands: list[tuple[str, ...]], parent: int = 0) -> list[np.ndarray]:
    """The frames of some steps, one after another."""
    found = []
    for lines in commands:
        stepped = session.step(parent, lines)
        parent = stepped.node.number
        found.append(stepped.frames)
    return found


def test_the_same_actions_in_both_lanes_and_memory_makes_a_difference(session: Session) -> None:
    frames = walked(session, [GO, TURN, GO])
    assert [video.shape for video in frames] == [(2, 2, tiny.SIZE, tiny.SIZE, 3)] * 3
    assert [lane.memory for lane in session.choice.lanes] == ["temp_lora", "none"]
    np.testing.assert_allclose(frames[0][0], frames[0][1], atol=1, err_msg="before anything has been learnt")
    assert (frames[2][0] != frames[2][1]).any(), "what was learnt is seen"


def test_a_branch_from_an_old_state_and_the_same_way_again(session: Session) -> None:
    """State 1 is a file by then."""
    first = walked(session, [GO, TURN, GO, GO, TURN])
    again = walked(session, [TURN, GO, GO, TURN], parent=1)
    for one, other in zip(first[1:], again, strict=True):
        np.testing.assert_array_equal(one, other)
    other = walked(session, [GO], parent=1)
    assert (other[0] != first[1]).any()
    assert [node.number for node in session.trail.path(10)] == [0, 1, 10]


def test_a_request_that_comes_again_is_not_done_again(session: Session) -> None:
    one = session.step(0, GO, request=5)
    assert session.step(0, GO, request=5) is one and len(session.trail.nodes) == 2
    assert session.step(0, GO, request=6).node.number == 2


def test_a_memory_that_is_switched_on_begins_there(session: Session) -> None:
    session.choose(dataclasses.replace(session.choice, memory="none", beside=""))
    off = session.step(0, GO)
    session.choose(dataclasses.replace(session.choice, memory="temp_lora", beside="none"))
    on = session.step(off.node.number, TURN)
    np.testing.assert_allclose(on.frames[0], on.frames[1], atol=1, err_msg="it has learnt nothing yet")
    later = session.step(on.node.number, GO)
    assert (later.frames[0] != later.frames[1]).any()
    with pytest.raises(VgenError, match="memory 'retrieval' is not to be had here: use one of none, context"):
        session.choose(dataclasses.replace(session.choice, memory="retrieval"))


def replayed(config: Path, workdir: Path) -> Path:
    """What ``generate`` makes of a recording."""
    found = resolved(configs.load(str(config)), workdir)
    generate.run(found, workdir)
    return workdir / "samples"


@pytest.mark.parametrize("opening", ["episode", "picture"])
def test_what_is_recorded_is_generated_again_bit_by_bit(session: Session, tmp_path: Path, opening: str) -> None:
    if opening == "picture":
        rng = np.random.default_rng(0)
        picture = media.encode_png(rng.integers(0, 255, (40, 30, 3), dtype=np.uint8))
        session.begin(7, session._scenery.openings.picture(picture))
    codec = session._scenery.worlds.of(session.choice.lanes[0]).codec
    held = controls.lines(codec, ["KeyW", "KeyD"])
    assert held[0].startswith("{"), "these keys are no command"
    walked(session, [GO, TURN])
    walked(session, [held, GO], parent=1)
    recording = session.record(4, tmp_path / "recording")
    assert (recording.folder / "actions.txt").read_text().splitlines() == ["go", *held, "go"]
    assert recording.note == "" and "replay.py" in recording.command
    for memory in ("temp_lora", "none"):
        samples = replayed(recording.folder / memory / "replay.py", tmp_path / "replay" / memory)
        files = sorted(path.name for path in samples.iterdir())
        assert files == ["captions.jsonl", "video_0.gif", "video_0.mp4", "video_0.npy", "video_0.png"]
        for name in files:
            assert (samples / name).read_bytes() == (recording.folder / memory / name).read_bytes(), name
    assert len(media.read_video(recording.folder / "side_by_side.mp4")) == 1 + 3 * 2


def test_what_generate_cannot_make_again_says_so(session: Session, tmp_path: Path) -> None:
    one = session.step(0, GO)
    session.choose(dataclasses.replace(session.choice, memory="context", beside="none"))
    two = session.step(one.node.number, GO)
    recording = session.record(two.node.number, tmp_path / "recording")
    assert "were changed on the way" in recording.note and "none/replay.py" in recording.command
    assert not (recording.folder / "context").exists(), "it has no video from the start on"
    with pytest.raises(VgenError, match="nothing to save yet"):
        session.record(0, tmp_path / "nothing")


def test_the_simulator_beside_it(session: Session, tmp_path: Path) -> None:
    begun = session.begin(0, place=3)
    assert begun.node.real and begun.frames.shape[0] == 3 and begun.node.text == f"place 3 ({SIMULATOR}/1)"
    x, y, heading = begun.node.place
    one = session.step(0, GO)
    assert one.node.place == pytest.approx((x, y + 20 / 66, heading))
    np.testing.assert_array_equal(one.frames[2, :, 0, 0, 0], [10, 20])
    two = session.step(1, TURN)
    assert two.node.place[2] == pytest.approx(heading + 10)
    aside = session.step(1, GO)
    np.testing.assert_array_equal(aside.frames[2, :, 0, 0, 0], [30, 40])
    recording = session.record(2, tmp_path / "recording")
    assert media.read_video(recording.folder / "real" / "video_0.npy")[:, 0, 0, 0].tolist() == [0, 10, 20, 20, 20]
    parent = 3
    for _ in range(4):
        stepped = session.step(parent, GO)
        parent = stepped.node.number
    assert "the simulator stops" in stepped.note and not stepped.node.real and stepped.frames.shape[0] == 2


def test_by_the_commands_alone_one_walks_through_walls(session: Session) -> None:
    assert session.look(0).node.place == (0.0, 0.0, 90.0)
    one = session.step(0, GO).node
    assert one.place == pytest.approx((0.0, 2.0, 90.0))
    assert session.step(one.number, TURN).node.place == pytest.approx((0.0, 2.0, 100.0))


def test_nothing_is_compiled_after_the_first_step(session: Session) -> None:
    rng, parent = np.random.default_rng(0), 0
    walked(session, [GO])
    before = session._scenery.worlds.compilations()
    for _ in range(12):
        parent = session.step(parent, (GO, TURN)[rng.integers(2)]).node.number
    assert session._scenery.worlds.compilations() == before
    assert all(counts == (1, 1) for lane, counts in before.items() if "temp_lora" in lane)


def test_as_many_sessions_as_there_may_be_and_idle_ones_are_freed(sessions: Sessions) -> None:
    names = [sessions.open()[0] for _ in range(4 - sessions.count())]
    with pytest.raises(NoRoom, match="4 tabs play already"):
        sessions.open()
    sessions.get(names[0]).begin(0)
    kept = sessions.get(names[0])._folder
    assert kept.is_dir()
    assert sessions.free_idle() == []
    sessions.leave(names[1])
    freed = sessions.free_idle(lambda: time.monotonic() + 9)
    assert freed == [names[1]]
    assert set(sessions.free_idle(lambda: time.monotonic() + 10**6)) == {*names} - {names[1]}
    assert not any(kept.iterdir()) and sessions.count() == 0
    with pytest.raises(NoSession, match="no longer there"):
        sessions.get(names[0])
