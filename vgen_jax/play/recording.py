"""What was played as files: videos, the actions, and a config with which the run ``generate`` makes them again.

A recording's folder has ``actions.txt``, a folder of videos for each lane, as ``generate`` leaves them in ``samples``,
and there ``replay.py``:

    python -m vgen_jax.main --config=out/play/recordings/1/temp_lora/replay.py --workdir=out/replay

The frames come out bit by bit on the same machine. That needs a video that was made with one memory, one sampler and
one guidance from its start on; of another, ``replay.py`` is not written.
"""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vgen_jax.files import media
from vgen_jax.files.videos import Videos
from vgen_jax.play.lanes import Lane, Worlds
from vgen_jax.play.openings import Opening
from vgen_jax.play.trail import Node, Trail
from vgen_jax.worlds.start import StartConfig

ACTIONS_FILE, START_FILE, SIDE_FILE = "actions.txt", "start.png", "side_by_side.mp4"
REPLAY_CONFIG, REPLAY_VALUES = "replay.py", "replay.json"
REAL = "real"  # the simulator's folder
SAVE_EVERY = 8
_REPLAY = '''"""Makes the videos beside this file again: --config=THIS_FILE --workdir=FOLDER."""

import json
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(json.loads(Path(__file__).with_name("replay.json").read_text(encoding="utf-8")))
'''


class Recording(NamedTuple):
    """What was written.

    Attributes:
        folder: where.
        files: name -> path, for a download.
        command: what makes the first video again; empty if nothing can.
        note: why that is; empty if something can.
    """

    folder: Path
    files: dict[str, Path]
    command: str
    note: str


def write_recording(
    folder: Path, worlds: Worlds, opening: Opening, seed: int, trail: Trail, path: Sequence[Node]
) -> Recording:
    """Writes the way from the start to a node.

    Args:
        folder: where; there is none of that name.
        seed: of the run.
        path: the nodes, the start first.

    Raises:
        VgenError: if something cannot be written.
    """
    folder.mkdir(parents=True)
    actions = folder / ACTIONS_FILE
    actions.write_text("".join(f"{line}\n" for node in path for line in node.lines), encoding="utf-8")
    files = {ACTIONS_FILE: actions}
    if opening.recorded is None:
        media.write_png(folder / START_FILE, opening.start.frames_BTHWC[0, -1])
        files[START_FILE] = folder / START_FILE
    videos = {lane.memory: [_place(node, lane.memory) for node in path] for lane in path[-1].lanes}
    if path[-1].real:
        videos[REAL] = [len(node.lanes) if node.real else None for node in path]
    whole = {name: places for name, places in videos.items() if None not in places}
    fps = worlds.of(path[-1].lanes[0]).fps
    for name, places in whole.items():
        _write_videos(folder / name, trail, path, places, fps, worlds.future)
        files |= {f"{name}{suffix}": folder / name / f"video_0{suffix}" for suffix in (".mp4", ".gif", ".png")}
    if len(whole) > 1:
        _write_side_by_side(folder / SIDE_FILE, trail, path, whole, fps)
        files[SIDE_FILE] = folder / SIDE_FILE
    note = "" if len(whole) == len(videos) else "a video that was not there from the start on is left out"
    command = ""
    for lane in path[-1].lanes:
        if any(lane not in node.lanes for node in path):
            note = "memory, sampling steps or guidance were changed on the way: the run generate cannot make it again"
            continue
        values = replay_values(folder, worlds, opening.recorded, seed, lane)
        (folder / lane.memory / REPLAY_VALUES).write_text(json.dumps(values, indent=1), encoding="utf-8")
        (folder / lane.memory / REPLAY_CONFIG).write_text(_REPLAY, encoding="utf-8")
        config = shlex.quote(str(folder / lane.memory / REPLAY_CONFIG))
        command = command or f"python -m vgen_jax.main --config={config} --workdir=out/replay"
    return Recording(folder, files, command, note)


def _place(node: Node, memory: str) -> int | None:
    """Which of a node's videos a lane is."""
    return next((n for n, lane in enumerate(node.lanes) if lane.memory == memory), None)


def _write_videos(
    folder: Path, trail: Trail, path: Sequence[Node], places: Sequence[int | None], fps: float, chunk: int
) -> None:
    first = trail.frames(path[0].number)[places[0], -1]
    with Videos(folder, first[None], fps, True, chunk) as videos:
        for node, place in zip(path[1:], places[1:], strict=True):
            videos.add([trail.frames(node.number)[None, place]], node.text)


def _write_side_by_side(
    target: Path, trail: Trail, path: Sequence[Node], videos: Mapping[str, Sequence[int | None]], fps: float
) -> None:
    """All videos next to each other under their titles, the commands below; a step at a time."""
    writer: media.VideoWriter | None = None
    for number, node in enumerate(path):
        frames = trail.frames(node.number)
        clips = [np.asarray(frames[places[number]]) for places in videos.values()]
        joined = media.side_by_side(clips, list(videos))
        shown = media.caption_frames(joined, [node.text] * len(joined))
        if writer is None:
            writer = media.VideoWriter(target, fps, shown.shape[1:3])
        writer.write(shown)
    if writer is not None:
        writer.close()


def replay_values(folder: Path, worlds: Worlds, recorded: StartConfig | None, seed: int, lane: Lane) -> dict[str, Any]:
    """The config with which ``generate`` makes a lane's video again."""
    picture = {
        "image": str(folder / START_FILE), "data_dir": "", "split": "", "episodes": (), "frame": 0, "still": False,
    }  # fmt: skip
    return {
        "run": "generate",
        "model_dir": str(worlds.model.folder),
        "start": picture if recorded is None else dataclasses.asdict(recorded),
        "generate": {
            "past": worlds.past, "future": worlds.future, "frames": 0, "actions": (),
            "actions_from": str(folder / ACTIONS_FILE), "guidance": lane.guidance, "seed": seed,
            "decode_frames": worlds.future, "gif": True, "save_every": SAVE_EVERY,
        },
        "memory": {**dataclasses.asdict(worlds.memory), "kind": lane.memory},
        "sampler": {**dataclasses.asdict(worlds.sampler), "steps": lane.steps},
    }  # fmt: skip
