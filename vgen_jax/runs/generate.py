"""Run ``generate``: a long video from a trained slow model and a stream of actions.

Everything streams: an action is read when its chunk's turn comes, a chunk's frames are decoded and written while the
next one is being sampled, and memory does not grow with the length. A rollout that was killed goes on when the same
command is started again (``worlds.resume``).
"""

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.data.records import EpisodeSource
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.files import media
from vgen_jax.files.log import peak_mib, progress
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.files.videos import Videos
from vgen_jax.learning.slow import Preempted, StopSignal
from vgen_jax.memory.files import save_memory
from vgen_jax.runs.embed_texts import checked, told, with_texts
from vgen_jax.types import Array, Key, Memory, VgenError
from vgen_jax.worlds.actions import ActionCodec, cycled, read_lines
from vgen_jax.worlds.memories import MEMORY_FILE, MemoryConfig, chunk_sampler, loaded, make_memory, settings
from vgen_jax.worlds.resume import STATE_FILE, Saved, load_standing, save_standing
from vgen_jax.worlds.rollout import ChunkAction, Generated, Standing, Start, fresh_memory, opening, rollout
from vgen_jax.worlds.slow import SlowModel, frame_size, load_slow_model

PEAK_EVERY = 100  # frames between two notes of the peak memory


@dataclasses.dataclass(frozen=True)
class StartConfig:
    """The frames that a rollout begins with.

    Attributes:
        image: a picture to start from, held still for f_p frames; empty to start from data.
        data_dir, split: recorded frames to start from.
        episodes: one video per episode.
        frame: the last past frame's number in each episode.
        still: hold that frame still for f_p frames instead of using the f_p frames that lead to it.
    """

    image: str
    data_dir: str
    split: str
    episodes: tuple[int, ...]
    frame: int
    still: bool


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
    start, first = starting_point(model, start_config, generate)
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


def token_length(model: SlowModel) -> int:
    """Tokens of the model's texts; 0 for a model without text."""
    return model.config.text.max_length if model.config.text.width else 0


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


def chunk_decoder(model: SlowModel, frames: int) -> Callable[[Array], list[Array]]:
    """Latents of a chunk as uint8 frames in slices of ``frames``; dispatched, not waited for."""
    decode = jax.jit(lambda decode, latents: decode(latents))

    def view(latents_BTHWC: Array) -> list[Array]:
        starts = range(0, latents_BTHWC.shape[1], frames)
        return [decode(model.autoencoder.decode, latents_BTHWC[:, at : at + frames]) for at in starts]

    return view


def starting_point(model: SlowModel, config: StartConfig, generate: GenerateConfig) -> tuple[Start, np.ndarray]:
    """The past latents with their actions, and the last real frame of every video, uint8 (B, H, W, 3)."""
    f_p = generate.past
    if config.image:
        frames_BTHWC = np.repeat(read_image(model, config.image)[None, None], f_p, axis=1)
        action_BTA, id_B = np.zeros((1, f_p, model.config.action_dim), np.float32), np.zeros(1, np.int32)
    else:
        source = EpisodeSource(config.data_dir, config.split)
        pairs = [recorded_past(model, source, episode, config, f_p) for episode in config.episodes]
        frames_BTHWC, action_BTA = (np.stack(column) for column in zip(*pairs, strict=True))
        id_B = np.asarray(config.episodes, np.int32)
    encode = jax.jit(lambda encode, frames: encode(frames))
    latents = encode(model.autoencoder.encode, frames_BTHWC)
    actions = None if model.config.actions == "none" else action_BTA
    return Start(latents, actions, id_B), frames_BTHWC[:, -1]


def recorded_past(
    model: SlowModel, source: EpisodeSource, episode: int, config: StartConfig, f_p: int
) -> tuple[np.ndarray, np.ndarray]:
    """f_p recorded frames, uint8 (f_p, H, W, 3), and the actions that led to them, (f_p, A); row 0 is never read."""
    if not 0 <= episode < len(source):
        raise VgenError(f"start.episodes has {episode} but {source.folder} has {len(source)} of split {source.split}")
    first = config.frame if config.still else config.frame - f_p + 1
    if first < 0 or config.frame >= source.frames[episode]:
        frames = source.frames[episode]
        raise VgenError(f"start.frame {config.frame} leaves no {f_p} past frames among {frames}: change it")
    action_TA = np.zeros((f_p, model.config.action_dim), np.float32)
    if config.still:  # an image that does not move: zero is the action of standing still
        return np.repeat(source.window(episode, config.frame, config.frame + 1), f_p, axis=0), action_TA
    space = model.config.actions
    if space != "none" and f_p > 1:
        raw = source.head(episode).tensors[f"actions.{space}"][first : config.frame]
        action_TA[1:] = model.data.action_spaces[space].to_model(raw)
    return source.window(episode, first, config.frame + 1), action_TA


def read_image(model: SlowModel, path: str) -> np.ndarray:
    """A picture, resized to the size of the model's frames, uint8 (H, W, 3)."""
    return media.read_image(path, frame_size(model))


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


class Unfinished:
    """The rollout's place on disk.

    Attributes:
        settings: of its memory and model, kept with it.
        every: chunks between two saves.
        seconds: that it took before this process.
    """

    def __init__(self, path: Path, settings: dict[str, Any], every: int):
        self._path, self.settings, self.every, self.seconds = path, settings, every, 0.0

    def load(self, memory: Memory, start: Start, rng: Key) -> Standing | None:
        """Where the rollout with this memory, start and key stands; ``None`` at its beginning."""
        if not self._path.is_file():
            return None
        saved = load_standing(self._path, opening(start), fresh_memory(memory, start, rng), self.settings)
        self.seconds = saved.seconds
        print(f"goes on after {saved.standing.chunks} chunks", flush=True)
        return saved.standing

    def save(self, chunk: Generated, seconds: float) -> None:
        """Writes the place after ``chunk``, whose frames must be safe by then."""
        standing = Standing(chunk.number + 1, chunk.past, chunk.memory)
        save_standing(self._path, Saved(standing, seconds), self.settings)

    def forget(self) -> None:
        """The rollout is finished."""
        self._path.unlink(missing_ok=True)


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
