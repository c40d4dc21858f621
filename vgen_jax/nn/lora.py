"""Low-rank adapters (Hu et al. 2022) for Dense and Conv layers of networks that do not know of them.

    y = W x + scale · B (A x),  scale = alpha / rank

A Dense layer's ``a`` is (in, rank); a convolution's is a convolution of the layer's own kernel size, stride and padding
to ``rank`` channels, (*kernel, in, rank), which covers the (3, 1) temporal ones as well. ``b`` is (rank, out), for a
convolution a 1×1 one. So the weight that an adapter adds is ``scale · a @ b`` in either case. ``b`` starts at zero: a
fresh adapter changes nothing. ``a`` starts uniform in ±1/sqrt(fan-in), which is He's initialisation for a leaky slope
of sqrt(5) and what PEFT takes.

An adapter is a tree of its own beside the network's parameters, so that a gradient over it leaves the network frozen.
Several adapters, one per video, are one tree with a leading axis.
"""

import dataclasses
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from flax import traverse_util

from vgen_jax.types import Array, Key, Params, VgenError

KERNEL = "kernel"


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """The shape of an adapter.

    Attributes:
        rank: inner width.
        alpha: the adapter's output is scaled by alpha / rank; 0 stands for ``rank``, a scale of 1.
        targets: regular expression, searched for in a layer's path (``down_0_layer_0/temp_conv/conv1``).
    """

    rank: int = 32
    alpha: float = 0.0
    targets: str = "^(?!conv_out$)"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise VgenError(f"lora.rank is {self.rank}: use 1 or more")
        if self.alpha < 0:
            raise VgenError(f"lora.alpha is {self.alpha}: use a positive number, or 0 for the rank")
        try:
            re.compile(self.targets)
        except re.error as error:
            raise VgenError(f"lora.targets {self.targets!r} is no regular expression ({error}): mend it") from error

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return self.alpha / self.rank if self.alpha else 1.0


@flax.struct.dataclass
class Lora:
    """An adapter, or a stack of them with a leading axis.

    Attributes:
        weights: a layer's path, ``/`` between its parts -> ``{"a": …, "b": …}``.
        scale: of the adapter's output.
    """

    weights: dict[str, dict[str, Array]]
    scale: float = flax.struct.field(pytree_node=False, default=1.0)


def init_lora(params: Params, config: LoraConfig, rng: Key) -> Lora:
    """A fresh adapter for the layers of ``params`` that ``config.targets`` names.

    Nothing is computed with the network: its kernels' shapes say all. A layer's ``a`` depends on ``rng`` and on its own
    path alone, not on which other layers are adapted.

    Args:
        params: arrays, or ``jax.eval_shape``'s structs.

    Raises:
        VgenError: if no layer matches.
    """
    init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    weights: dict[str, dict[str, Array]] = {}
    for path, shape in kernel_shapes(params).items():
        if re.search(config.targets, path):
            key = jax.random.fold_in(rng, zlib.crc32(path.encode()))
            a = init(key, (*shape[:-1], config.rank), jnp.float32)
            weights[path] = {"a": a, "b": jnp.zeros((config.rank, shape[-1]), jnp.float32)}
    if not weights:
        some = ", ".join(sorted(kernel_shapes(params))[:3])
        raise VgenError(f"lora.targets {config.targets!r} matches no layer: the layers are {some}, …")
    return Lora(weights, config.scale)


def kernel_shapes(params: Params) -> dict[str, tuple[int, ...]]:
    """Path -> kernel shape of every Dense and Conv layer."""
    flat = traverse_util.flatten_dict(params)
    return {"/".join(path[:-1]): tuple(leaf.shape) for path, leaf in flat.items() if path[-1] == KERNEL}


def with_lora(apply: Callable[..., Any], lora: Lora) -> Callable[..., Any]:
    """``apply`` with the adapter's output added to that of every layer it has weights for.

    Args:
        apply: calls ``Module.apply`` (the adapter's paths start at that module) and is not jitted itself: a compiled
            function would never look at the adapter.

    Raises:
        VgenError: when called, if the network has no layer for one of the adapter's paths.
    """

    def adapted(*args: Any, **kwargs: Any) -> Any:
        met: set[str] = set()

        def intercept(next_call: Any, inputs: Any, options: Any, context: nn.module.InterceptorContext) -> Any:
            y = next_call(*inputs, **options)
            module = context.module
            path = "/".join(module.path)
            if path not in lora.weights or not isinstance(module, (nn.Dense, nn.Conv)):
                return y
            met.add(path)
            return y + _low_rank(module, lora.weights[path], lora.scale, inputs[0]).astype(y.dtype)

        with nn.intercept_methods(intercept):
            out = apply(*args, **kwargs)
        _check_known(lora, met)
        return out

    return adapted


def _low_rank(module: nn.Dense | nn.Conv, weights: Mapping[str, Array], scale: float, x: Array) -> Array:
    """``scale · B (A x)``; ``A`` is the layer itself with fewer channels, so that it strides and pads as it does."""
    if isinstance(module, nn.Conv) and module.feature_group_count != 1:
        raise VgenError(f"layer {'/'.join(module.path)} is a grouped convolution: leave it out of lora.targets")
    down = module.clone(features=weights["a"].shape[-1], use_bias=False)
    h: Any = down.apply({"params": {KERNEL: weights["a"]}}, x)
    return (h @ weights["b"].astype(h.dtype)) * jnp.asarray(scale, h.dtype)


def _check_known(lora: Lora, known: set[str]) -> None:
    if unknown := sorted(lora.weights.keys() - known):
        raise VgenError(
            f"the adapter is for layer {unknown[0]}, which the network lacks: use the network it was made for"
        )


def merge(params: Params, lora: Lora) -> Params:
    """Parameters with the adapter's weights added; what has no adapter is passed on, not copied.

    Raises:
        VgenError: if the network has no layer for one of the adapter's paths.
    """
    return _added(params, lora, lora.scale)


def unmerge(params: Params, lora: Lora) -> Params:
    """Undoes ``merge``, up to rounding."""
    return _added(params, lora, -lora.scale)


def _added(params: Params, lora: Lora, scale: float) -> Params:
    flat = traverse_util.flatten_dict(params, sep="/")
    _check_known(lora, {path.removesuffix(f"/{KERNEL}") for path in flat})
    for path, weights in lora.weights.items():
        kernel = flat[f"{path}/{KERNEL}"]
        delta = jnp.matmul(weights["a"], weights["b"], precision=jax.lax.Precision.HIGHEST)
        flat[f"{path}/{KERNEL}"] = kernel + (scale * delta).astype(kernel.dtype)
    return traverse_util.unflatten_dict(flat, sep="/")
