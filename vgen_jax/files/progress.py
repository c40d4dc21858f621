"""What a run shows while it goes: a bar on a terminal, a line a minute elsewhere, and a sign of life without either."""

import contextlib
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from tqdm import tqdm

from vgen_jax.files.log import is_main_process

FIRST_LINE, LINE_EVERY = 5.0, 60.0  # seconds: what ends before the first stays silent


def progress(
    iterable: Iterable[Any] | None = None, *, total: int | None = None, desc: str = "", unit: str = "it"
) -> tqdm:
    """A tqdm bar on a terminal; elsewhere (a log file, a batch job) a line after five seconds, then one a minute.

    Shown by the first process only. Iterate over it, or call ``update(n)`` and ``close()``; it is a context manager.
    """
    disable = not is_main_process()
    if sys.stderr.isatty():
        bar = tqdm(iterable, total=total, desc=desc, unit=unit, disable=disable, dynamic_ncols=True)
        _BARS.add(bar)
        return bar
    lines: Any = _Lines(sys.stderr)  # tqdm asks its file for write and flush alone
    return tqdm(
        iterable,
        total=total,
        desc=desc,
        unit=unit,
        disable=disable,
        file=lines,
        mininterval=FIRST_LINE,
        maxinterval=FIRST_LINE,
        delay=FIRST_LINE,
        bar_format="{desc}: {n_fmt}/{total_fmt} [{elapsed}, {remaining} left, {rate_fmt}{postfix}]",
    )


@contextlib.contextmanager
def sign_of_life(name: str) -> Iterator[None]:
    """While it lasts, a line says so whenever no progress has been shown for a minute: for what has no end in sight.

    The first one comes after five seconds. Not within another one; by the first process alone.
    """
    if _ALIVE.locked() or not is_main_process():
        yield
        return
    ended, since = threading.Event(), time.monotonic()

    def tell() -> None:
        wait = FIRST_LINE
        while not ended.wait(wait):
            wait = LINE_EVERY
            silent = time.monotonic() - max(since, _Lines.last) >= min(LINE_EVERY, time.monotonic() - since)
            if silent and all(bar.disable for bar in _BARS):
                tqdm.write(f"{name}: {tqdm.format_interval(time.monotonic() - since)} so far", file=sys.stderr)

    with _ALIVE:
        thread = threading.Thread(target=tell, name="sign of life", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class _Lines:
    """A file for tqdm that makes lines of a bar that is drawn again and again: the first, one a minute, and the last.

    Attributes:
        last: when the last line of all was written.
    """

    last = 0.0

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._next, self._held = stream, 0.0, ""

    def write(self, text: str) -> None:
        line = text.strip()
        if text == "\n":  # the bar is closed
            line, self._next = self._held, 0.0
        if not line:
            return
        now = time.monotonic()
        if now < self._next:
            self._held = line
            return
        self._held, self._next, _Lines.last = "", now + LINE_EVERY, now
        self._stream.write(line + "\n")

    def flush(self) -> None:
        self._stream.flush()


_BARS: weakref.WeakSet[tqdm] = weakref.WeakSet()  # of terminals
_ALIVE = threading.Lock()  # held while a sign of life is given
