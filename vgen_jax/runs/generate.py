"""Run ``generate``: a long video from a trained slow model and a stream of actions.

Everything streams: an action is read when its chunk's turn comes, a chunk's frames are decoded and written while the
next one is being sampled, and memory does not grow with the length.
"""

import dataclasses
import json
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from vgen_jax import build, media
from vgen_jax.actions import ActionCodec, cycled, read_lines
from vgen_jax.data.records import EpisodeSource
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.log import progress
from vgen_jax.memory.files import save_memory
from vgen_jax.rollout import ChunkAction, Generated, Start, rollout
from vgen_jax.runs.folder import keep_config, write_results
from vgen_jax.runs.memory import MEMORY_FILE, MemoryConfig, chunk_sampler, loaded, make_memory, settings
from vgen_jax.types import Array, VgenError

SHEET_FRAMES = 48  # pictures on a contact sheet
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


def run(config: ConfigDict, workdir: Path) -> None:
    """Generates; writes ``samples/*.mp4``, ``*.gif``, ``*.png``, ``captions.jsonl``, ``results.json``, the memory."""
    keep_config(config, workdir)
    generate = build.section(GenerateConfig, config.generate, "generate")
    start_config = build.section(StartConfig, config.start, "start")
    memory_config = build.section(MemoryConfig, config.memory.to_dict(), "memory")
    model = build.load_slow_model(Path(config.model_dir))
    sampler = build.section(Sampler, config.sampler, "sampler")
    codec = ActionCodec(model.data, model.config.actions, token_length(model), generate.future)
    start, first = starting_point(model, start_config, generate)
    sample_chunk, compilations = chunk_sampler(
        model, sampler, generate.guidance, generate.future, memory_config.sampling
    )
    memory, rng = make_memory(memory_config, model, generate.past, generate.future), jax.random.key(generate.seed)
    m = loaded(memory_config, memory.memory, start, rng, Path(config.model_dir))
    actions, view = action_stream(codec, generate), chunk_decoder(model, generate.decode_frames)
    chunks = rollout(sample_chunk, memory.memory, start, actions, generate.future, rng, m, view)
    written = write_videos(model, chunks, first, generate, workdir / "samples")
    if jax.tree.leaves(written.memory):
        save_memory(workdir / MEMORY_FILE, written.memory, settings(memory_config, Path(config.model_dir)))
    results = {
        "frames": written.frames,
        "videos": len(start.id_B),
        "seconds": round(written.seconds, 2),
        "seconds_per_frame": written.seconds / max(1, written.frames * len(start.id_B)),
        **{f"peak_memory_mib_frame_{frame}": mib for frame, mib in written.peak_mib.items()},
        "compilations": compilations(),
        "memory": memory_config.kind,
        "memory_compilations": memory.compilations(),
        "sampler": f"{sampler.kind} {sampler.steps} steps",
        "device": jax.devices()[0].device_kind,
    }
    write_results(workdir, results)


def token_length(model: build.SlowModel) -> int:
    """Tokens of the model's texts; 0 for a model without text."""
    return model.config.text.max_length if model.config.text.width else 0


