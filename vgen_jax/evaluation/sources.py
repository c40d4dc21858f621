"""Where the clips that are scored come from: a folder of videos, recorded episodes, or a model that generates them.

Episodes and models become folders of ``.npz`` files, without loss, so that whatever is scored is scored alike and can
be looked at. A model generates after the first frames of the recorded windows, along their actions and texts. A clip
that is there already is not made again, so a run that was stopped goes on.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from vgen_jax.data.batches import choose_windows
from vgen_jax.data.motion import actions_of, space_of
from vgen_jax.data.records import INFO_FILE, EpisodeSource
from vgen_jax.data.revisits import revisits
from vgen_jax.data.text import encode_text, join_texts
from vgen_jax.data.units import units_of
from vgen_jax.data.windows import Window, WindowIndex, future_texts
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.evaluation.clips import write_clip
from vgen_jax.files.exports import EXPORT_WEIGHTS, digest
from vgen_jax.files.progress import progress
from vgen_jax.files.run_folder import CHECKPOINTS
from vgen_jax.simulators.maze_view import colors_seen, has_walls
from vgen_jax.types import ChunkAction, VgenError
from vgen_jax.worlds import pretrained
from vgen_jax.worlds.assembly import slow_world
from vgen_jax.worlds.memories import MemoryConfig
from vgen_jax.worlds.rollout import rollout
from vgen_jax.worlds.slow import SlowModel, action_width, frame_size, load_slow_model
from vgen_jax.worlds.slow_world import SlowWorld
from vgen_jax.worlds.texts import with_texts


@dataclasses.dataclass(frozen=True)
class WindowsConfig:
    """Which clips are cut from recorded episodes.

    Attributes:
        split: of the data set.
        count: how many, spread over scenes and time.
        past: f_p, frames that open a clip: a model is given them. They are left out of the metrics by ``cut.skip``.
        frames: after those.
        action: the actions stored beside the frames: ``continuous``, ``discrete``, ``motion`` (``data.motion``) or
            ``none``.
        seed: of the choice.
    """

    split: str
    count: int
    past: int
    frames: int
    action: str
    seed: int

    def __post_init__(self) -> None:
        if self.count < 2:
            raise VgenError(f"windows.count is {self.count}: use 2 or more")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """How a model generates.

    Attributes:
        future: f_g of every chunk; divides ``windows.frames``.
        guidance: scale of classifier-free guidance; 1 for none.
        batch_size: clips at a time; changes memory and speed only.
        seed: of the noise.
    """

    future: int
    guidance: float
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.future < 1 or self.batch_size < 1:
            raise VgenError(f"model.future {self.future} and model.batch_size {self.batch_size}: use 1 or more")


class Recorded(NamedTuple):
    """The windows of a data set that are scored."""

    source: EpisodeSource
    config: WindowsConfig
    windows: tuple[Window, ...]


def is_records(folder: str) -> bool:
    """Whether a folder is that of recorded episodes. A model's export has a ``dataset.json`` too, of its training."""
    path = Path(folder)
    return (path / INFO_FILE).is_file() and not (path / EXPORT_WEIGHTS).is_file() and not pretrained.is_pretrained(path)


def is_model(folder: str) -> bool:
    """Whether a folder is an export, a text-to-video model's, or a training's work directory."""
    path = Path(folder)
    exported = (path / EXPORT_WEIGHTS).is_file() or (path / "export" / EXPORT_WEIGHTS).is_file()
    return exported or (path / CHECKPOINTS).is_dir() or pretrained.is_pretrained(path)


def recorded(folder: str, config: WindowsConfig) -> Recorded:
    """The chosen windows of a data set.

    Raises:
        VgenError: latents, too few windows, or actions that the data lack.
    """
    source = EpisodeSource(folder, config.split).open()
    if source.info.content != "frames":
        raise VgenError(f"{folder} holds latents: give the data with frames")
    if config.action != "none":
        space_of(source.info, config.action)
    index = WindowIndex(source.frames, source.info.chunk, config.past, config.frames)
    numbers = choose_windows(source, index, config.count, config.seed)
    return Recorded(source, config, tuple(index[number] for number in numbers))


def write_recorded(data: Recorded, folder: Path) -> Path:
    """Cuts the windows; with their actions, and with what the recording knows of pairs of views and of walls."""
    config, units = data.config, units_of(data.source.info.simulator)
    for number, window in _mine(data, folder, "cut"):
        head = data.source.head(window.episode)
        start, stop = window.boundary - config.past + 1, window.boundary + config.frames + 1
        actions = None if config.action == "none" else actions_of(head.tensors, config.action)[start : stop - 1]
        visits = walls = None
        if "extras.pose" in head.tensors:
            visits = revisits(head.tensors["extras.pose"][window.boundary + 1 : stop], units) + config.past
        truth = {name.removeprefix("extras."): values for name, values in head.tensors.items() if "extras." in name}
        if has_walls(truth):
            seen = {**truth, "pose": truth["pose"][start:stop]}
            walls = colors_seen(seen, data.source.info.frame_shape[1])
        write_clip(_clip(folder, number), data.source.window(window.episode, start, stop), actions, visits, walls)
    _wait()
    return folder


