"""Long videos: a World, stepped with one command after another, and its videos written as they come.

The next command is asked for only when what the last one led to has been handed out, so that a person may decide on it
after seeing that. Memory does not grow with the length of the video, unless the World's own does. What was interrupted
goes on (``worlds.resume``).
"""

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from vgen_jax.files.log import peak_mib
from vgen_jax.files.progress import progress
from vgen_jax.files.videos import Videos
from vgen_jax.types import ChunkAction, Command, Step, VgenError, World
from vgen_jax.worlds.actions import ActionCodec, cycled, read_lines
from vgen_jax.worlds.assembly import action_codec
from vgen_jax.worlds.resume import STATE_FILE, Unfinished
from vgen_jax.worlds.slow import SlowModel
from vgen_jax.worlds.start import Start
from vgen_jax.worlds.texts import rollout_texts, with_texts

PEAK_EVERY = 100  # frames between two notes of the peak memory


class Generated(NamedTuple):
    """A step of a rollout: its number, the state after it, and what it showed."""

    number: int
    state: Any
    step: Step


def rollout(world: World, state: Any, commands: Iterable[Command | None], first: int = 0) -> Iterator[Generated]:
    """Steps a World for as long as ``commands`` goes on. ``first`` is the number of the first step."""
    for number, command in enumerate(commands, first):
        state, step = world.step(state, command)
        yield Generated(number, state, step)


@dataclasses.dataclass(frozen=True)
class GenerateConfig:
    """What to generate.

    Attributes:
        past, future: f_p and f_g of every chunk.
        frames: new frames in all; a multiple of ``future``. 0: as long as the actions last.
        actions: commands, over and over.
        actions_from: a file with a command a line, or ``-`` for standard input, instead of ``actions``; empty for none.
        guidance: scale of classifier-free guidance; 1 for none.
        seed: of the noise.
        decode_frames: frames decoded at once.
        gif: write a GIF beside every mp4.
        save_every: chunks between two saves of where the rollout stands.
    """

    past: int
    future: int
    frames: int
    actions: tuple[str, ...]
    actions_from: str
    guidance: float
    seed: int
    decode_frames: int
    gif: bool
    save_every: int

    def __post_init__(self) -> None:
        if self.frames % self.future:
            raise VgenError(f"generate.frames {self.frames} is no multiple of generate.future {self.future}")
        if self.save_every < 1:
            raise VgenError(f"generate.save_every is {self.save_every}: use 1 or more")


def action_stream(codec: ActionCodec, generate: GenerateConfig, done: int = 0) -> Iterator[ChunkAction]:
    """The actions of the chunks after the first ``done``, at most ``generate.frames`` frames with these.

    A list, a file or a pipe begins anew when a rollout goes on; who sits at a terminal does not type all again.
    """
    if generate.actions_from:
        chunks = codec.chunks(read_lines(generate.actions_from))
    elif not generate.frames:
        chunks = codec.chunks(generate.actions)
    else:
        chunks = codec.chunks(cycled(generate.actions, generate.frames // codec.info.chunk))
    typed = generate.actions_from == "-" and sys.stdin.isatty()
    limit = generate.frames // generate.future if generate.frames else None
    if typed:
        return itertools.islice(chunks, None if limit is None else limit - done)
    return itertools.islice(chunks, done, limit)


def with_stream_texts(model: SlowModel, generate: GenerateConfig) -> SlowModel:
    """The model with the embeddings of all texts that it will be told, where it takes them from a table."""
    codec, typed = action_codec(model, generate.future), generate.actions_from == "-"
    announced = codec.chunks(generate.actions) if typed else action_stream(codec, generate)
    return with_texts(model, model.folder or "", rollout_texts(codec, announced, typed))


def notes_of(step: Step, names: tuple[str, ...]) -> list[str] | None:
    """The mean action of a step in each video, for its caption; ``None`` where none is to be shown."""
    if not names or step.actions is None:
        return None
    means_BA = step.actions.mean(1)
    short = [name.partition("_")[0] for name in names]
    return [", ".join(f"{name} {value:.2f}" for name, value in zip(short, row, strict=True)) for row in means_BA]


class Written(NamedTuple):
    """What was written.

    Attributes:
        frames: new ones, per video, those of earlier starts included.
        resumed_at_frame: how many of them are of earlier starts.
        seconds: that it took.
        peak_mib: peak memory by a few frame numbers.
        state: the World's in the end.
        stopped: whether it was asked to stop; it goes on when the same is started again.
    """

    frames: int
    resumed_at_frame: int
    seconds: float
    peak_mib: dict[int, float]
    state: Any
    stopped: bool = False


def never(steps: int) -> bool:
    """Stops nowhere."""
    return False


def generate_videos(
    world: World,
    start: Start,
    commands: Callable[[int], Iterable[Command | None]],
    fps: float,
    generate: GenerateConfig,
    workdir: Path,
    made_with: Mapping[str, Any],
    names: tuple[str, ...] = (),
    stops: Callable[[int], bool] = never,
) -> Written:
    """Steps any World and writes its videos; goes on where an earlier start of the same has left a place on disk.

    Args:
        commands: the number of steps that are done -> the commands that follow.
        made_with: what a place on disk must have been made with.
        names: of the actions' dimensions, where captions are to say what was done.
        stops: (steps that are done) -> whether to stop there, for later.
    """
    unfinished = Unfinished(workdir / STATE_FILE, made_with, generate.save_every)

    def standing() -> tuple[int, Any]:
        key = jax.random.key(generate.seed)
        return unfinished.load(world.start(start.frames_BTHWC, start.actions, key, start.id_B))

    done, state = standing()
    chunks = rollout(world, state, commands(done), done)
    del state  # the rollout holds its own: what it began with need not stay in memory
    first = start.frames_BTHWC[:, -1]
    with Videos(workdir / "samples", first, fps, generate.gif, generate.future, done) as videos:
        written = write_videos(chunks, videos, generate, unfinished, done, names, stops)
    return written if written.state is not None else written._replace(state=standing()[1])


def write_videos(
    chunks: Iterable[Generated], videos: Videos, generate: GenerateConfig, unfinished: Unfinished, done: int = 0,
    names: tuple[str, ...] = (), stops: Callable[[int], bool] = never,
) -> Written:  # fmt: skip
    """Writes a rollout's chunks, of any World, as they come, and now and then where it stands.

    Args:
        done: chunks that an earlier start has written.
        names, stops: see ``generate_videos``.
    """
    peaks: dict[int, float] = {}
    first, state, stopped = done, None, False
    begun = time.perf_counter() - unfinished.seconds
    with progress(total=generate.frames // generate.future or None, desc="generate", unit="chunk") as bar:
        bar.update(done)
        for chunk in chunks:
            videos.add([chunk.step.frames_BTHWC], chunk.step.text, notes_of(chunk.step, names))
            done, state = chunk.number + 1, chunk.state
            stopped = stops(done)
            if done % unfinished.every == 0 or stopped:
                videos.flush()
                unfinished.save(done, state, time.perf_counter() - begun)
            if stopped:
                break
            if done * generate.future % PEAK_EVERY < generate.future:
                peaks[done * generate.future] = round(peak_mib(), 1)
            bar.update()
    seconds = time.perf_counter() - begun
    return Written(done * generate.future, first * generate.future, seconds, peaks, state, stopped)
