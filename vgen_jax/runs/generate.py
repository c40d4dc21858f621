"""Run ``generate``: a long video from a trained model and a stream of actions, or of actions that it chooses itself.

Everything streams: an action is read when its chunk's turn comes, a chunk's frames are decoded and written while the
next one is being sampled, and memory does not grow with the length. A rollout that was killed goes on when the same
command is started again (``worlds.resume``).

A model that predicts its own actions (LeAP, RAFI) needs no stream: without one it does what it expects, and the
captions say what that is. SVG-LP and RIVER go on without actions.

Keys:
    model_dir: a model: an export, a converted pipeline, or ``asset:…``.
"""

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.devices.preemption import Preempted, StopSignal
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.diffusion.solvers import Solver
from vgen_jax.files.exports import digest
from vgen_jax.files.log import peak_mib, progress
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.files.videos import Videos
from vgen_jax.memory.files import save_memory
from vgen_jax.types import ChunkAction, Command, Step, VgenError, World
from vgen_jax.worlds.actions import ActionCodec, cycled, read_lines
from vgen_jax.worlds.assembly import action_codec, predicting_world, predicts, slow_world
from vgen_jax.worlds.memories import MEMORY_FILE, MemoryConfig, settings
from vgen_jax.worlds.resume import STATE_FILE, Unfinished
from vgen_jax.worlds.rollout import Generated, rollout
from vgen_jax.worlds.slow import SlowModel, load_slow_model
from vgen_jax.worlds.start import Start, StartConfig, starting_point
from vgen_jax.worlds.texts import rollout_texts, with_texts

PEAK_EVERY = 100  # frames between two notes of the peak memory


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


SECTIONS: Sections = {
    "generate": GenerateConfig,
    "start": StartConfig,
    "memory": MemoryConfig,
    "sampler": Sampler,
    "solver": Solver,
}


def run(config: ConfigDict, workdir: Path) -> None:
    """Generates; writes ``samples/`` (mp4, GIF, contact sheet, frames, captions), ``results.json``, the memory."""
    keep_config(config, workdir)
    generate = section(GenerateConfig, config.generate, "generate")
    start_config = section(StartConfig, config.start, "start")
    if predicts(Path(config.model_dir)):
        generate_predicted(config, workdir, generate, start_config)
        return
    memory = section(MemoryConfig, config.memory.to_dict(), "memory")
    sampler = section(Sampler, config.sampler, "sampler")
    model = with_stream_texts(load_slow_model(Path(config.model_dir)), generate)
    world = slow_world(
        model, sampler, memory, generate.past, generate.future, generate.guidance, generate.decode_frames
    )  # fmt: skip
    start, made_with = starting_point(world, start_config), settings(memory, model)
    stream = partial(action_stream, world.codec, generate)
    written = generate_videos(world, start, stream, world.fps, generate, workdir, made_with)
    state = written.state
    if jax.tree.leaves(state.memory):
        save_memory(workdir / MEMORY_FILE, state.memory, made_with)
    sampled, learnt = world.compilations()
    results = {
        "frames": written.frames,
        "videos": len(start.id_B),
        "seconds": round(written.seconds, 2),
        "seconds_per_frame": written.seconds / max(1, written.frames * len(start.id_B)),
        "resumed_at_frame": written.resumed_at_frame,
        **{f"peak_memory_mib_frame_{frame}": mib for frame, mib in written.peak_mib.items()},
        "compilations": sampled,
        "memory": memory.kind,
        "memory_compilations": learnt,
        "sampler": f"{sampler.kind} {sampler.steps} steps",
        "device": jax.devices()[0].device_kind,
    }
    write_results(workdir, results)
    Unfinished(workdir / STATE_FILE, made_with, generate.save_every).forget()


