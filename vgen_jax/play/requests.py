"""What a page may ask for, apart from HTTP: names and JSON in, JSON out. Nothing that it sends becomes a path."""

import base64
import dataclasses
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vgen_jax.play import controls, pictures
from vgen_jax.play.lanes import Progress
from vgen_jax.play.openings import EPISODE, PICTURE, PLACE
from vgen_jax.play.session import Choice, Session, Stepped
from vgen_jax.play.sessions import Sessions
from vgen_jax.types import VgenError

Body = Mapping[str, Any]
MOST_KEYS, MOST_TEXT = 16, 2000
MOST_NUMBER = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class ChoicesConfig:
    """What the page offers.

    Attributes:
        memories: kinds to choose from; those that the model cannot have are left out.
        beside: of the second video that the page begins with; empty for none.
        steps: numbers of sampling steps; the sampler's own is added.
        guidances: scales of classifier-free guidance; ``generate.guidance`` is added.
    """

    memories: tuple[str, ...]
    beside: str
    steps: tuple[int, ...]
    guidances: tuple[float, ...]


class Requests:
    """The requests of one program.

    Args:
        progress: of what is prepared before there are sessions, and of what is compiled later.
        choices: what the page offers.
        recordings: the folder of recordings.
    """

    def __init__(self, progress: Progress, choices: ChoicesConfig, recordings: Path):
        self.progress, self.choices, self._recordings = progress, choices, recordings
        self.sessions: Sessions | None = None  # once everything is prepared
        self._files: dict[str, Path] = {}  # what can be downloaded: its place on this server -> file
        self._lock = threading.Lock()
        self.table: dict[str, Callable[[Body], dict[str, Any]]] = {
            "open": self.open, "resume": self.resume, "step": self.step, "look": self.look, "begin": self.begin,
            "choose": self.choose, "record": self.record, "leave": self.leave,
        }  # fmt: skip

    def status(self) -> dict[str, Any]:
        """Whether there is something to play, and what is being prepared."""
        count = 0 if self.sessions is None else self.sessions.count()
        return {"ready": self.sessions is not None, "sessions": count, **self.progress.view()}

    def _ready(self) -> Sessions:
        if self.sessions is None:
            raise VgenError("the model is not ready yet: wait until its first frame is there")
        return self.sessions

    def _session(self, body: Body) -> Session:
        return self._ready().get(text(body, "session", 64))

    def open(self, body: Body) -> dict[str, Any]:
        """A session for a tab, with its first run and all that the page has to know."""
        sessions = self._ready()
        name, session = sessions.open()
        try:
            begun = session.begin(number(body, "seed", MOST_NUMBER))
        except Exception:
            sessions.close(name)
            raise
        return {"session": name, "about": self._about(), "run": session.view(), **shown(begun)}

    def resume(self, body: Body) -> dict[str, Any]:
        """A session that a reloaded page still knows, at its last step."""
        session = self._session(body)
        view = session.view()
        return {"about": self._about(), "run": view, **shown(session.look(view["last"]))}

    def _about(self) -> dict[str, Any]:
        """What the page has to know of the model."""
        scenery = self._ready().scenery
        worlds, first = scenery.worlds, self._ready().choice
        world = worlds.of(first.lanes[0])
        steps = sorted({*self.choices.steps, worlds.sampler.steps})
        return {
            "model": _title(worlds.model.folder), "height": world.size[0], "width": world.size[1], "fps": world.fps,
            "frames": world.future, "commands": [command.name for command in world.codec.info.commands],
            "free_text": bool(world.codec.token_length) and world.codec.space == "none",
            "keys": [
                {"codes": key.codes, "label": key.label} for key in controls.bindings(world.codec)
            ],
            "memories": worlds.memories, "steps": steps, "openings": scenery.openings.view(), "kept": scenery.kept,
            "guidances": sorted({*self.choices.guidances, first.guidance}), "sampler": worlds.sampler.kind,
        }  # fmt: skip

    def step(self, body: Body) -> dict[str, Any]:
        """A step from a node: by the keys that are held, or by a typed text."""
        session = self._session(body)
        scenery = self._ready().scenery
        codec = scenery.worlds.of(session.choice.lanes[0]).codec
        if "text" in body:
            lines = controls.typed(codec, text(body, "text", MOST_TEXT))
        else:
            lines = controls.lines(codec, names(body, "keys"))
        return shown(session.step(number(body, "parent", MOST_NUMBER), lines, number(body, "request", MOST_NUMBER)))

    def look(self, body: Body) -> dict[str, Any]:
        """A node again."""
        return shown(self._session(body).look(number(body, "node", MOST_NUMBER)))

    def begin(self, body: Body) -> dict[str, Any]:
        """A new run, from a picture, an episode, a place, or where the session began."""
        session, seed = self._session(body), number(body, "seed", MOST_NUMBER)
        kind, openings = text(body, "from", 16), self._ready().scenery.openings
        if kind == PICTURE:
            begun = session.begin(seed, openings.picture(content(body, "picture")))
        elif kind == EPISODE:
            episode, frame = number(body, "episode", MOST_NUMBER), number(body, "frame", MOST_NUMBER)
            begun = session.begin(seed, openings.episode(episode, frame))
        elif kind == PLACE:
            begun = session.begin(seed, place=number(body, "place", MOST_NUMBER))
        elif kind == "again":
            begun = session.again(seed)
        else:
            raise VgenError(f"a run begins from a {PICTURE}, an {EPISODE}, a {PLACE} or again, not from {kind!r}")
        return {"run": session.view(), **shown(begun)}

    def choose(self, body: Body) -> dict[str, Any]:
        """Other memories, sampling steps or guidance, from the next step on."""
        session, about = self._session(body), self._about()
        given = Choice(
            text(body, "memory", 64), text(body, "beside", 64), number(body, "steps", MOST_NUMBER),
            real(body, "guidance"), flag(body, "real"),
        )  # fmt: skip
        for name, value, offered in (
            ("steps", given.steps, about["steps"]), ("guidance", given.guidance, about["guidances"]),
        ):  # fmt: skip
            if value not in offered:
                raise VgenError(f"{name} {value} is not offered: use one of {', '.join(map(str, offered))}")
        session.choose(given)
        return {"run": session.view()}

    def record(self, body: Body) -> dict[str, Any]:
        """Writes what led to a node."""
        session = self._session(body)
        with self._lock:
            self._recordings.mkdir(parents=True, exist_ok=True)
            taken = [int(path.name) for path in self._recordings.iterdir() if path.name.isdecimal()]
            index = max(taken, default=0) + 1
            made = session.record(number(body, "node", MOST_NUMBER), self._recordings / str(index))
            places = {f"recordings/{index}/{name}": path for name, path in made.files.items()}
            self._files |= places
        return {
            "number": index, "folder": str(made.folder), "files": list(places), "command": made.command,
            "note": made.note,
        }  # fmt: skip

    def file(self, place: str) -> Path | None:
        """The file of a recording by the place at which it was offered; ``None`` for any other."""
        with self._lock:
            return self._files[place] if place in self._files else None

    def leave(self, body: Body) -> dict[str, Any]:
        """The page is closed, or loaded again."""
        self._ready().leave(text(body, "session", 64))
        return {}


