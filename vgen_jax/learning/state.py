"""What a training run carries: parameters, their moving average, the optimiser, the step and model state."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax

from vgen_jax.config import later
from vgen_jax.learning import muon
from vgen_jax.types import Array, Key, Params, VgenError

MUON_RMS = 0.4  # root mean square of an update at rate 1; Adam's is 0.2 to 0.4
MUON, ADAM = "muon", "adam"
ROOT_END = 1e-7  # the rate at the end of ``root``
FIRST, SECOND = "first", "second"
MODEL_STATE = "model_state"  # where a tree of parameters has the model state, outside of the loop


@flax.struct.dataclass
class TrainState:
    """The state of a run.

    Attributes:
        step: counts finished updates.
        ema: moving average of ``params``.
        model_state: what updates change without a gradient; empty for most networks.
    """

    step: Array
    params: Any
    ema: Any
    opt_state: Any
    model_state: Any = flax.struct.field(default_factory=dict)


def divided(params: Params) -> tuple[Params, Any]:
    """Parameters without and the model state under ``MODEL_STATE``; empty where there is none."""
    if MODEL_STATE not in params:
        return params, {}
    return {name: part for name, part in params.items() if name != MODEL_STATE}, params[MODEL_STATE]


def joined(params: Params, model_state: Any) -> Params:
    """The inverse of ``divided``."""
    return {**params, MODEL_STATE: model_state} if jax.tree.leaves(model_state) else params


def learnt(state: TrainState) -> Params:
    """What is evaluated and exported: the moving average, and beside it the newest model state."""
    return joined(state.ema, state.model_state)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser.

    Attributes:
        kind: ``adam``, ``adamw``, or ``muon`` (Jordan et al. 2024; its updates scaled to Adam's size as by Liu et
            al. 2025, so that one rate serves both) for the kernels that ``muon_kernels`` names, and Nesterov's Adam for
            the rest.
        learning_rate: peak rate.
        warmup_steps: linear warm-up from 0.
        decay: after the warm-up ``constant``, or ``cosine`` down to a tenth of the peak at ``decay_steps``, or
            ``root`` down to 1e-7 there as the square root of what is left of the way (RIVER).
        decay_steps: length of the whole schedule; used by ``cosine`` and ``root``.
        b1, b2, eps: Adam's.
        weight_decay: of AdamW and Muon, on parameters with at least two axes.
        clip: largest global norm of the gradient; 0 does not clip.
        muon_kernels: regular expression, searched in paths like ``unet/mid_layer_0/resnet/conv1/kernel``. Muon is meant
            for hidden layers: first and last layers and embeddings are better left to Adam.
        second: another optimiser, for a part of the parameters; ``None`` for none.
    """

    kind: Literal["adam", "adamw", "muon"] = "adam"
    learning_rate: float = 1e-4
    warmup_steps: int = 0
    decay: Literal["constant", "cosine", "root"] = "constant"
    decay_steps: int = 0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0
    muon_kernels: str = ""
    second: "SecondOptimizer | None" = later(None)


@dataclasses.dataclass(frozen=True)
class SecondOptimizer:
    """An optimiser for a part of the parameters, a discriminator's for example.

    Attributes:
        parameters: regular expression, searched in paths like ``discriminator/conv1/kernel``: which they are. The first
            optimiser has the others; each clips the norm of its own gradient.
        optimizer: their optimiser; it has no second one.
    """

    parameters: str
    optimizer: OptimizerConfig

    def __post_init__(self) -> None:
        if self.optimizer.second is not None:
            raise VgenError("optimizer.second.optimizer.second is set: there are two optimisers, use None")


