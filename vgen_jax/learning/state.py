"""What a training run carries: parameters, their moving average, the optimiser and the step."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax

from vgen_jax.types import Array, Key, Params, VgenError


@flax.struct.dataclass
class TrainState:
    """The state of a run. ``step`` counts finished updates."""

    step: Array
    params: Any
    ema: Any
    opt_state: Any


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser.

    Attributes:
        kind: ``adam`` or ``adamw``.
        learning_rate: peak rate.
        warmup_steps: linear warm-up from 0.
        decay: after the warm-up ``constant``, or ``cosine`` down to a tenth of the peak at ``decay_steps``.
        decay_steps: length of the whole schedule; used by ``cosine``.
        b1, b2, eps: Adam's.
        weight_decay: of AdamW, on parameters with at least two axes.
        clip: largest global norm of the gradient; 0 does not clip.
    """

    kind: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 1e-4
    warmup_steps: int = 0
    decay: Literal["constant", "cosine"] = "constant"
    decay_steps: int = 0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0


def learning_rate(config: OptimizerConfig) -> optax.Schedule:
    """The rate at a step."""
    if config.decay == "constant":
        after: optax.Schedule = optax.constant_schedule(config.learning_rate)
    elif config.decay == "cosine":
        length = config.decay_steps - config.warmup_steps
        if length <= 0:
            raise VgenError(
                f"optimizer.decay_steps {config.decay_steps} must exceed optimizer.warmup_steps {config.warmup_steps}"
            )
        after = optax.cosine_decay_schedule(config.learning_rate, length, alpha=0.1)
    else:
        raise VgenError(f"optimizer.decay '{config.decay}' is unknown: use constant or cosine")
    if not config.warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping, then Adam or AdamW with the rate's schedule."""
    rate = learning_rate(config)
    if config.kind == "adam":
        update = optax.adam(rate, config.b1, config.b2, config.eps)
    elif config.kind == "adamw":
        mask = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)  # noqa: E731
        update = optax.adamw(rate, config.b1, config.b2, config.eps, weight_decay=config.weight_decay, mask=mask)
    else:
        raise VgenError(f"optimizer.kind '{config.kind}' is unknown: use adam or adamw")
    return optax.chain(optax.clip_by_global_norm(config.clip), update) if config.clip else update


def init_state(init: Callable[[Key], Params], optimizer: optax.GradientTransformation, rng: Key) -> TrainState:
    """A fresh state; the moving average starts at the parameters."""
    params = init(rng)
    return TrainState(jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.copy, params), optimizer.init(params))


def ema_update(ema: Any, params: Any, decay: float, step: Array) -> Any:
    """Exponential moving average whose decay grows from 0.1 to ``decay`` as (1 + step) / (10 + step) allows."""
    current = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(params, ema, 1.0 - current)
