"""The program behind the page: it answers at once, and says what it is preparing until there is something to play."""

import dataclasses
import signal
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.play.lanes import Progress, Worlds
from vgen_jax.play.openings import Openings, SimulatorConfig
from vgen_jax.play.requests import ChoicesConfig, Requests
from vgen_jax.play.server import EVERYWHERE, PlayServer, kept_token
from vgen_jax.play.session import Choice, Scenery
from vgen_jax.play.sessions import Sessions
from vgen_jax.types import VgenError
from vgen_jax.worlds.assembly import load_model
from vgen_jax.worlds.memories import MemoryConfig
from vgen_jax.worlds.start import StartConfig

RECORDINGS, SESSIONS = "recordings", "sessions"  # folders of the work directory
OPEN = (
    "play.host is {host}: everyone who can reach this machine and has the address can play, and read it on the way, "
    "since nothing is encrypted; ssh -L {port}:127.0.0.1:{port} with play.host 127.0.0.1 is safer"
)


@dataclasses.dataclass(frozen=True)
class PlayConfig:
    """Where the page is, and for how many.

    Attributes:
        host: ``127.0.0.1`` for this machine alone, ``0.0.0.0`` for all that can reach it.
        port: 0 takes a free one, which is printed.
        hosts: names of a proxy before it, ``*.googleusercontent.com`` for Colab's; empty for none.
        browser: open the page in this machine's browser.
        sessions: tabs that play at once.
        idle_minutes: after which one that does nothing is freed.
        kept: steps that one can go back.
        in_memory: of these, whose states are not files.
        max_megabytes: of a picture that is sent.
        past, future: f_p and f_g of a step; 0 for those that the model was trained on first.
        guidance: scale of classifier-free guidance; 1 for none.
        place: the number of the simulator's place that the first tab begins at.
    """

    host: str
    port: int
    hosts: tuple[str, ...]
    browser: bool
    sessions: int
    idle_minutes: float
    kept: int
    in_memory: int
    max_megabytes: int
    past: int
    future: int
    guidance: float
    place: int

    def __post_init__(self) -> None:
        for name in ("sessions", "kept", "in_memory", "max_megabytes"):
            if getattr(self, name) < 1:
                raise VgenError(f"config key play.{name} is {getattr(self, name)}: use 1 or more")
        if not 0 <= self.port < 65536:
            raise VgenError(f"config key play.port is {self.port}: use 0 to 65535")
        if not self.idle_minutes > 0:
            raise VgenError(f"config key play.idle_minutes is {self.idle_minutes}: use more than 0")


@dataclasses.dataclass(frozen=True)
class Player:
    """What is played: the sections of the run's config.

    Attributes:
        model_dir: the model.
        play, choices, start, simulator, memory, sampler: see their classes.
    """

    model_dir: str
    play: PlayConfig
    choices: ChoicesConfig
    start: StartConfig
    simulator: SimulatorConfig
    memory: MemoryConfig
    sampler: Sampler

    def sessions(self, progress: Progress, workdir: Path) -> Sessions:
        """Loads the model and compiles what the first step needs.

        Raises:
            VgenError: for a model, a memory or a start that is not to be had.
        """
        progress.tell("reading the model", 0.0)
        play, model = self.play, load_model(self.model_dir)
        f_p, f_g = model.windows[0]
        worlds = Worlds(
            model, self.sampler, self.memory, play.past or f_p, play.future or f_g, self.choices.memories
        )  # fmt: skip
        beside = self.choices.beside if self.choices.beside in worlds.memories else ""
        choice = Choice(self.memory.kind, beside, self.sampler.steps, play.guidance, real=True)
        for lane in choice.lanes:
            worlds.prepare(lane, progress.tell)
        openings = Openings(worlds.of(choice.lanes[0]), self.start, self.simulator)
        scenery = Scenery(worlds, openings, threading.Lock(), progress, play.kept, play.in_memory)
        found = Sessions(scenery, workdir / SESSIONS, choice, play.sessions, 60 * play.idle_minutes, play.place)
        progress.done()
        return found


def serve(player: Player, workdir: Path, listening: Callable[[PlayServer], None] = lambda server: None) -> None:
    """Serves the page until Ctrl-C, SIGTERM, or somebody shuts the server down.

    Args:
        listening: called with the server when it listens.

    Raises:
        VgenError: if the port is taken, or the model cannot be played.
    """
    play, progress = player.play, Progress()
    requests = Requests(progress, player.choices, workdir / RECORDINGS)
    server = PlayServer(
        (play.host, play.port), requests, kept_token(workdir), play.max_megabytes * 10**6, play.hosts
    )  # fmt: skip
    faults: list[BaseException] = []

    def prepare() -> None:
        try:
            requests.sessions = player.sessions(progress, workdir)
            print("ready", flush=True)
        except BaseException as fault:  # raised again below, in the thread that waits
            faults.append(fault)
            server.shutdown()

    if play.host in EVERYWHERE:
        print(OPEN.format(host=play.host, port=server.server_port), flush=True)
    print(f"play at {server.url}  (Ctrl-C ends it)", flush=True)
    listening(server)
    threading.Thread(target=prepare, name="prepare", daemon=True).start()
    if play.browser:
        webbrowser.open(server.url)
    try:
        _answer(server)
    finally:  # simulators are programs of their own, which nobody else ends
        if requests.sessions is not None:
            requests.sessions.close_all()
    if faults:
        raise faults[0]


def _answer(server: PlayServer) -> None:
    before = signal.getsignal(signal.SIGTERM)
    main = threading.current_thread() is threading.main_thread()
    if main:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        print("ended", flush=True)
    finally:
        server.server_close()
        if main:
            signal.signal(signal.SIGTERM, before)
