"""Run ``generate``: a long video from a trained model and a stream of actions, or of actions that it chooses itself.

Everything streams (``worlds.rollout``). A rollout that was killed goes on when the same command is started again.

A model that predicts its own actions (LeAP, RAFI) needs no stream: without one it does what it expects, and the
captions say what that is. SVG-LP and RIVER go on without actions.

Keys:
    model_dir: a model: an export, a converted pipeline, or ``asset:…``.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.devices.preemption import Preempted, StopSignal
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.diffusion.solvers import Solver
from vgen_jax.files.exports import digest
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.memory.files import save_memory
from vgen_jax.types import Command, VgenError, World
from vgen_jax.worlds.assembly import predicting_world, predicts, slow_world
from vgen_jax.worlds.memories import MEMORY_FILE, MemoryConfig, settings
from vgen_jax.worlds.resume import STATE_FILE, Unfinished
from vgen_jax.worlds.rollout import GenerateConfig, Written, action_stream, generate_videos, with_stream_texts
from vgen_jax.worlds.slow import load_slow_model
from vgen_jax.worlds.start import Start, StartConfig, starting_point

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
    written = generated(world, start, stream, world.fps, generate, workdir, made_with)
    state = written.state
    if jax.tree.leaves(state.memory):
        save_memory(workdir / MEMORY_FILE, state.memory, made_with)
    sampled, learnt = world.compilations()
    results = {
        **facts(written, start),
        "seconds_per_frame": written.seconds / max(1, written.frames * len(start.id_B)),
        **{f"peak_memory_mib_frame_{frame}": mib for frame, mib in written.peak_mib.items()},
        "compilations": sampled,
        "memory": memory.kind,
        "memory_compilations": learnt,
        "sampler": f"{sampler.kind} {sampler.steps} steps",
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
    written = generated(world, start, stream, world.fps, generate, workdir, made_with, names)
    chosen_by = "commanded" if told else "its own" if names else "none"
    write_results(workdir, {**facts(written, start), "actions": chosen_by})
    Unfinished(workdir / STATE_FILE, made_with, generate.save_every).forget()


def generated(
    world: World, start: Start, commands: Callable[[int], Iterable[Command | None]], fps: float,
    generate: GenerateConfig, workdir: Path, made_with: Mapping[str, Any], names: tuple[str, ...] = (),
) -> Written:  # fmt: skip
    """``generate_videos`` until SIGTERM.

    Raises:
        Preempted: after SIGTERM, when the chunk at hand has been written and the place saved.
    """
    if generate.actions_from == "-":  # a wait for a line is not to be outlasted
        return generate_videos(world, start, commands, fps, generate, workdir, made_with, names)
    stop = StopSignal()
    try:
        found = generate_videos(world, start, commands, fps, generate, workdir, made_with, names, stop.reached)
    finally:
        stop.restore()
    if found.stopped:
        raise Preempted(found.frames // generate.future)
    return found


def facts(written: Written, start: Start) -> dict[str, Any]:
    """What ``results.json`` says of every generation."""
    return {
        "frames": written.frames,
        "videos": len(start.id_B),
        "seconds": round(written.seconds, 2),
        "resumed_at_frame": written.resumed_at_frame,
        "device": jax.devices()[0].device_kind,
    }