def write_generated(
    data: Recorded, model_dir: Path, config: ModelConfig, sampler: Sampler, memory: MemoryConfig, folder: Path
) -> Path:
    """Generates the windows' frames after their first ``past`` ones, which stay as they were recorded.

    Raises:
        VgenError: a model that does not fit the data, or a length that its chunks do not divide.
    """
    past, frames = data.config.past, data.config.frames
    if frames % config.future:
        raise VgenError(f"windows.frames {frames} is no multiple of model.future {config.future}")
    model = load_slow_model(model_dir)
    if frame_size(model) != data.source.info.frame_shape[:2]:
        sizes = ["x".join(str(n) for n in size) for size in (frame_size(model), data.source.info.frame_shape[:2])]
        raise VgenError(f"{model_dir} makes frames of {sizes[0]}, {data.source.folder} holds {sizes[1]}: record others")
    action_width(data.source.info, model.config.actions)
    conditions = [_condition(model, data, window, config.future) for window in data.windows]
    tokens = [token_L for _, token_CL in conditions if token_CL is not None for token_L in token_CL]
    model = with_texts(model, model_dir, tokens)
    world = slow_world(model, sampler, memory, past, config.future, config.guidance)
    waiting = list(_mine(data, folder, ""))
    batches = [waiting[at : at + config.batch_size] for at in range(0, len(waiting), config.batch_size)]
    for batch in progress(batches, total=len(batches), desc="generate", unit="batch"):
        # The last batch is filled up, so that all have one shape: what a clip becomes does not depend on the others.
        rows = [number for number, _ in batch] + [batch[-1][0]] * (config.batch_size - len(batch))
        first = np.stack([_past_of(data, data.windows[number]) for number in rows])
        raw, token_BCL = (_stacked([conditions[number][i] for number in rows]) for i in range(2))
        known = None if raw is None else raw[:, : past - 1]
        state = world.start(first, known, jax.random.key(config.seed), np.asarray(rows, np.int32))
        commands = [_action(world, raw, token_BCL, past, chunk) for chunk in range(frames // config.future)]
        made = [np.asarray(chunk.step.frames_BTHWC) for chunk in rollout(world, state, commands)]
        videos = np.concatenate([first, *made], axis=1)
        for (number, _), video in zip(batch, videos, strict=False):
            write_clip(_clip(folder, number), video, None, None)
    _wait()
    return folder


def generated_contract(model_dir: Path, config: ModelConfig, sampler: Sampler, memory: MemoryConfig) -> dict[str, str]:
    """What made the generated clips; none of it decides what the numbers mean."""
    return {
        "model_sha256": digest(model_dir),
        "sampler": f"{sampler.kind} {sampler.steps} steps eta {sampler.eta} guidance {config.guidance}",
        "chunk_frames": str(config.future),
        "memory": memory.kind,
        "seed": str(config.seed),
    }


def _condition(
    model: SlowModel, data: Recorded, window: Window, future: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The actions between a window's frames, raw (T, A), and the tokens of each generated chunk, (C, L)."""
    head, past, frames = data.source.head(window.episode), data.config.past, data.config.frames
    action, tokens, space, size = None, None, model.config.actions, model.config.text.max_length
    if space != "none":
        action = head.tensors[f"actions.{space}"][window.boundary - past + 1 : window.boundary + frames]
    if model.config.text.width:
        texts = (join_texts(future_texts(head.texts, window.boundary + at, future)) for at in range(0, frames, future))
        tokens = np.stack([encode_text(text, size) for text in texts])
    return action, tokens


def _action(
    world: SlowWorld, raw: np.ndarray | None, token_BCL: np.ndarray | None, past: int, chunk: int
) -> ChunkAction:
    """What is done in a chunk, in each video, of the ``raw`` actions between all frames."""
    rows = slice(past - 1 + chunk * world.future, past - 1 + (chunk + 1) * world.future)
    action = ChunkAction("", None, None) if raw is None else world.codec.rows(raw[:, rows])
    return action._replace(token_L=None if token_BCL is None else token_BCL[:, chunk])


def _past_of(data: Recorded, window: Window) -> np.ndarray:
    return data.source.window(window.episode, window.boundary - data.config.past + 1, window.boundary + 1)


def _stacked(parts: list[np.ndarray | None]) -> np.ndarray | None:
    there = [part for part in parts if part is not None]
    return np.stack(there) if there else None


def _mine(data: Recorded, folder: Path, what: str) -> Iterator[tuple[int, Window]]:
    """This process's windows that are not written yet."""
    every = range(jax.process_index(), len(data.windows), jax.process_count())
    waiting = [number for number in every if not _clip(folder, number).is_file()]
    for number in progress(waiting, total=len(waiting), desc=what, unit="clip") if what else waiting:
        yield number, data.windows[number]


def _clip(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npz"


def _wait() -> None:
    """Until every process has written its clips."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("clips are written")
