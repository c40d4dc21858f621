"""What an episode is, and what a folder of episodes says about itself.

Contract: ``actions[t]`` is taken at frame t and leads to frame t+1, so an episode of T frames has T-1 actions. Action
values are stored in raw units (degrees, fractions of a speed); the network sees *model units*, ``value / scale``.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from vgen_jax.types import VgenError

SCHEMA_VERSION = 2
Split = str
Content = Literal["frames", "latents"]


@dataclasses.dataclass(frozen=True)
class ActionSpace:
    """One way to write down an action.

    Attributes:
        kind: ``continuous`` (a row of A floats per step) or ``discrete`` (one int32 id per step).
        names: the A dimensions, or the names of the ids.
        scale: per dimension, raw units that make 1.0 in model units; empty for a discrete space.
    """

    kind: Literal["continuous", "discrete"]
    names: tuple[str, ...]
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind == "continuous" and (len(self.scale) != len(self.names) or not all(s > 0 for s in self.scale)):
            raise VgenError(f"action space {self.names}: scale {self.scale} needs one positive number per name")

    @property
    def width(self) -> int:
        """A: columns of an action in model units."""
        return len(self.names)

    def to_model(self, values: np.ndarray) -> np.ndarray:
        """Raw values, (T, A) or (T,) ids, to model units: float32 (T, A), ``value / scale`` or one-hot."""
        if self.kind == "continuous":
            return np.asarray(values, np.float32) / np.asarray(self.scale, np.float32)
        if values.size and int(values.max()) >= self.width:
            raise VgenError(f"discrete action id {int(values.max())}, the space has {self.width} ids")
        return np.eye(self.width, dtype=np.float32)[values]

    def to_raw(self, values: np.ndarray) -> np.ndarray:
        """``to_model`` undone: (…, A) model units to float32 raw values, or to int32 ids (…)."""
        if self.kind == "continuous":
            return np.asarray(values, np.float32) * np.asarray(self.scale, np.float32)
        return np.asarray(values).argmax(-1).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class TextSpan:
    """``actions[start:stop]`` are described by ``text``."""

    start: int
    stop: int
    text: str


@dataclasses.dataclass(frozen=True)
class Command:
    """A named stretch of actions: one chunk.

    Attributes:
        id: the discrete action id of each of its steps.
        texts: paraphrases; the first is the canonical one, and none belongs to two commands.
        actions: (chunk, A) raw units.
    """

    id: int
    name: str
    texts: tuple[str, ...]
    actions: tuple[tuple[float, ...], ...]


class CommandBook:
    """Looks up commands by name or by any paraphrase, case-insensitively.

    Raises:
        VgenError: two commands share a text, or (on look-up) a text belongs to none.
    """

    def __init__(self, commands: Iterable[Command]):
        self.commands = tuple(commands)
        self._by_text: dict[str, Command] = {}
        for command in self.commands:
            for text in {_fold(t) for t in (command.name, *command.texts)}:
                if text in self._by_text:
                    other = self._by_text[text].name
                    raise VgenError(f"text {text!r} belongs to commands {other!r} and {command.name!r}")
                self._by_text[text] = command

    def __contains__(self, text: str) -> bool:
        return _fold(text) in self._by_text

    def __getitem__(self, text: str) -> Command:
        found = self._by_text.get(_fold(text))
        if found is None:
            names = ", ".join(c.name for c in self.commands)
            raise VgenError(f"unknown command {text!r}; the commands are: {names}")
        return found


def _fold(text: str) -> str:
    return " ".join(text.lower().split())


def may_share_scenes(split: Split, other: Split) -> bool:
    """Whether two splits may hold the same scenes: ``revisit_64`` and ``revisit_200``, one benchmark at two lengths."""
    return split.partition("_")[0] == other.partition("_")[0]


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """One file of a split: the frames T and the scene of each of its episodes, in order."""

    file: str
    frames: tuple[int, ...]
    scenes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """The content of ``dataset.json``.

    Attributes:
        fps: recorded frames per second.
        frame_shape: (H, W, C) of a stored frame or latent.
        content: ``frames`` (uint8) or ``latents`` (float16).
        chunk: actions per command.
        action_spaces: by name, ``continuous`` and ``discrete``; may be empty.
        splits: shards by split name.
        latents: for latents, what made them (autoencoder digest, scale); else ``None``.
    """

    source: str
    simulator: str
    simulator_version: str
    fps: float
    frame_shape: tuple[int, int, int]
    content: Content
    chunk: int
    action_spaces: Mapping[str, ActionSpace]
    commands: tuple[Command, ...]
    splits: Mapping[Split, tuple[ShardInfo, ...]]
    latents: Mapping[str, Any] | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def book(self) -> CommandBook:
        return CommandBook(self.commands)

    def frames(self, split: Split) -> int:
        return sum(sum(shard.frames) for shard in self.splits[split])

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str, where: str) -> "DatasetInfo":
        """Parses ``dataset.json``; ``where`` names the file in errors.

        Raises:
            VgenError: not JSON, another schema version, or a missing or unknown key.
        """
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise VgenError(f"{where}: not valid JSON ({error}); collect or import the data again") from error
        found = raw.get("schema_version") if isinstance(raw, dict) else None
        if found != SCHEMA_VERSION:
            raise VgenError(f"{where}: schema version {found}, this library reads {SCHEMA_VERSION}; make the data anew")
        expected = {field.name for field in dataclasses.fields(cls)}
        if set(raw) != expected:
            raise VgenError(f"{where}: missing or unknown keys {sorted(set(raw) ^ expected)}; make the data again")
        try:
            return cls(**_typed(raw))
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise VgenError(f"{where}: malformed content ({error!r}); make the data again") from error


def _typed(raw: dict[str, Any]) -> dict[str, Any]:
    spaces = {
        name: ActionSpace(space["kind"], tuple(space["names"]), tuple(space["scale"]))
        for name, space in raw["action_spaces"].items()
    }
    commands = tuple(
        Command(c["id"], c["name"], tuple(c["texts"]), tuple(tuple(row) for row in c["actions"]))
        for c in raw["commands"]
    )
    splits = {
        name: tuple(ShardInfo(s["file"], tuple(s["frames"]), tuple(s["scenes"])) for s in shards)
        for name, shards in raw["splits"].items()
    }
    shape = tuple(int(n) for n in raw["frame_shape"])
    return {**raw, "action_spaces": spaces, "commands": commands, "splits": splits, "frame_shape": shape}


@dataclasses.dataclass(frozen=True)
class Episode:
    """One uninterrupted recording.

    Attributes:
        scene: where it was recorded, for example ``freedoom2/map01``; scenes never cross splits.
        seed: what the simulator and the explorer were seeded with.
        frames_THWC: uint8 frames, or float16 latents.
        actions: ``continuous`` (T-1, A) float32 raw units and/or ``discrete`` (T-1,) int32 ids.
        texts: spans over actions, in order, not overlapping.
        extras: ground truth beside the frames; ``pose`` is (T, 4) float32: x, y, z in map units and the heading in
            degrees, counter-clockwise.
    """

    source: str
    simulator: str
    simulator_version: str
    seed: int
    split: Split
    scene: str
    fps: float
    frames_THWC: np.ndarray
    actions: Mapping[str, np.ndarray]
    texts: tuple[TextSpan, ...] = ()
    extras: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def validate(episode: Episode) -> None:
    """Checks an episode against the contract.

    Raises:
        VgenError: the precise fault.
    """
    frames = episode.frames_THWC
    if frames.ndim != 4 or frames.dtype not in (np.uint8, np.float16) or len(frames) < 2:
        raise VgenError(f"frames are {frames.dtype} {frames.shape}; expected uint8 or float16 (T, H, W, C) with T >= 2")
    if frames.dtype == np.float16 and not np.isfinite(frames).all():
        raise VgenError(f"latent of frame {_first_bad(frames)} is not finite")
    if not (math.isfinite(episode.fps) and episode.fps > 0):
        raise VgenError(f"fps is {episode.fps}; expected a positive number")
    steps = len(frames) - 1
    for name, values in episode.actions.items():
        _validate_action(name, values, steps)
    _validate_texts(episode.texts, steps)
    for name, values in episode.extras.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise VgenError(f"extra {name!r} has a value that is not finite at row {_first_bad(values)}")
    pose = episode.extras.get("pose")
    if pose is not None and pose.shape != (len(frames), 4):
        raise VgenError(f"extra 'pose' has shape {pose.shape}; expected {(len(frames), 4)}")


def _validate_action(name: str, values: np.ndarray, steps: int) -> None:
    expected = {"continuous": (2, np.float32), "discrete": (1, np.int32)}
    if name not in expected:
        raise VgenError(f"action space {name!r} is unknown; expected continuous or discrete")
    ndim, dtype = expected[name]
    if values.ndim != ndim or values.dtype != dtype:
        raise VgenError(f"{name} actions are {values.dtype} {values.shape}; expected {np.dtype(dtype)} in {ndim} axes")
    if len(values) != steps:
        raise VgenError(f"{len(values)} {name} actions for {steps + 1} frames; expected {steps} (frames - 1)")
    if ndim == 2 and not np.isfinite(values).all():
        raise VgenError(f"continuous action {_first_bad(values)} is not finite: {values[_first_bad(values)].tolist()}")
    if ndim == 1 and (values < 0).any():
        raise VgenError(f"discrete action {int(np.argmax(values < 0))} is negative")


def _validate_texts(texts: tuple[TextSpan, ...], steps: int) -> None:
    reached = 0
    for span in texts:
        if not (reached <= span.start < span.stop <= steps):
            raise VgenError(
                f"text {span.text!r} spans actions [{span.start}, {span.stop}); spans must be ordered, "
                f"not overlap and lie within the {steps} actions"
            )
        reached = span.stop


def _first_bad(values: np.ndarray) -> int:
    return int(np.argmax(~np.isfinite(values).reshape(len(values), -1).all(axis=1)))
