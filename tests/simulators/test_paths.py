"""Scripts: planned to come back, refused where they did not."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from vgen_jax.data.check import check_data
from vgen_jax.data.records import EpisodeSource, read_info
from vgen_jax.data.revisits import revisits
from vgen_jax.data.schema import may_share_scenes
from vgen_jax.data.shards import merge
from vgen_jax.simulators.collect import CollectConfig, collect
from vgen_jax.simulators.commands import walker_commands
from vgen_jax.simulators.explorer import Sight
from vgen_jax.simulators.paths import KINDS, Follower, PathsConfig, Script, comes_back, path_scene, plan, read_script
from vgen_jax.types import VgenError

CHUNK, FAR = 4, 1e4
BOOK = {command.name: np.asarray(command.actions) for command in walker_commands(CHUNK)}


def walked(commands: tuple[str, ...]) -> np.ndarray:
    """The poses of a path on an endless floor, with Doom's momentum: every tic a tenth of the speed is lost."""
    place, speed, heading = np.zeros(2), np.zeros(2), 0.0
    poses = [[0.0, 0.0, 0.0, 0.0]]
    for name in commands:
        for turn, forward, _ in BOOK[name]:
            for _ in range(4):
                heading += turn / 4
                ahead = np.array([np.cos(np.radians(heading)), np.sin(np.radians(heading))])
                place, speed = place + speed, 0.90625 * speed + 1.55 * forward * ahead
            poses.append([*place, 0.0, heading % 360])
    return np.asarray(poses, np.float32)


def draw(kind: str, chunks: int, seed: int, room: float = FAR) -> Script | None:
    return plan(kind, chunks, CHUNK, room, np.random.default_rng(seed))


@pytest.mark.parametrize("chunks", [16, 50, 150])
@pytest.mark.parametrize("kind", KINDS)
def test_every_plan_comes_back_within_its_length(kind: str, chunks: int) -> None:
    for seed in range(12):
        script = draw(kind, chunks, seed)
        assert script is not None and script.kind == kind and len(script.commands) == chunks
        pose = walked(script.commands)
        assert comes_back(script, pose)
        assert 0 < script.homes[0] and script.homes[-1] <= chunks * CHUNK and script.seen < chunks * CHUNK
        assert (revisits(pose)[:, 1] > script.seen).any(), "something is seen again after all was seen once"


@pytest.mark.parametrize("kind", KINDS)
def test_after_the_first_visit_no_place_is_new(kind: str) -> None:
    for seed in range(6):
        script = draw(kind, 50, seed)
        assert script is not None
        pose = walked(script.commands).astype(float)
        late, early = pose[script.seen + 1 :, None], pose[None, : script.seen + 1]
        # The reverse of a walk meets other points of the same line, hence a step of slack.
        distance = np.linalg.norm(late[..., :2] - early[..., :2], axis=-1)
        turned = np.abs((late[..., 3] - early[..., 3] + 180) % 360 - 180)
        assert ((distance < 40) & (turned < 1)).any(axis=1).all()


def test_a_path_that_is_held_up_is_refused() -> None:
    script = draw("walk", 16, 0)
    assert script is not None
    pose = walked(script.commands)
    assert comes_back(script, pose)
    blocked = pose.copy()
    blocked[:, 0] = np.minimum(blocked[:, 0], 90.0)
    assert not comes_back(script, blocked), "it never left"
    off, away = pose.copy(), script.homes[0] - 4
    off[away:, 1] += 9.0
    assert not comes_back(script, off), "it came back beside its start"
    off = pose.copy()
    off[away:, 3] += 3.0
    assert not comes_back(script, off), "it looks elsewhere"


def test_there_must_be_room() -> None:
    assert draw("walk", 16, 0, room=100.0) is None
    assert draw("look", 16, 0, room=0.0) is not None, "to look takes no room"
    narrow = draw("walk", 50, 3, room=390.0)
    assert narrow is not None and narrow.commands.index("stay") == 2


def test_the_follower_stops_at_the_first_miss() -> None:
    script = draw("look", 16, 1)
    assert script is not None
    pose = walked(script.commands)
    pose[script.homes[0] :, 0] += 20.0
    follow, sight = Follower(lambda sight: script), Sight((FAR, FAR, FAR), 0.0)
    names = [follow(sight, pose[: n * CHUNK + 1]) for n in range(16)]
    missed = script.homes[0] // CHUNK
    assert tuple(names[:missed]) == script.commands[:missed] and names[missed] is None


def test_paths_are_balanced_over_kinds_and_scenes() -> None:
    config, scenes = PathsConfig("validation", 48, 64, KINDS), tuple("abcdef")
    found = {(KINDS[n % len(KINDS)], path_scene(scenes, config, n)) for n in range(30)}
    assert len(found) == 30


def test_unfit_settings_are_refused() -> None:
    with pytest.raises(VgenError, match="'swim'"):
        PathsConfig("validation", 4, 64, ("swim",))
    with pytest.raises(VgenError, match="steps=60 must be at least 64"):
        draw("look", 15, 0)
    with pytest.raises(VgenError, match="no scripted path"):
        read_script({"pose": np.zeros((2, 4))})


def test_only_splits_of_one_benchmark_share_scenes() -> None:
    assert may_share_scenes("revisit_64", "revisit_200") and may_share_scenes("train", "train")
    assert not may_share_scenes("train", "validation") and not may_share_scenes("validation", "revisit_64")


@pytest.mark.simulator
@pytest.mark.slow
def test_collected_paths(tmp_path: Path) -> None:
    """Real paths come back, resume bit by bit, and join another length on the same maps but not the explorer's."""
    paths = PathsConfig("validation", 4, 64, ("look", "excursions"))
    config = CollectConfig("vizdoom", "revisit_64", 4 * 65, 64, (16, 16), CHUNK, 2, 7, 1)
    first, second = tmp_path / "first", tmp_path / "second"
    collect(first, config, paths)
    source = EpisodeSource(first, "revisit_64")
    for number in range(4):
        episode = source.episode(number)
        script = read_script(episode.extras)
        assert script.kind == paths.kinds[number % 2] and comes_back(script, episode.extras["pose"])
        assert (revisits(episode.extras["pose"])[:, 1] > script.seen).any()
        book = read_info(first).book
        assert tuple(book[span.text].name for span in episode.texts) == script.commands
    whole = {path.name: path.read_bytes() for path in sorted(first.glob("*.array_record"))}
    second.mkdir()
    kept = min(whole)
    (second / kept).write_bytes(whole[kept])
    (second / f".{kept}.json").write_text(json.dumps(dataclasses.asdict(source.shards[0])))
    (second / "revisit_64.collect.json").write_text((first / "revisit_64.collect.json").read_text())
    assert collect(second, dataclasses.replace(config, workers=2), paths).new_frames == 2 * 65
    assert {path.name: path.read_bytes() for path in sorted(second.glob("*.array_record"))} == whole
    with pytest.raises(VgenError, match="paths is .* there"):
        collect(second, config, dataclasses.replace(paths, kinds=("look",)))

    info = read_info(first)
    shards = info.splits["revisit_64"]
    assert set(merge(info, dataclasses.replace(info, splits={"revisit_200": shards}), first).splits) == {
        "revisit_64", "revisit_200",
    }  # fmt: skip
    with pytest.raises(VgenError, match="is in splits revisit_64 and validation"):
        merge(info, dataclasses.replace(info, splits={"validation": shards}), first)
    assert not check_data(first).faults
