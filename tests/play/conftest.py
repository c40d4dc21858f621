"""A player of the smallest model, prepared once for all tests of this folder that need one."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from tests import tiny
from vgen_jax.command_line import configs
from vgen_jax.data.units import DOOM
from vgen_jax.files.run_folder import resolved
from vgen_jax.play.lanes import Progress
from vgen_jax.play.program import Player, serve
from vgen_jax.play.server import PlayServer
from vgen_jax.play.session import Session
from vgen_jax.play.sessions import Sessions
from vgen_jax.runs.play import player_of
from vgen_jax.simulators import collect
from vgen_jax.simulators.base import Observation

SIMULATOR = "line"


class Line:
    """Shows how far it has gone; ends beyond 100."""

    name, version, fps, units = SIMULATOR, "1", 8.0, DOOM
    action_space, commands = tiny.SPACES["continuous"], tiny.COMMANDS

    def __init__(self) -> None:
        self._pose = np.zeros(4, np.float32)
        self.closed = False

    def scenes(self, split: str) -> tuple[str, ...]:
        return ("line/0", "line/1")

    def reset(self, seed: int, scene: str) -> Observation:
        self._pose = np.asarray([seed % 7, 0, 0, 90], np.float32)
        return self._seen()

    def step(self, action: np.ndarray) -> Observation:
        self._pose = self._pose + np.asarray([0, 10 * float(action[1]), 0, float(action[0])], np.float32)
        return self._seen()

    def _seen(self) -> Observation:
        frame = np.full((tiny.SIZE, tiny.SIZE, 3), int(self._pose[1]) % 256, np.uint8)
        return Observation(frame, self._pose, bool(self._pose[1] > 100))

    def clearance(self) -> tuple[float, float, float]:
        return (0.0, 0.0, 0.0)

    def extras(self, pose_TP: np.ndarray) -> dict[str, np.ndarray]:
        return {}

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set and an exported model, for work directories beside them."""
    tmp_path = tmp_path_factory.mktemp("play")
    tiny.write_dataset(tmp_path / "data")
    tiny.write_model(tmp_path / "slow" / "export")
    return tmp_path


def config_of(folder: Path, **changes: Any) -> ConfigDict:
    """The config of a player in ``folder/play``."""
    found = configs.load("play:tiny")
    found.update_from_flattened_dict({"play.port": 0, "play.kept": 12, "play.in_memory": 2, **changes})
    return resolved(found, folder / "play")


@pytest.fixture(scope="session")
def player(folder: Path) -> Iterator[Player]:
    """A player with a simulator at hand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(collect.SIMULATORS, SIMULATOR, lambda size, chunk, world: Line())
        changes = {"simulator.name": SIMULATOR, "memory.temp_lora.learning_rate": 0.1}
        yield player_of(config_of(folder, **changes))


@pytest.fixture(scope="session")
def sessions(player: Player, folder: Path) -> Iterator[Sessions]:
    """Its sessions, compiled."""
    found = player.sessions(Progress(), folder / "sessions")
    yield found
    found.close_all()


@pytest.fixture
def session(sessions: Sessions) -> Iterator[Session]:
    """A new one, with a run from the first recorded episode."""
    name, found = sessions.open()
    found.begin(3, sessions.scenery.openings.episode(1, 4))
    yield found
    sessions.close(name)


Start = Callable[..., PlayServer]


@pytest.fixture(scope="session")
def start(player: Player, sessions: Sessions) -> Iterator[Start]:
    """Starts servers, each in a thread of its own, with sessions of their own over what is compiled already."""
    running: list[tuple[PlayServer, threading.Thread]] = []

    def started(workdir: Path, port: int = 0, ready: threading.Event | None = None) -> PlayServer:
        listens, found = threading.Event(), []

        def listening(server: PlayServer) -> None:
            found.append(server)
            listens.set()

        class Prepared(Player):
            def sessions(self, progress: Progress, workdir: Path) -> Sessions:
                progress.tell("compiling the sampler", 0.2)
                assert ready is None or ready.wait(60)
                progress.done()
                return Sessions(sessions.scenery, workdir / "sessions", sessions.choice, 4, 900.0)

        parts = {field.name: getattr(player, field.name) for field in dataclasses.fields(Player)}
        program = Prepared(**{**parts, "play": dataclasses.replace(player.play, port=port)})
        thread = threading.Thread(target=serve, args=(program, workdir, listening), daemon=True)
        thread.start()
        assert listens.wait(20)
        running.append((found[0], thread))
        return found[0]

    yield started
    for server, thread in running:
        server.shutdown()
        thread.join(20)


@pytest.fixture(scope="session")
def server(start: Start, tmp_path_factory: pytest.TempPathFactory) -> PlayServer:
    """One that is ready."""
    found = start(tmp_path_factory.mktemp("server"))
    while not found.requests.status()["ready"]:
        time.sleep(0.01)
    return found


@pytest.fixture
def no_sessions(server: PlayServer) -> Iterator[None]:
    """None is left behind."""
    yield
    assert server.requests.sessions is not None
    server.requests.sessions.free_idle(lambda: float("inf"))
