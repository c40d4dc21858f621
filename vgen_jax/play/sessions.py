"""All players of one program: each browser tab is one, up to a limit, and one that is idle is freed."""

import secrets
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from vgen_jax.play.session import Choice, Scenery, Session
from vgen_jax.types import VgenError

SWEEP_EVERY = 1.0  # seconds
GRACE = 5.0  # seconds in which a page that was left may come again


class NoRoom(VgenError):
    """As many play as may."""


class NoSession(VgenError):
    """There is none of that name: it was idle, or the program was started again."""


class Sessions:
    """Sessions by a name that nobody can guess. Threads may share it.

    Args:
        scenery: what they share.
        folder: for what does not stay in memory; whatever is left in it is removed.
        choice: what a new one begins with.
        limit: how many there are at most.
        idle_seconds: after which one is freed.
        first: the number of the place where the first one begins; the next one begins at the next.
    """

    def __init__(self, scenery: Scenery, folder: Path, choice: Choice, limit: int, idle_seconds: float, first: int = 0):
        shutil.rmtree(folder, ignore_errors=True)
        self.scenery, self.choice, self._folder = scenery, choice, folder
        self._limit, self._idle, self._first = limit, idle_seconds, first
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._opened = 0
        self._ended = threading.Event()
        threading.Thread(target=self._sweep, name="idle sessions", daemon=True).start()

    def open(self) -> tuple[str, Session]:
        """A new session and its name; it has not begun a run.

        Raises:
            NoRoom: if there are as many as there may be.
        """
        with self._lock:
            if len(self._sessions) >= self._limit:
                raise NoRoom(f"{self._limit} tabs play already, as many as play.sessions allows: close one of them")
            name, number = secrets.token_urlsafe(16), self._opened
            self._opened += 1
            session = Session(self.scenery, self._folder / str(number), self.choice, self._first + number)
            self._sessions[name] = session
        return name, session

    def get(self, name: str) -> Session:
        """A session; it is not idle any more.

        Raises:
            NoSession: if there is none of that name.
        """
        with self._lock:
            if name not in self._sessions:
                raise NoSession("this run is no longer there: it was idle for too long, or the player was started anew")
            session = self._sessions[name]
            session.seen = time.monotonic()
        return session

    def close(self, name: str) -> None:
        """Frees a session; none of that name is no fault."""
        with self._lock:
            session = self._sessions.pop(name, None)
        if session is not None:
            session.close()

    def leave(self, name: str) -> None:
        """The page was left: a moment later the session is idle, unless the page was only loaded again."""
        with self._lock:
            if name in self._sessions:
                self._sessions[name].seen = time.monotonic() - self._idle + GRACE

    def count(self) -> int:
        """How many there are."""
        return len(self._sessions)

    def free_idle(self, clock: Callable[[], float] = time.monotonic) -> list[str]:
        """Frees those that nobody has used for too long; their names."""
        with self._lock:
            names = [name for name, session in self._sessions.items() if clock() - session.seen > self._idle]
        for name in names:
            self.close(name)
        return names

    def _sweep(self) -> None:
        while not self._ended.wait(SWEEP_EVERY):
            self.free_idle()

    def close_all(self) -> None:
        """Frees all of them and their folder."""
        self._ended.set()
        for name in list(self._sessions):
            self.close(name)
        shutil.rmtree(self._folder, ignore_errors=True)
