"""Worlds from settings: the only place where a sampler or a solver, a memory and a model are put together."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from vgen_jax.config import section
from vgen_jax.data.text import encode_text
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.diffusion.solvers import Solver
from vgen_jax.files.assets import PREFIX, asset_folder
from vgen_jax.files.exports import EXPORT_CONFIG
from vgen_jax.learning.fast import FastConfig
from vgen_jax.memory.context import ContextConfig
from vgen_jax.types import Array, VgenError
from vgen_jax.worlds.actions import ActionCodec
from vgen_jax.worlds.leap import LEAP, LeapWorld, leap_world, load_leap_model
from vgen_jax.worlds.memories import MemoryConfig, loader, make_memory
from vgen_jax.worlds.rafi import RAFI, RafiWorld, load_rafi_model, rafi_world
from vgen_jax.worlds.slow import SlowModel, chunk_decoder, frame_size, load_slow_model, token_length
from vgen_jax.worlds.slow_world import SlowWorld, chunk_sampler
from vgen_jax.worlds.texts import embedded_texts, with_texts

STEPS = 25  # of the sampler that is used where none is named
SOLVER = Solver("midpoint", 10, 1.0)  # likewise

PredictingWorld = LeapWorld | RafiWorld  # which say their own actions


def predicts(folder: Path) -> bool:
    """Whether an export is of a World that can be stepped without commands: LeAP's, RIVER's or RAFI's."""
    path = folder / EXPORT_CONFIG
    return path.is_file() and any(name in json.loads(path.read_text()) for name in (LEAP, RAFI))


def predicting_world(folder: Path, solver: Solver, past: int = 0, future: int = 0) -> PredictingWorld:
    """A model that goes on by itself, ready to be stepped.

    Args:
        solver: of a model by flow matching.
        past, future: frames that open a video, and frames of a step; 0 for the training's and the data's.

    Raises:
        VgenError: if a file is missing or does not fit.
    """
    if LEAP in json.loads((folder / EXPORT_CONFIG).read_text()):
        return leap_world(load_leap_model(folder), past, future)
    return rafi_world(load_rafi_model(folder), solver, past, future)


def slow_world(
    model: SlowModel,
    sampler: Sampler,
    memory: MemoryConfig,
    past: int,
    future: int,
    guidance: float = 1.0,
    decode_frames: int = 0,
) -> SlowWorld:
    """A slow model that can be stepped. Every field of ``memory`` counts.

    Args:
        past, future: f_p and f_g of every step.
        guidance: scale of classifier-free guidance; 1 for none.
        decode_frames: frames decoded at once; 0 for all of a step.

    Raises:
        VgenError: for a memory that the model cannot have.
    """
    sample_chunk, sampled = chunk_sampler(model, sampler, guidance, future, memory.sampling, memory.guidance)
    built = make_memory(memory, model, past, future)
    encode = jax.jit(lambda encode, frames: encode(frames))

    def to_latents(frames_BTHWC: Array) -> Array:
        return encode(model.autoencoder.encode, frames_BTHWC)

    return SlowWorld(
        sample_chunk,
        built.memory,
        loader(memory, model),
        to_latents,
        chunk_decoder(model, decode_frames or future),
        action_codec(model, future),
        past,
        frame_size(model),
        lambda: (sampled(), built.compilations()),
    )


def action_codec(model: SlowModel, future: int) -> ActionCodec:
    """How the model wants the actions of f_g = ``future`` frames."""
    return ActionCodec(model.data, model.config.actions, token_length(model), future, embedded_texts(model))


def load_model(folder: str | Path, texts: Sequence[str] = ()) -> SlowModel:
    """A trained model that can be told all of its commands; see ``load_world`` for the arguments."""
    name = str(folder)
    path = asset_folder(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else Path(folder)
    model = load_slow_model(path)
    length = token_length(model)
    if not length:
        return model
    known = [text for command in model.data.commands for text in (command.name, *command.texts)]
    return with_texts(model, path, [encode_text(text, length) for text in (*known, *texts)])


def load_world(
    folder: str | Path,
    memory: str | Mapping[str, Any] | MemoryConfig = "none",
    sampler: int | Sampler | Mapping[str, Any] = STEPS,
    guidance: float = 1.0,
    past: int = 0,
    future: int = 0,
    decode_frames: int = 0,
    texts: Sequence[str] = (),
    solver: Solver | Mapping[str, Any] = SOLVER,
) -> SlowWorld | PredictingWorld:
    """A trained world, ready to be stepped.

    Args:
        folder: an export, or weights that come with the package, ``asset:vizdoom/slow``.
        memory: a kind (``none``, ``context``, ``anchor``, ``retrieval``, ``temp_lora``) with its plainest settings, or
            all settings: a ``MemoryConfig`` or a mapping of its fields, as in a config's section ``memory``.
        sampler: DDIM's steps, or a ``Sampler`` or a mapping of its fields.
        guidance: scale of classifier-free guidance; 1 for none.
        past, future: f_p and f_g of a step; 0 for those of the first windows that the model was trained on.
        decode_frames: frames decoded at once; 0 for all of a step.
        texts: for a model whose texts are embedded by its text tower: those that it will be told besides its commands.
        solver: of a model by flow matching: a ``Solver`` or a mapping of its fields.

    Raises:
        VgenError: if a file is missing or does not fit, or for settings that the model cannot have.
    """
    name = str(folder)
    path = asset_folder(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else Path(folder)
    if predicts(path):
        if memory != "none" or guidance != 1.0 or texts:
            raise VgenError(f"{path} has no memory, guidance or texts: leave these settings out")
        chosen = solver if isinstance(solver, Solver) else section(Solver, solver, "solver")
        return predicting_world(path, chosen, past, future)
    model = load_model(folder, texts)
    f_p, f_g = model.windows[0]
    return slow_world(
        model, _sampler(sampler), _memory(memory), past or f_p, future or f_g, guidance, decode_frames
    )  # fmt: skip


def _memory(given: str | Mapping[str, Any] | MemoryConfig) -> MemoryConfig:
    if isinstance(given, MemoryConfig):
        return given
    if isinstance(given, str):
        return MemoryConfig(given, "", "merged", 1.0, ContextConfig(2, 0), FastConfig())  # type: ignore[arg-type]
    return section(MemoryConfig, given, "memory")


def _sampler(given: int | Sampler | Mapping[str, Any]) -> Sampler:
    if isinstance(given, Sampler):
        return given
    return Sampler("ddim", given) if isinstance(given, int) else section(Sampler, given, "sampler")
