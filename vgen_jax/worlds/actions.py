"""Streams of actions for rollouts: commands as text, from a list, a file or standard input, one at a time.

A command lasts one chunk of the data's command book. Text is looked up there, which gives the actions of every frame; a
JSON line may give them itself: ``{"text": "…", "actions": [[…], …]}``, in raw units.
"""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from vgen_jax.data.schema import ActionSpace, DatasetInfo
from vgen_jax.data.text import encode_text, join_texts
from vgen_jax.types import VgenError
from vgen_jax.worlds.rollout import ChunkAction


class ActionCodec(NamedTuple):
    """How a model wants its actions.

    Attributes:
        info: of the data it was trained on.
        space: the action space that conditions each frame, or ``none``.
        token_length: tokens of a text; 0 for a model without text.
        frames: f_g, a multiple of the data's chunk.
    """

    info: DatasetInfo
    space: str
    token_length: int
    frames: int

    def step(self, line: str) -> tuple[str, np.ndarray | None]:
        """One line of a stream: its text, and (chunk, A) model units if the model is conditioned on actions."""
        text, given = _parse(line)
        if self.space == "none":
            return text, None
        if given is None:
            command = self.info.book[text]
            given = list(command.actions) if self.space == "continuous" else [command.id] * self.info.chunk
        space = self.info.action_spaces[self.space]
        return text, space.to_model(_checked(line, given, space, self.info.chunk))

    def chunks(self, lines: Iterable[str]) -> Iterator[ChunkAction]:
        """Groups commands into generated chunks of ``frames``; reads no further than the chunk it is asked for.

        Commands at the end that fill no chunk are not used; a warning names them.

        Raises:
            VgenError: for an unknown command, or a chunk that is no whole number of commands.
        """
        if self.frames % self.info.chunk:
            raise VgenError(
                f"a generated chunk of {self.frames} frames is no multiple of the data's commands of "
                f"{self.info.chunk}: use a model trained on other windows"
            )
        lines, count = iter(lines), self.frames // self.info.chunk
        while group := list(itertools.islice(lines, count)):
            if len(group) < count:
                logging.warning("the actions end within a chunk of %d commands: %s not used", count, ", ".join(group))
                return
            steps = [self.step(line) for line in group]
            text = join_texts([text for text, _ in steps])
            token_L = encode_text(text, self.token_length) if self.token_length else None
            rows = [row for _, row in steps if row is not None]
            yield ChunkAction(text, token_L, np.concatenate(rows) if rows else None)


def _checked(line: str, given: Any, space: ActionSpace, chunk: int) -> np.ndarray:
    """The raw actions of one command, (chunk, A) float32 or (chunk,) int32 ids."""
    continuous = space.kind == "continuous"
    try:
        values: np.ndarray = np.asarray(given, np.float32)
    except (TypeError, ValueError):
        values = np.zeros(())
    if values.shape != ((chunk, space.width) if continuous else (chunk,)) or not np.isfinite(values).all():
        wanted = f"{chunk} rows of {space.width} numbers" if continuous else f"{chunk} ids"
        raise VgenError(f"action {line!r} does not fit: give {wanted}")
    if continuous:
        return values
    if not np.isin(values, np.arange(space.width)).all():
        raise VgenError(f"action {line!r} does not fit: ids are whole numbers from 0 to {space.width - 1}")
    return values.astype(np.int32)


def _parse(line: str) -> tuple[str, list | None]:
    if not line.startswith("{"):
        return line, None
    try:
        row = json.loads(line)
        return str(row["text"]), row["actions"]
    except (json.JSONDecodeError, KeyError) as error:
        raise VgenError(f"action {line!r} is not a JSON object with 'text' and 'actions' ({error}): mend it") from error


def read_lines(source: str) -> Iterator[str]:
    """Lines of a file, or of standard input for ``-``, as they come; blank lines and ``#`` comments are skipped.

    Raises:
        VgenError: if there is no such file.
    """
    if source != "-" and not Path(source).is_file():
        raise VgenError(f"{source} is no file of actions: name a text file with one command a line, or - to type them")
    stream = sys.stdin if source == "-" else open(source, encoding="utf-8")
    try:
        for line in stream:
            if (stripped := line.strip()) and not stripped.startswith("#"):
                yield stripped
    finally:
        if stream is not sys.stdin:
            stream.close()


def cycled(commands: Iterable[str], count: int) -> Iterator[str]:
    """``count`` commands, the list over and over."""
    return itertools.islice(itertools.cycle(commands), count)
