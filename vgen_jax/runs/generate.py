"""Run ``generate``: a long video from a trained slow model and a stream of actions.

Everything streams: an action is read when its chunk's turn comes, a chunk's frames are decoded and written while the
next one is being sampled, and memory does not grow with the length. A rollout that was killed goes on when the same
command is started again (``worlds.resume``).
"""

import dataclasses
import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.files.log import peak_mib, progress
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.files.videos import Videos
from vgen_jax.learning.slow import Preempted, StopSignal
from vgen_jax.memory.files import save_memory
from vgen_jax.types import VgenError
from vgen_jax.worlds.actions import ActionCodec, cycled, read_lines
from vgen_jax.worlds.memories import MEMORY_FILE, MemoryConfig, loaded, make_memory, settings
from vgen_jax.worlds.resume import STATE_FILE, Unfinished
from vgen_jax.worlds.rollout import ChunkAction, Generated, Standing, rollout
from vgen_jax.worlds.sampling import chunk_sampler
from vgen_jax.worlds.slow import chunk_decoder, load_slow_model, token_length
from vgen_jax.worlds.start import StartConfig, starting_point
from vgen_jax.worlds.texts import checked, told, with_texts

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


def run(config: ConfigDict, workdir: Path) -> None:
    """Generates; writes ``samples/`` (mp4, GIF, contact sheet, frames, captions), ``results.json``, the memory."""
    keep_config(config, workdir)
    generate = section(GenerateConfig, config.generate, "generate")
    start_config = section(StartConfig, config.start, "start")
    memory_config = section(MemoryConfig, config.memory.to_dict(), "memory")
    model = load_slow_model(Path(config.model_dir))
    sampler = section(Sampler, config.sampler, "sampler")
    codec = ActionCodec(model.data, model.config.actions, token_length(model), generate.future)
    typed = generate.actions_from == "-"
    announced = codec.chunks(generate.actions) if typed else action_stream(codec, generate)
    model = with_texts(model, config.model_dir, told(codec, announced, typed))
    start, first = starting_point(model, start_config, generate.past)
    sample_chunk, compilations = chunk_sampler(
        model, sampler, generate.guidance, generate.future, memory_config.sampling, memory_config.guidance
    )
    memory, rng = make_memory(memory_config, model, generate.past, generate.future), jax.random.key(generate.seed)
    unfinished = Unfinished(workdir / STATE_FILE, settings(memory_config, Path(config.model_dir)), generate.save_every)
    since = unfinished.load(memory.memory, start, rng)
    m = None if since else loaded(memory_config, memory.memory, start, rng, Path(config.model_dir))
    done = since.chunks if since else 0
    actions, view = checked(model, action_stream(codec, generate, done)), chunk_decoder(model, generate.decode_frames)
    chunks = rollout(sample_chunk, memory.memory, start, actions, generate.future, rng, m, view, since)
    with Videos(workdir / "samples", first, model.data.fps, generate.gif, generate.future, done) as videos:
        written = write_videos(chunks, videos, generate, unfinished, since)
    if jax.tree.leaves(written.memory):
        save_memory(workdir / MEMORY_FILE, written.memory, unfinished.settings)
    results = {
        "frames": written.frames,
        "videos": len(start.id_B),
        "seconds": round(written.seconds, 2),
        "seconds_per_frame": written.seconds / max(1, written.frames * len(start.id_B)),
        "resumed_at_frame": done * generate.future,
        **{f"peak_memory_mib_frame_{frame}": mib for frame, mib in written.peak_mib.items()},
        "compilations": compilations(),
        "memory": memory_config.kind,
        "memory_compilations": memory.compilations(),
        "sampler": f"{sampler.kind} {sampler.steps} steps",
        "device": jax.devices()[0].device_kind,
    }
    write_results(workdir, results)
    unfinished.forget()


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
        frames: new ones, per video.
        seconds: that it took.
        peak_mib: peak memory by a few frame numbers.
        memory: the memory's state in the end.
    """

    frames: int
    seconds: float
    peak_mib: dict[int, float]
    memory: Any


def write_videos(
    chunks: Iterable[Generated],
    videos: Videos,
    generate: GenerateConfig,
    unfinished: Unfinished,
    since: Standing | None,
) -> Written:
    """Writes decoded chunks (``chunk_decoder``) as they come, and now and then where the rollout stands.

    Raises:
        Preempted: after SIGTERM, when the chunk at hand has been written and the place saved.
    """
    done, m = (since.chunks, since.memory) if since else (0, None)
    peaks: dict[int, float] = {}
    begun = time.perf_counter() - unfinished.seconds
    stop = None if generate.actions_from == "-" else StopSignal()  # a wait for a line is not to be outlasted
    try:
        with progress(total=generate.frames // generate.future or None, desc="generate", unit="chunk") as bar:
            bar.update(done)
            for chunk in chunks:
                videos.add(chunk.view, chunk.action.text)
                done, m = chunk.number + 1, chunk.memory
                stopping = stop is not None and stop.reached(done)
                if done % unfinished.every == 0 or stopping:
                    videos.flush()
                    unfinished.save(chunk, time.perf_counter() - begun)
                if stopping:
                    raise Preempted(done)
                if done * generate.future % PEAK_EVERY < generate.future:
                    peaks[done * generate.future] = round(peak_mib(), 1)
                bar.update()
    finally:
        if stop is not None:
            stop.restore()
    return Written(done * generate.future, time.perf_counter() - begun, peaks, m)
