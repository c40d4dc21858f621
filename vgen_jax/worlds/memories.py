"""The config's section ``memory`` as a Memory."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from vgen_jax.files.exports import digest
from vgen_jax.learning.fast import FastConfig, FastState, fast_step, fast_update, init_fast
from vgen_jax.memory.anchor import Anchor
from vgen_jax.memory.context import Context, ContextConfig
from vgen_jax.memory.files import load_memory
from vgen_jax.memory.none import NoMemory
from vgen_jax.memory.retrieval import DeadReckoning, Retrieval
from vgen_jax.memory.temp_lora import TempLora, TempLoraWhole
from vgen_jax.types import Key, Memory, VgenError, VideoBatch
from vgen_jax.worlds.slow import ADAPTED, Sampling, SlowModel

MEMORY_FILE = "memory.safetensors"


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
    """What a rollout remembers beyond its last f_p frames.

    Attributes:
        kind: ``none``, ``context`` (the last chunks as a longer past), ``anchor`` (the first frame as extra past),
            ``retrieval`` (frames from where the camera was before, to be moved) or ``temp_lora``.
        load: a ``memory.safetensors`` of an earlier run to begin with; empty to begin with nothing.
        sampling: how adapters enter the sampler. ``merged``: into the weights, once per chunk, which needs room for a
            second copy of the adapted weights and takes one video after the other. ``intercepted``: beside the weights
            in every step, all videos at once.
        guidance: how far a prediction goes from that without adapters to that with them (``compose.contrast``); 1 is
            the adapters' own, other values ask the network twice.
        context: of kind ``context``.
        temp_lora: of kind ``temp_lora``.
    """

    kind: Literal["none", "context", "anchor", "retrieval", "temp_lora"]
    load: str
    sampling: Sampling
    guidance: float
    context: ContextConfig
    temp_lora: FastConfig

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise VgenError(f"config key memory.kind is '{self.kind}': use one of {', '.join(KINDS)}")
        if self.sampling not in ("merged", "intercepted"):
            raise VgenError(f"config key memory.sampling is '{self.sampling}': use merged or intercepted")


class Built(NamedTuple):
    """A memory, and how often its update has been compiled so far."""

    memory: Memory
    compilations: Callable[[], int]


def make_memory(config: MemoryConfig, model: SlowModel, past: int, future: int) -> Built:
    """The memory of rollouts with f_p = ``past`` and f_g = ``future``."""
    return KINDS[config.kind](config, model, past, future)


def _without_learning(memory: Memory) -> Built:
    return Built(memory, lambda: 0)


def _context(config: MemoryConfig, model: SlowModel, past: int, future: int) -> Built:
    trained = max(f_p + f_g for f_p, f_g in model.windows)
    return _without_learning(Context(config.context.past_frames(past, future, trained)))


def _retrieval(config: MemoryConfig, model: SlowModel, past: int, future: int) -> Built:
    if not model.config.warp.width:
        raise VgenError("config key memory.kind is 'retrieval', but this model moves no frames: use one with slow.warp")
    space = model.data.action_spaces[model.config.actions]
    return _without_learning(Retrieval(DeadReckoning(space.names, space.scale)))


def _temp_lora(config: MemoryConfig, model: SlowModel, past: int, future: int) -> Built:
    fast, slow, params = config.temp_lora, model.config, jax.device_put(model.params)
    networks = model.denoiser
    pure = fast_step(fast, networks.embed, networks.predict, slow.kind, slow.schedule, slow.masking)
    step = jax.jit(pure, donate_argnums=0)
    update = fast_update(fast, step)
    begin = jax.jit(lambda key_B: init_fast(fast, model.params[ADAPTED], key_B))

    def learn(state: FastState, windows: VideoBatch, key_B: Key) -> FastState:
        return update(state, params, windows, key_B)[0]

    memory = TempLora(begin, learn) if fast.clips == "last" else TempLoraWhole(begin, learn, fast.steps)
    return Built(memory, step._cache_size)  # type: ignore[attr-defined]


KINDS: dict[str, Callable[[MemoryConfig, SlowModel, int, int], Built]] = {
    "none": lambda *_: _without_learning(NoMemory()),
    "context": _context,
    "anchor": lambda *_: _without_learning(Anchor()),
    "retrieval": _retrieval,
    "temp_lora": _temp_lora,
}


def settings(config: MemoryConfig, model: SlowModel) -> dict[str, Any]:
    """What a saved state must have been made with to be gone on with.

    Raises:
        VgenError: for a model that is no export, so that none can be saved for it.
    """
    if model.folder is None:
        raise VgenError("this model has no export, so that no saved memory can be its: leave memory.load empty")
    lora = dataclasses.asdict(config.temp_lora.lora) if config.kind == "temp_lora" else {}
    return {"kind": config.kind, "model_sha256": digest(model.folder), "lora": lora}


def loader(config: MemoryConfig, model: SlowModel) -> Callable[[Any], Any]:
    """A fresh state -> the one that ``config.load`` names, or itself if that names none."""
    if not config.load:
        return lambda m: m
    made_with = settings(config, model)
    return lambda m: load_memory(Path(config.load), m, made_with)
