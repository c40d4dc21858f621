"""Fast learning: a chunk is written into an adapter's weights, SlowFast-VGen eq. (3) and algorithm 1 (a).

    z' = z^{i-1} ⊕ z^i,  z'_t = alpha_t z' + sigma_t eps, Theta <- Adam(Theta, grad ||eps - eps_{Phi+Theta}(z'_t, t)||²)

The frames that the chunk was given and those that it gave, one behind the other, are noised as a whole at one t; every
frame counts, none is clean, and neither text nor actions are told. That is the loss of slow learning without a clean
past (``objectives.masked_diffusion``), and where the paper is silent it decides as that one does: the error is of
whatever the network predicts; t is uniform; with ``masking.past_t = "zero"`` every frame is told to be at t, since none
is clean; with ``masking.reference`` the network sees beside the others the frame that it sees when sampling, the last
of z^{i-1}, as noisy as the rest. "No text" is the empty text of classifier-free guidance, "no actions" its null action.

Only the adapter and its optimiser are state. One step of one video is one compiled call, of which the network's weights
are an argument; each video of a batch has an adapter, an optimiser and random numbers of its own. The loop over steps
and videos stays outside: a scan, or a ``vmap`` that gives each video kernels of its own, takes a CPU to slow
convolutions (2.6 times as long an update for the VizDoom model), and calls are dispatched without waiting anyway. A
video's part is taken out of the batch's state before its steps and put back after them, by calls of their own: within
the step the compiler would copy the state of all videos.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from vgen_jax.diffusion.masking import Masking
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.nn.lora import Lora, LoraConfig, init_lora, with_lora
from vgen_jax.objectives.masked_diffusion import DiffusionLoss, Embed, Predict, masked_diffusion
from vgen_jax.types import Array, Key, Params, VgenError, VideoBatch


@dataclasses.dataclass(frozen=True)
class FastConfig:
    """How a chunk is learnt. The defaults are the paper's, and the plainest choice where it is silent.

    Attributes:
        lora: the adapter.
        steps: updates per chunk.
        learning_rate: of Adam.
        slow_down: the rate after n steps of an episode is ``learning_rate * slow_down / (slow_down + n)``; 0 keeps it
            as it is (the paper). An adapter that learns what it generated learns its faults as well, and they grow.
        persist_optimizer: Adam's moments last from chunk to chunk; else each chunk begins with fresh ones.
        text: ``empty`` (the paper) or ``keep`` the chunk's.
        actions: ``null`` (the paper) or ``keep`` the chunk's.
        past: ``noised`` (the paper), or ``clean``: then only the new frames are noised and count, as in slow learning.
            With text and actions kept that is the original Temp-LoRA, from input to output.
        clips: what a step learns: the ``last`` window (the paper) or one from the ``whole`` video so far, drawn anew at
            each step ("without local learning rule").
        t_range: t is uniform in this part of the schedule, 0 its cleanest step and 1 its end (the paper's: all of it).
    """

    lora: LoraConfig = LoraConfig()
    steps: int = 1
    learning_rate: float = 1e-4
    slow_down: int = 0
    persist_optimizer: bool = True
    text: Literal["empty", "keep"] = "empty"
    actions: Literal["null", "keep"] = "null"
    past: Literal["noised", "clean"] = "noised"
    clips: Literal["last", "whole"] = "last"
    t_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise VgenError(f"fast.steps is {self.steps}: use 1 or more")
        if self.learning_rate <= 0:
            raise VgenError(f"fast.learning_rate is {self.learning_rate}: use a positive number")
        if self.slow_down < 0:
            raise VgenError(f"fast.slow_down is {self.slow_down}: use 0 or more")
        if self.slow_down and not self.persist_optimizer:
            raise VgenError("fast.slow_down counts the steps of an episode: set fast.persist_optimizer")
        if not 0.0 <= self.t_range[0] < self.t_range[1] <= 1.0:
            raise VgenError(f"fast.t_range is {self.t_range}: use two rising numbers in [0, 1]")
        choices = {
            "text": ("empty", "keep"), "actions": ("null", "keep"), "past": ("noised", "clean"),
            "clips": ("last", "whole"),
        }  # fmt: skip
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise VgenError(f"fast.{name} is '{getattr(self, name)}': use {' or '.join(known)}")
        if self.text == "keep" and self.clips == "whole":
            raise VgenError("fast.text 'keep' does not go with fast.clips 'whole', which reach over many texts")


@flax.struct.dataclass
class FastState:
    """What fast learning has learnt: one of everything per video, on a leading axis.

    Attributes:
        lora: the adapters.
        opt_state: Adam's moments.
    """

    lora: Lora
    opt_state: Any


# (state of one video, without the leading axis, frozen parameters, its window with B = 1, the video's key, number of
# the step) -> (state, loss)
FastStep = Callable[[FastState, Params, VideoBatch, Key, int], tuple[FastState, Array]]
# (state, frozen parameters, windows, keys) -> (state, losses (B, steps))
FastUpdate = Callable[[FastState, Params, VideoBatch, Key], tuple[FastState, Array]]


def init_fast(config: FastConfig, params: Params, key_B: Key) -> FastState:
    """Fresh adapters, one per key, and fresh moments.

    Args:
        params: the network's, or their shapes; the adapter's paths start there.
    """
    lora = jax.vmap(lambda key: init_lora(params, config.lora, key))(key_B)
    return FastState(lora, jax.vmap(optimizer(config).init)(lora))


def optimizer(config: FastConfig) -> optax.GradientTransformation:
    """Adam, at a constant rate unless that slows down."""
    rate, steps = config.learning_rate, config.slow_down
    return optax.adam((lambda n: rate * steps / (steps + n)) if steps else rate)


def fast_step(
    config: FastConfig, embed: Embed, predict: Predict, kind: str, schedule: Schedule, masking: Masking
) -> FastStep:
    """One step of one video as a pure function, to be jitted with a donated state.

    Text tokens and actions may be absent where the network has none.

    Args:
        embed, predict: the frozen network as functions of its parameters; the adapter's paths are those of the module
            that ``predict`` applies.
        kind: what the network predicts.
    """
    adam = optimizer(config)
    dropped = DiffusionLoss(kind, float(config.text == "empty"), float(config.actions == "null"))
    learnt = dataclasses.replace(masking, augment_past=0.0)

    def loss(lora: Lora, params: Params, batch: VideoBatch, rng: Key) -> Array:
        objective = masked_diffusion(
            lambda _, batch: embed(params, batch),
            lambda trained, *inputs: with_lora(predict, trained["lora"])(params, *inputs),
            Partial(jnp.asarray),
            schedule,
            learnt,
            dropped,
            clean_past=config.past == "clean",
            t_range=config.t_range,
        )
        return objective({"lora": lora}, batch, rng)[0]

    def step(state: FastState, params: Params, window: VideoBatch, key: Key, number: int) -> tuple[FastState, Array]:
        lora, moments = state.lora, state.opt_state
        if not config.persist_optimizer:
            moments = jax.tree.map(lambda old, new: jnp.where(number == 0, new, old), moments, adam.init(lora))
        value, grads = jax.value_and_grad(loss)(lora, params, window, jax.random.fold_in(key, number))
        updates, moments = adam.update(grads, moments)
        return FastState(optax.apply_updates(lora, updates), moments), value

    return step


def fast_update(config: FastConfig, step: FastStep) -> FastUpdate:
    """All steps of a chunk, for all videos.

    Its windows have axes (clips, B, …) with as many clips as steps, one each, or a single one for all of them. The
    state that it is given stays as it is: a video's part is copied out of it once, and the steps work on the copy in
    place. So while a chunk is learnt there are two states, three adapters' worth each; afterwards whoever has no more
    use for the old one lets go of it.

    Args:
        step: ``fast_step``'s, jitted with a donated state.
    """

    def update(state: FastState, params: Params, windows: VideoBatch, key_B: Key) -> tuple[FastState, Array]:
        losses, videos = [], key_B.shape[0]
        for video in range(videos):
            own = _taken(state, video)
            for number in range(config.steps):
                window = jax.tree.map(lambda x: x[min(number, len(x) - 1), video][None], windows)  # noqa: B023
                own, loss = step(own, params, window, key_B[video], number)
                losses.append(loss)
            put = _replaced if video == 0 else _put
            state = _alone(own) if videos == 1 else put(state, own, video)
        return state, jnp.stack(losses).reshape(-1, config.steps)

    return update


@jax.jit
def _taken(state: FastState, video: int) -> FastState:
    """One video's part."""
    return jax.tree.map(lambda x: x[video], state)


@jax.jit
def _alone(own: FastState) -> FastState:
    """The state of a batch of one video."""
    return jax.tree.map(lambda x: x[None], own)


def _with(state: FastState, own: FastState, video: int) -> FastState:
    return jax.tree.map(lambda x, new: jax.lax.dynamic_update_index_in_dim(x, new, video, 0), state, own)


_replaced = jax.jit(_with)  # a copy of ``state`` with one video's part replaced
_put = jax.jit(_with, donate_argnums=0)  # the same in place
