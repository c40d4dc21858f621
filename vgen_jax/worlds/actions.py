"""The commands of a World as a model wants them, and streams of them from a list, a file or standard input.

A command lasts one chunk of the data's command book. Text is looked up there, which gives the actions of every frame; a
JSON line may give them itself: ``{"text": "…", "actions": [[…], …]}``, in raw units.
"""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from vgen_jax.data.schema import ActionSpace, DatasetInfo
from vgen_jax.data.text import encode_text, join_texts
from vgen_jax.memory.retrieval import DeadReckoning
from vgen_jax.types import Array, ChunkAction, Command, VgenError


class ActionCodec(NamedTuple):
    """How a model wants its actions.

    Attributes:
        info: of the data it was trained on.
        space: the action space that conditions each frame, or ``none``.
        token_length: tokens of a text; 0 for a model without text.
        frames: f_g, a multiple of the data's chunk.
        texts: tokens, as bytes, of the texts that can be told; ``None`` for any.
    """

    info: DatasetInfo
    space: str
    token_length: int
    frames: int
    texts: frozenset[bytes] | None = None

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

    def chunk(self, command: Command | None) -> ChunkAction:
        """A chunk's action. A text or an id holds for the whole chunk; a sequence has a text for each command of it.

        Raises:
            VgenError: for no command where the model waits for one, an unknown one, a text that it has no embedding of,
                or rows that do not fit.
        """
        action = command if isinstance(command, ChunkAction) else self._chunk(command)
        if self.texts is not None:
            tokens = (
                () if action.token_L is None else np.asarray(action.token_L, np.int32).reshape(-1, self.token_length)
            )
            if not len(tokens) or any(token_L.tobytes() not in self.texts for token_L in tokens):
                raise VgenError(f"the text '{action.text}' has no embedding: announce it in generate.actions, or texts")
        return action

    def _chunk(self, command: str | int | Sequence[str] | Array | None) -> ChunkAction:
        if command is None:
            if self.space == "none" and not self.token_length:
                return ChunkAction("", None, None)
            known = ", ".join(one.name for one in self.info.commands) or "rows of actions"
            raise VgenError(f"this world does not choose its actions: give step a command, one of {known}")
        if isinstance(command, (int, np.integer)) and self.info.commands:
            names = {one.id: one.name for one in self.info.commands}
            if int(command) not in names:
                raise VgenError(f"command {command} is unknown: ids go from 0 to {len(names) - 1}")
            command = names[int(command)]
        if isinstance(command, str):
            command = [command] * max(1, self.frames // self.info.chunk)
        if isinstance(command, (list, tuple)) and all(isinstance(one, str) for one in command):
            found = list(self.chunks(command))
            if len(found) != 1:
                raise VgenError(
                    f"{len(command)} commands are not a step's: a step of {self.frames} frames takes "
                    f"{self.frames // self.info.chunk}"
                )
            return found[0]
        return self.rows(np.asarray(command))

    def rows(self, values: np.ndarray) -> ChunkAction:
        """The action of rows or ids in raw units, without a text; see ``types.Command``."""
        if self.space == "none":
            raise VgenError("this world is told what to do by text alone: give step a text")
        space = self.info.action_spaces[self.space]
        axes = 1 if space.kind == "continuous" else 0  # of a single action
        if values.ndim == axes:
            values = np.broadcast_to(values, (self.frames, *values.shape))
        shape = (self.frames, space.width) if axes else (self.frames,)
        if values.ndim not in (axes + 1, axes + 2):
            raise VgenError(
                f"actions of shape {values.shape} do not fit: give {shape}, or one more axis for the videos"
            )
        rows = [_checked("rows", row, space, self.frames) for row in values.reshape(-1, *values.shape[-axes - 1 :])]
        action = space.to_model(np.stack(rows)) if values.ndim > axes + 1 else space.to_model(rows[0])
        return ChunkAction("", encode_text("", self.token_length) if self.token_length else None, action)

    def past_actions(self, videos: int, past: int, actions: np.ndarray | None) -> np.ndarray | None:
        """The actions that led to f_p = ``past`` frames, (B, f_p, A) model units, row 0 never read.

        Args:
            actions: raw, those between the frames; ``None`` for frames that stand still.
        """
        if self.space == "none":
            return None
        space = self.info.action_spaces[self.space]
        action_BTA = np.zeros((videos, past, space.width), np.float32)  # zero is the action of standing still
        if actions is not None and past > 1:
            raw = np.asarray(actions)[:, 1 - past :]
            if raw.shape[:2] != (videos, past - 1):
                raise VgenError(f"{raw.shape[:2]} actions do not lead to {videos} videos of {past} frames")
            action_BTA[:, 1:] = space.to_model(raw)
        return action_BTA

    def taken_actions(self, videos: int, past: int, frames: int, actions: np.ndarray | None) -> tuple[np.ndarray, bool]:
        """The actions taken at the frames that open a video, model units, (B, past, A), and whether the last is known.

        The last one leads to the first new frame. Where it is not known it is zero; A is 0 for a model without actions.

        Args:
            frames: how many were given; a single one stands still.
            actions: raw, those between the frames, or one more; ``None`` for frames that stand still.
        """
        if self.space == "none":
            return np.zeros((videos, past, 0), np.float32), False
        raw = None if actions is None else np.asarray(actions)
        known = raw is not None and raw.shape[1] == frames
        between = raw[:, :-1] if raw is not None and known else raw
        between = None if frames == 1 else between
        led_BTA = self.past_actions(videos, past, between)
        assert led_BTA is not None
        last = np.zeros_like(led_BTA[:, :1])
        if raw is not None and known:
            last = self.info.action_spaces[self.space].to_model(raw[:, -1:])
        return np.concatenate([led_BTA[:, 1:], last], axis=1), known

    def raw(self, action_BTA: Array | None) -> np.ndarray | None:
        """Actions in model units as raw ones."""
        return None if action_BTA is None else self.info.action_spaces[self.space].to_raw(np.asarray(action_BTA))


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


class CommandedWorld:
    """What Worlds have in common whose commands an ActionCodec reads."""

    codec: ActionCodec

    @property
    def future(self) -> int:
        """Frames of a step."""
        return self.codec.frames

    @property
    def fps(self) -> float:
        """Frames per second of the data that the model was trained on."""
        return self.codec.info.fps

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that it knows; each has an id, its place here, and paraphrases."""
        return tuple(command.name for command in self.codec.info.commands)


def commanded_pose(info: DatasetInfo, texts: Sequence[tuple[int, str]], map_units: float) -> np.ndarray:
    """x, y, z and heading of every frame, the first one included, (T, 4), by the commands alone.

    Raises:
        VgenError: for data without actions that tell it (``memory.retrieval.DeadReckoning``).
    """
    names = info.action_spaces["continuous"].names if "continuous" in info.action_spaces else ()
    walk = DeadReckoning(names, (1.0,) * len(names))
    parts = [part for _, text in texts for part in text.split(", then ")]
    raw = np.asarray([(0.0,) * len(names), *(action for part in parts for action in info.book[part].actions)])
    poses = walk.poses(raw)
    return np.stack([map_units * poses.x, map_units * poses.y, np.zeros(len(raw)), poses.heading], axis=-1)
