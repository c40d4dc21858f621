"""Counts the work of a function: the FLOPs of its matrix products and convolutions, before any compiler sees it.

XLA's own count, ``cost_analysis``, counts the body of a loop once however often it runs: gradients accumulated over 16
micro-batches would seem to be the work of one. The count here multiplies, is the same for every device and mesh, and
leaves out what is not matrix work, as is usual for MFU (Chowdhery et al. 2022, appendix B). Traced without
rematerialisation it gives model FLOPs; with it, the recomputation is in the count.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax


def matmul_flops(function: Callable[..., Any], *args: Any) -> int:
    """FLOPs of ``function(*args)``, two for a multiplication and its addition; nothing is computed.

    Args:
        args: arrays or ShapeDtypeStructs.
    """
    return jaxpr_flops(jax.make_jaxpr(function)(*args).jaxpr)


def jaxpr_flops(jaxpr: Any) -> int:
    """FLOPs of a jaxpr. Of a ``cond`` its costliest branch counts; of a ``while`` one round, for nobody knows more."""
    return sum(_equation(eqn) for eqn in jaxpr.eqns)


def _equation(eqn: Any) -> int:
    name = eqn.primitive.name
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        depth = math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
        return 2 * depth * math.prod(eqn.outvars[0].aval.shape)
    if name == "conv_general_dilated":
        return _convolution(eqn)
    inner = [jaxpr_flops(jaxpr) for value in eqn.params.values() for jaxpr in _jaxprs(value)]
    if name == "cond":
        return max(inner)
    return sum(inner) * (eqn.params["length"] if name == "scan" else 1)


def _convolution(eqn: Any) -> int:
    """An input that is dilated (as in the gradient of a strided convolution) is mostly zeros, which are no work."""
    numbers, kernel = eqn.params["dimension_numbers"], eqn.invars[1].aval.shape
    taps = math.prod(kernel[i] for i in numbers.rhs_spec[1:])  # input channels of a group, and the window
    zeros = math.prod(eqn.params["lhs_dilation"])
    return 2 * taps * math.prod(eqn.outvars[0].aval.shape) // zeros


def _jaxprs(value: Any) -> Iterator[Any]:
    """The jaxprs in a parameter of an equation."""
    for part in value if isinstance(value, (tuple, list)) else (value,):
        if hasattr(part, "eqns"):
            yield part
        elif hasattr(part, "jaxpr") and hasattr(part.jaxpr, "eqns"):
            yield part.jaxpr