def shown(stepped: Stepped) -> dict[str, Any]:
    """A step as JSON, each video as one picture of its frames."""
    node = stepped.node
    titles = [lane.memory for lane in node.lanes]
    return {
        "node": node.number, "parent": node.parent, "depth": node.depth, "text": node.text,
        "lines": node.lines, "titles": [*titles, *(["real"] if node.real else [])],
        "videos": [pictures.data_uri(video) for video in stepped.frames], "count": node.shape[1],
        "place": node.place, "gone": stepped.gone, "seconds": round(stepped.seconds, 4), "note": stepped.note,
    }  # fmt: skip


def _title(folder: Path | None) -> str:
    """A model's name: the last parts of its folder that are not called export."""
    parts = [part for part in (folder.parts if folder is not None else ("model",)) if part != "export"]
    return "/".join(parts[-2:])


def _value(body: Body, name: str) -> Any:
    if name not in body:
        raise VgenError(f"the request lacks '{name}'")
    return body[name]


def text(body: Body, name: str, most: int) -> str:
    """A text of at most so many characters.

    Raises:
        VgenError: for anything else, as all of these do.
    """
    value = _value(body, name)
    if not isinstance(value, str) or len(value) > most:
        raise VgenError(f"'{name}' is no text of at most {most} characters")
    return value


def number(body: Body, name: str, most: int) -> int:
    """A whole number from 0 to ``most``."""
    value = _value(body, name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise VgenError(f"'{name}' is no whole number from 0 to {most}")
    return value


def real(body: Body, name: str) -> float:
    """A number."""
    value = _value(body, name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise VgenError(f"'{name}' is no number")
    return float(value)


def flag(body: Body, name: str) -> bool:
    """True or false."""
    value = _value(body, name)
    if not isinstance(value, bool):
        raise VgenError(f"'{name}' is neither true nor false")
    return value


def names(body: Body, name: str) -> list[str]:
    """A few short texts."""
    value = _value(body, name)
    if not isinstance(value, list) or len(value) > MOST_KEYS or not all(isinstance(x, str) for x in value):
        raise VgenError(f"'{name}' is no list of at most {MOST_KEYS} keys")
    return value


def content(body: Body, name: str) -> bytes:
    """Bytes, which are written as base64."""
    try:
        return base64.b64decode(text(body, name, 2**31), validate=True)
    except ValueError as error:
        raise VgenError(f"'{name}' is no base64") from error