def action_stream(codec: ActionCodec, generate: GenerateConfig) -> Iterator[ChunkAction]:
    """The chunks' actions, at most ``generate.frames`` frames of them."""
    if generate.frames % generate.future:
        raise VgenError(f"generate.frames {generate.frames} is no multiple of generate.future {generate.future}")
    if generate.actions_from:
        chunks = codec.chunks(read_lines(generate.actions_from))
    elif not generate.frames:
        chunks = codec.chunks(generate.actions)
    else:
        chunks = codec.chunks(cycled(generate.actions, generate.frames // codec.info.chunk))
    limit = generate.frames // generate.future or None
    return (chunk for number, chunk in zip(range(limit), chunks, strict=False)) if limit else chunks


def chunk_decoder(model: build.SlowModel, frames: int) -> Callable[[Array], list[Array]]:
    """Latents of a chunk as uint8 frames in slices of ``frames``; dispatched, not waited for."""
    decode = jax.jit(lambda decode, latents: decode(latents))

    def view(latents_BTHWC: Array) -> list[Array]:
        starts = range(0, latents_BTHWC.shape[1], frames)
        return [decode(model.autoencoder.decode, latents_BTHWC[:, at : at + frames]) for at in starts]

    return view


def starting_point(model: build.SlowModel, config: StartConfig, generate: GenerateConfig) -> tuple[Start, np.ndarray]:
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
    model: build.SlowModel, source: EpisodeSource, episode: int, config: StartConfig, f_p: int
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


def read_image(model: build.SlowModel, path: str) -> np.ndarray:
    """A picture, resized to the size of the model's frames, uint8 (H, W, 3)."""
    return media.read_image(path, build.frame_size(model))


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


def peak_mib() -> float:
    """Peak memory so far, MiB: of the device where it tells, else of this process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class VideoFiles:
    """The files of one video, written as its frames come, and the frames kept for its contact sheet."""

    def __init__(self, stem: Path, first_HWC: np.ndarray, fps: float, gif: bool):
        opening = media.caption_frames(first_HWC[None], ["start"])
        suffixes = (".mp4", ".gif") if gif else (".mp4",)
        self._sheet = stem.with_suffix(".png")
        self._writers = [media.VideoWriter(stem.with_suffix(s), fps, opening.shape[1:3]) for s in suffixes]
        self._kept = [(first_HWC, "start")]
        self._write(opening)

    def _write(self, frames_THWC: np.ndarray) -> None:
        for writer in self._writers:
            writer.write(frames_THWC)

    def add(self, frames_THWC: np.ndarray, text: str) -> None:
        """Appends captioned frames."""
        self._write(media.caption_frames(frames_THWC, [text] * len(frames_THWC)))

    def keep(self, frame_HWC: np.ndarray, text: str) -> None:
        """Keeps a chunk's last frame for the contact sheet, as long as there is room."""
        if len(self._kept) < SHEET_FRAMES:
            self._kept.append((frame_HWC, text))

    def close(self) -> None:
        """Finishes the videos and writes the contact sheet."""
        for writer in self._writers:
            writer.close()
        frames, texts = zip(*self._kept, strict=True)
        media.write_png(self._sheet, media.contact_sheet(frames, texts))


def write_videos(
    model: build.SlowModel, chunks: Iterable[Generated], first_BHWC: np.ndarray, generate: GenerateConfig, folder: Path
) -> Written:
    """Writes decoded chunks (``chunk_decoder``) as they come; what is there when something fails stays readable."""
    folder.mkdir(parents=True, exist_ok=True)
    fps = model.data.fps
    videos = [VideoFiles(folder / f"video_{b}", first, fps, generate.gif) for b, first in enumerate(first_BHWC)]
    total = generate.frames // generate.future or None
    count, peaks, m, begun = 0, {}, None, time.perf_counter()
    try:
        with (folder / "captions.jsonl").open("w") as captions:
            for chunk in progress(chunks, total=total, desc="generate", unit="chunk"):
                captions.write(json.dumps({"frame": count + 1, "text": chunk.action.text}) + "\n")
                for part in chunk.view:
                    frames_BTHWC = np.asarray(part)
                    for video, frames_THWC in zip(videos, frames_BTHWC, strict=True):
                        video.add(frames_THWC, chunk.action.text)
                for video, frames_THWC in zip(videos, frames_BTHWC, strict=True):
                    video.keep(frames_THWC[-1], chunk.action.text)
                count, m = count + generate.future, chunk.memory
                if count % PEAK_EVERY < generate.future:
                    peaks[count] = round(peak_mib(), 1)
    finally:
        for video in videos:
            video.close()
    return Written(count, time.perf_counter() - begun, peaks, m)