def learning_rate(config: OptimizerConfig) -> optax.Schedule:
    """The rate at a step."""
    if config.decay == "constant":
        after: optax.Schedule = optax.constant_schedule(config.learning_rate)
    elif config.decay in ("cosine", "root"):
        length = config.decay_steps - config.warmup_steps
        if length <= 0:
            raise VgenError(
                f"optimizer.decay_steps {config.decay_steps} must exceed optimizer.warmup_steps {config.warmup_steps}"
            )
        if config.decay == "cosine":
            after = optax.cosine_decay_schedule(config.learning_rate, length, alpha=0.1)
        else:
            after = optax.polynomial_schedule(config.learning_rate, ROOT_END, 0.5, length)
    else:
        raise VgenError(f"optimizer.decay '{config.decay}' is unknown: use constant, cosine or root")
    if not config.warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping, then Adam, AdamW or Muon with the rate's schedule; each part of the parameters with its own."""
    if config.second is None:
        return _whole_optimizer(config)
    both = {FIRST: _whole_optimizer(config), SECOND: _whole_optimizer(config.second.optimizer)}
    return optax.partition(both, functools.partial(optimizer_parts, config.second.parameters))


def optimizer_parts(pattern: str, params: Params) -> Any:
    """``SECOND`` for each parameter whose path ``pattern`` is found in, else ``FIRST``.

    Raises:
        VgenError: if one of them would have none.
    """
    label = lambda path, _: SECOND if re.search(pattern, path_name(path)) else FIRST  # noqa: E731
    labels = jax.tree_util.tree_map_with_path(label, params)
    if (found := set(jax.tree.leaves(labels))) != {FIRST, SECOND}:
        which = "all" if SECOND in found else "none"
        raise VgenError(f"optimizer.second.parameters '{pattern}' finds {which} of the parameters: name a part of them")
    return labels


def path_name(path: tuple[Any, ...]) -> str:
    """``layer/kernel``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _many_axes(params: Params) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _whole_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    rate = learning_rate(config)
    if config.kind == "adam":
        update = optax.adam(rate, config.b1, config.b2, config.eps)
    elif config.kind == "adamw":
        update = optax.adamw(rate, config.b1, config.b2, config.eps, weight_decay=config.weight_decay, mask=_many_axes)
    elif config.kind == "muon":
        update = optax.partition(
            {MUON: _muon(config, rate), ADAM: _beside_muon(config, rate)},
            functools.partial(muon_parts, config.muon_kernels),
        )
    else:
        raise VgenError(f"optimizer.kind '{config.kind}' is unknown: use adam, adamw or muon")
    return optax.chain(optax.clip_by_global_norm(config.clip), update) if config.clip else update


def _muon(config: OptimizerConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """The chain of ``optax.contrib.muon``, whose states it can take over."""
    return optax.chain(
        muon.scale_by_muon(),
        muon.scale_by_shape(MUON_RMS),
        optax.add_decayed_weights(config.weight_decay, _many_axes),
        optax.scale_by_learning_rate(rate),
    )


def _beside_muon(config: OptimizerConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.adamw(rate, config.b1, config.b2, weight_decay=config.weight_decay, nesterov=True)


def muon_parts(pattern: str, params: Params) -> Any:
    """``MUON`` for each kernel whose path ``pattern`` is found in, ``ADAM`` for every other parameter.

    Raises:
        VgenError: for a pattern that finds nothing, or something of fewer than two axes.
    """

    def label(path: tuple[Any, ...], kernel: Array) -> str:
        name = path_name(path)
        if not re.search(pattern, name):
            return ADAM
        if kernel.ndim < 2:
            raise VgenError(
                f"optimizer.muon_kernels '{pattern}' finds {name}, which has {kernel.ndim} axis: name kernels"
            )
        return MUON

    if not pattern:
        raise VgenError("optimizer.muon_kernels is empty: give a regular expression over the kernels' paths")
    labels = jax.tree_util.tree_map_with_path(label, params)
    if MUON not in jax.tree.leaves(labels):
        raise VgenError(f"optimizer.muon_kernels '{pattern}' finds none of the parameters")
    return labels


def init_state(init: Callable[[Key], Params], optimizer: optax.GradientTransformation, rng: Key) -> TrainState:
    """A fresh state; the moving average starts at the parameters."""
    params, model_state = divided(init(rng))
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params), model_state)


def ema_update(ema: Any, params: Any, decay: float, step: Array) -> Any:
    """Exponential moving average whose decay grows from 0.1 to ``decay`` as (1 + step) / (10 + step) allows."""
    current = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(params, ema, 1.0 - current)
