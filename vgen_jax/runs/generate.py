"""Run ``generate``: a long video from a trained slow model and a stream of actions.

Everything streams: an action is read when its chunk's turn comes, a chunk's frames are decoded and written while the
next one is being sampled, and memory does not grow with the length.
"""

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from vgen_jax import build, media
from vgen_jax.actions import ActionCodec, cycled, read_lines
from vgen_jax.data.records import EpisodeSource
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.log import progress
from vgen_jax.memory.none import NoMemory
from vgen_jax.rollout import ChunkAction, SampleChunk, Start, rollout, sample_future
from vgen_jax.runs.folder import keep_config
from vgen_jax.types import VgenError

SHEET_FRAMES = 48


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
        actions: commands, over and over; or one string, a file with a command a line, or ``-`` for standard input.
        guidance: scale of classifier-free guidance; 1 for none.
        seed: of the noise.
        decode_frames: frames decoded at once.
        gif: write a GIF beside every mp4.
    """

    past: int
    future: int
    frames: int
    actions: tuple[str, ...] | str
    guidance: float
    seed: int
    decode_frames: int
    gif: bool


def run(config: ConfigDict, workdir: Path) -> None:
    """Generates; writes ``samples/*.mp4``, ``*.gif``, ``*.png``, ``captions.jsonl`` and ``results.json``."""
    keep_config(config, workdir)
    generate = build.section(GenerateConfig, config.generate, "generate")
    start_config = build.section(StartConfig, config.start, "start")
    model = build.load_slow_model(Path(config.model_dir))
    sampler = build.section(Sampler, config.sampler, "sampler")
    codec = ActionCodec(model.data, model.config.actions, token_length(model), generate.future)
    start, first = starting_point(model, start_config, generate)
    sample_chunk, compilations = chunk_sampler(model, sampler, generate.guidance, generate.future)
    chunks = rollout(
        sample_chunk, NoMemory(), start, action_stream(codec, generate), generate.future, jax.random.key(generate.seed)
    )
    seconds, frames = write_videos(model, chunks, first, generate, workdir / "samples")
    results = {
        "frames": frames,
        "videos": len(start.id_B),
        "seconds": round(seconds, 2),
        "seconds_per_frame": seconds / max(1, frames * len(start.id_B)),
        "compilations": compilations(),
        "sampler": f"{sampler.kind} {sampler.steps} steps",
        "device": jax.devices()[0].device_kind,
    }
    (workdir / "results.json").write_text(json.dumps(results, indent=2) + "\n")


def token_length(model: build.SlowModel) -> int:
    """Tokens of the model's texts; 0 for a model without text."""
    return model.config.text.max_length if model.config.text.width else 0


def action_stream(codec: ActionCodec, generate: GenerateConfig) -> Iterator[ChunkAction]:
    """The chunks' actions, at most ``generate.frames`` frames of them."""
    if generate.frames % generate.future:
        raise VgenError(f"generate.frames {generate.frames} is no multiple of generate.future {generate.future}")
    if isinstance(generate.actions, str):
        chunks = codec.chunks(read_lines(generate.actions))
    elif not generate.frames:
        chunks = codec.chunks(generate.actions)
    else:
        chunks = codec.chunks(cycled(generate.actions, generate.frames // codec.info.chunk))
    limit = generate.frames // generate.future or None
    return (chunk for number, chunk in zip(range(limit), chunks, strict=False)) if limit else chunks


def chunk_sampler(model: build.SlowModel, sampler: Sampler, guidance: float, frames: int):
    """The jitted sampler of one chunk, with a function that tells how often it was compiled."""

    @jax.jit
    def sample(params, past, window, key_B):
        predictor = build.guided(model, params, window, guidance)
        condition = model.denoiser.embed(params, window)
        config = model.config
        return sample_future(predictor, condition, past, frames, config.schedule, sampler, config.masking, key_B)

    params = jax.device_put(model.params)

    def sample_chunk(recalled, window, key_B):
        return sample(params, recalled.past_BTHWC, window, key_B)

    typed: SampleChunk = sample_chunk
    return typed, sample._cache_size


def starting_point(model: build.SlowModel, config: StartConfig, generate: GenerateConfig) -> tuple[Start, np.ndarray]:
    """The past latents with their actions, and the last real frame of every video, uint8 (B, H, W, 3)."""
    f_p, space = generate.past, model.config.actions
    if config.image:
        frames_BTHWC = np.repeat(read_image(model, config.image)[None, None], f_p, axis=1)
        ids, actions = np.zeros(1, np.int32), None
    else:
        source = EpisodeSource(config.data_dir, config.split)
        windows, rows = [], []
        for episode in config.episodes:
            if not 0 <= episode < len(source):
                raise VgenError(f"start.episodes has {episode} but {config.data_dir} has {len(source)} of {config.split}")
            record = source.record(episode)
            first = config.frame if config.still else config.frame - f_p + 1
            if first < 0 or config.frame >= record.frames:
                raise VgenError(f"start.frame {config.frame} leaves no {f_p} past frames within {record.frames}")
            frames = record.window(first, config.frame + 1)
            windows.append(np.repeat(frames, f_p, axis=0) if config.still else frames)
            if space != "none":
                values = model.data.action_spaces[space].to_model(record.tensors[f"actions.{space}"])
                rows.append(values[max(0, first - 1) : config.frame])
        frames_BTHWC = np.stack(windows)
        ids = np.asarray(config.episodes, np.int32)
        actions = rows
    action_BTA = None
    if space != "none":
        action_BTA = np.zeros((len(ids), f_p, model.config.action_dim), np.float32)
        if actions and not config.still:
            for b, values in enumerate(actions):
                action_BTA[b, 1:] = values[-(f_p - 1) :] if f_p > 1 else values[:0]
    encode = jax.jit(lambda encode, frames: encode(frames))
    return Start(encode(model.autoencoder.encode, frames_BTHWC), action_BTA, ids), frames_BTHWC[:, -1]


def read_image(model: build.SlowModel, path: str) -> np.ndarray:
    """A picture, resized to the size of the model's frames, uint8 (H, W, 3)."""
    return media.read_image(path, build.frame_size(model))


def write_videos(model: build.SlowModel, chunks, first_BHWC: np.ndarray, generate: GenerateConfig, folder: Path):
    """Decodes in slices and writes as chunks come. Returns (seconds, new frames per video)."""
    decode = jax.jit(lambda decode, latents: decode(latents))
    fps, videos = model.data.fps, len(first_BHWC)
    opening = media.caption_frames(first_BHWC, ["start"] * videos)
    suffixes = (".mp4", ".gif") if generate.gif else (".mp4",)
    size = opening.shape[1:3]
    writers = [[media.VideoWriter(folder / f"video_{b}{s}", fps, size) for s in suffixes] for b in range(videos)]
    total = generate.frames // generate.future or None
    kept, count, begun = [[(first_BHWC[b], "start")] for b in range(videos)], 0, time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder / "captions.jsonl").open("w") as captions:
            for b in range(videos):
                for writer in writers[b]:
                    writer.write(opening[b])
            for chunk in progress(chunks, total=total, desc="generate", unit="chunk"):
                for start in range(0, generate.future, generate.decode_frames):
                    part = chunk.latents_BTHWC[:, start : start + generate.decode_frames]
                    frames_BTHWC = np.asarray(decode(model.autoencoder.decode, part))
                    for b in range(videos):
                        shown = media.caption_frames(frames_BTHWC[b], [chunk.action.text] * part.shape[1])
                        for writer in writers[b]:
                            writer.write(shown)
                for b in range(videos):
                    if len(kept[b]) < SHEET_FRAMES:
                        kept[b].append((frames_BTHWC[b, -1], chunk.action.text))
                captions.write(json.dumps({"frame": count + 1, "text": chunk.action.text}) + "\n")
                count += generate.future
    finally:
        for pair in writers:
            for writer in pair:
                writer.close()
    seconds = time.perf_counter() - begun
    for b in range(videos):
        frames, texts = zip(*kept[b], strict=True)
        media.write_png(folder / f"video_{b}.png", media.contact_sheet(frames, texts))
    return seconds, count