def generate_predicted(config: ConfigDict, workdir: Path, generate: GenerateConfig, start_config: StartConfig) -> None:
    """A video of a World that goes on by itself; commands, where there are some, take the place of its own actions."""
    solver = section(Solver, config.solver, "solver")
    folder = Path(config.model_dir)
    world = predicting_world(folder, solver, generate.past, generate.future)
    if generate.guidance != 1.0:
        raise VgenError(f"config key generate.guidance is {generate.guidance}: {folder} has none, use 1.0")
    told = bool(generate.actions or generate.actions_from)
    if not told and not generate.frames:
        raise VgenError("config key generate.frames is 0 and there are no actions that could end: say how many frames")
    made_with = {"model_sha256": digest(folder), "solver": dataclasses.asdict(solver)}

    def stream(done: int) -> Iterable[Command | None]:
        if told:
            return action_stream(world.codec, generate, done)
        return itertools.repeat(None, generate.frames // generate.future - done)

    start = starting_point(world, start_config)
    names = () if world.codec.space == "none" else world.codec.info.action_spaces[world.codec.space].names
    written = generate_videos(world, start, stream, world.fps, generate, workdir, made_with, names)
    results = {
        "frames": written.frames,
        "videos": len(start.id_B),
        "seconds": round(written.seconds, 2),
        "resumed_at_frame": written.resumed_at_frame,
        "actions": "commanded" if told else "its own" if names else "none",
        "device": jax.devices()[0].device_kind,
    }
    write_results(workdir, results)
    Unfinished(workdir / STATE_FILE, made_with, generate.save_every).forget()


def notes_of(step: Step, names: tuple[str, ...]) -> list[str] | None:
    """The mean action of a step in each video, for its caption; ``None`` where none is to be shown."""
    if not names or step.actions is None:
        return None
    means_BA = step.actions.mean(1)
    short = [name.partition("_")[0] for name in names]
    return [", ".join(f"{name} {value:.2f}" for name, value in zip(short, row, strict=True)) for row in means_BA]


def with_stream_texts(model: SlowModel, generate: GenerateConfig) -> SlowModel:
    """The model with the embeddings of all texts that it will be told, where it takes them from a table."""
    codec, typed = action_codec(model, generate.future), generate.actions_from == "-"
    announced = codec.chunks(generate.actions) if typed else action_stream(codec, generate)
    return with_texts(model, model.folder or "", rollout_texts(codec, announced, typed))


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


class Written(NamedTuple):
    """What was written.

    Attributes:
        frames: new ones, per video, those of earlier starts included.
        resumed_at_frame: how many of them are of earlier starts.
        seconds: that it took.
        peak_mib: peak memory by a few frame numbers.
        state: the World's in the end.
    """

    frames: int
    resumed_at_frame: int
    seconds: float
    peak_mib: dict[int, float]
    state: Any


def generate_videos(
    world: World,
    start: Start,
    commands: Callable[[int], Iterable[Command | None]],
    fps: float,
    generate: GenerateConfig,
    workdir: Path,
    made_with: Mapping[str, Any],
    names: tuple[str, ...] = (),
) -> Written:
    """Steps any World and writes its videos; goes on where an earlier start of the same has left a place on disk.

    Args:
        commands: the number of steps that are done -> the commands that follow.
        made_with: what a place on disk must have been made with.
        names: of the actions' dimensions, where captions are to say what was done.
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
        written = write_videos(chunks, videos, generate, unfinished, done, names)
    return written if written.state is not None else written._replace(state=standing()[1])


def write_videos(
    chunks: Iterable[Generated], videos: Videos, generate: GenerateConfig, unfinished: Unfinished, done: int = 0,
    names: tuple[str, ...] = (),
) -> Written:  # fmt: skip
    """Writes a rollout's chunks, of any World, as they come, and now and then where it stands.

    Args:
        done: chunks that an earlier start has written.
        names: see ``generate_videos``.

    Raises:
        Preempted: after SIGTERM, when the chunk at hand has been written and the place saved.
    """
    peaks: dict[int, float] = {}
    first, state = done, None
    begun = time.perf_counter() - unfinished.seconds
    stop = None if generate.actions_from == "-" else StopSignal()  # a wait for a line is not to be outlasted
    try:
        with progress(total=generate.frames // generate.future or None, desc="generate", unit="chunk") as bar:
            bar.update(done)
            for chunk in chunks:
                videos.add([chunk.step.frames_BTHWC], chunk.step.text, notes_of(chunk.step, names))
                done, state = chunk.number + 1, chunk.state
                stopping = stop is not None and stop.reached(done)
                if done % unfinished.every == 0 or stopping:
                    videos.flush()
                    unfinished.save(done, state, time.perf_counter() - begun)
                if stopping:
                    raise Preempted(done)
                if done * generate.future % PEAK_EVERY < generate.future:
                    peaks[done * generate.future] = round(peak_mib(), 1)
                bar.update()
    finally:
        if stop is not None:
            stop.restore()
    seconds = time.perf_counter() - begun
    return Written(done * generate.future, first * generate.future, seconds, peaks, state)
