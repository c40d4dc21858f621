"""Keys as actions: what it means to a model that some are held, as lines of an actions file.

A step of the player is a list of such lines (``worlds.actions``), one for each of the data's chunks in it. So what was
played can be replayed from a file: both are read by the same code. Whatever is held adds up: an axis of the action
space has two keys, one for each direction, whose strength is that of the data's own commands. Where the sum is one of
these commands its name is the line, so that a model with text is told what it was trained on.

Keys are named by their place on the keyboard, as ``KeyboardEvent.code`` does, whatever is printed on them.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vgen_jax.data.schema import Command, DatasetInfo
from vgen_jax.types import VgenError
from vgen_jax.worlds.actions import ActionCodec

CONTINUOUS, DISCRETE = "continuous", "discrete"
# Keys of the axes that walkers have; the direction is that of the raw action.
_WALKER = {
    "forward": (("KeyW", "ArrowUp"), ("KeyS", "ArrowDown")),
    "turn": (("KeyA", "ArrowLeft"), ("KeyD", "ArrowRight")),  # + is left
    "strafe": (("KeyE",), ("KeyQ",)),  # + is right
}
_PAIRS = (
    (("KeyW", "ArrowUp"), ("KeyS", "ArrowDown")), (("KeyD", "ArrowRight"), ("KeyA", "ArrowLeft")),
    (("KeyE",), ("KeyQ",)), (("KeyR",), ("KeyF",)), (("KeyT",), ("KeyG",)), (("KeyY",), ("KeyH",)),
    (("KeyU",), ("KeyJ",)),
)  # fmt: skip
_DIGITS = tuple(f"Digit{n}" for n in (*range(1, 10), 0))
STILL = ("stay", "noop", "none", "stop")  # names of what is done where nothing is held


class Binding(NamedTuple):
    """A key.

    Attributes:
        codes: the places on a keyboard that mean it, any of them.
        label: what it does.
        row: what it adds to an action, raw units (A,); empty for a key that chooses a whole command.
        line: of such a key, the line of an actions file.
    """

    codes: tuple[str, ...]
    label: str
    row: tuple[float, ...] = ()
    line: str = ""


def bindings(codec: ActionCodec) -> tuple[Binding, ...]:
    """The keys of a model; none for one that is driven by free text alone."""
    info = codec.info
    if CONTINUOUS in info.action_spaces and (codec.space == CONTINUOUS or info.commands):
        return _axes(info)
    if info.commands:
        lines = {command.name: command.name for command in info.commands}
    elif codec.space == DISCRETE:
        names = info.action_spaces[DISCRETE].names
        lines = {name: _json([n] * info.chunk) for n, name in enumerate(names)}
    else:
        return ()
    return tuple(Binding((code,), name, (), line) for code, (name, line) in zip(_DIGITS, lines.items(), strict=False))


def _axes(info: DatasetInfo) -> tuple[Binding, ...]:
    space = info.action_spaces[CONTINUOUS]
    walks = set(space.names) <= set(_WALKER)
    pairs = [_WALKER[name] for name in space.names] if walks else _PAIRS
    found = []
    for axis, (name, keys) in enumerate(zip(space.names, pairs, strict=False)):
        for sign, codes in zip((1.0, -1.0), keys, strict=True):
            row, label = _strength(info, axis, sign)
            found.append(Binding(codes, label or f"{name} {'+' if sign > 0 else '−'}", row))
    order = {"KeyQ": 0, "KeyW": 1, "KeyE": 2, "KeyA": 3, "KeyS": 4, "KeyD": 5}  # as they lie
    return tuple(sorted(found, key=lambda key: order[key.codes[0]] if key.codes[0] in order else len(order)))


def _strength(info: DatasetInfo, axis: int, sign: float) -> tuple[tuple[float, ...], str]:
    """How much a key of an axis does, and the name of the data's weakest command that does that alone, if any."""
    space = info.action_spaces[CONTINUOUS]
    alone = []
    for command in info.commands:
        row = np.asarray(command.actions[0])
        if np.count_nonzero(row) == 1 and row[axis] * sign > 0 and _constant(command):
            alone.append((abs(row[axis]), command.name))
    size, name = min(alone) if alone else (space.scale[axis], "")
    return tuple(sign * size if n == axis else 0.0 for n in range(space.width)), name


def _constant(command: Command) -> bool:
    rows = np.asarray(command.actions)
    return bool((rows == rows[0]).all())


def lines(codec: ActionCodec, codes: Sequence[str]) -> tuple[str, ...]:
    """The lines of one step with these keys held, in the order in which they were pressed.

    Raises:
        VgenError: for a model that no key drives, or that has nothing to do while none is held.
    """
    keys, info = bindings(codec), codec.info
    count = max(1, codec.frames // info.chunk)
    if not keys:
        if codec.space == "none" and not codec.token_length:
            return ("",) * count
        raise VgenError("this model is driven by text: type what is to happen")
    held = [key for code in codes for key in keys if code in key.codes]
    if keys[0].row:
        row = np.sum([key.row for key in dict.fromkeys(held)], axis=0) if held else np.zeros(len(keys[0].row))
        return (_line(codec, np.asarray(row, np.float64)),) * count
    if not held:
        held = [key for key in keys if key.label.lower() in STILL]
    if not held:
        raise VgenError("hold a key: this model has no action that means to do nothing")
    return (held[-1].line,) * count


def _line(codec: ActionCodec, row: np.ndarray) -> str:
    """A chunk of a continuous action: a command's name if it is one, or, for a model of other actions, the nearest."""
    info = codec.info
    scale = np.asarray(info.action_spaces[CONTINUOUS].scale)
    steady = [command for command in info.commands if _constant(command)]
    apart = [float(np.abs((np.asarray(command.actions[0]) - row) / scale).max()) for command in steady]
    if steady and (min(apart) < 1e-6 or codec.space != CONTINUOUS):
        return steady[int(np.argmin(apart))].name
    return _json([[round(float(x), 6) for x in row]] * info.chunk)


def _json(actions: Sequence[object]) -> str:
    return json.dumps({"text": "", "actions": list(actions)})


def typed(codec: ActionCodec, text: str) -> tuple[str, ...]:
    """The lines of one step of which a person typed the text: a command, or as many as a step has, set off by commas.

    Raises:
        VgenError: for more of them than fit.
    """
    count = max(1, codec.frames // codec.info.chunk)
    whole = " ".join(text.split())
    if not whole or whole.startswith("#"):  # which is a comment in a file of actions
        raise VgenError("type a command first")
    if whole.startswith("{") or codec.space == "none" or (codec.info.commands and whole in codec.info.book):
        return (whole,) * count
    parts = tuple(part for part in (piece.strip() for piece in whole.split(",")) if part)
    if len(parts) not in (1, count):
        raise VgenError(f"{len(parts)} commands are not a step's, which has {count}: type one or {count}")
    return parts * (count // len(parts))
