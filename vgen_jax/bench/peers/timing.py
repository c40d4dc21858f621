"""This library's networks beside the same ones in PyTorch, on the same inputs, taking turns.

Both sides run in one process, call by call, so that whatever else the machine does falls on both; who is first changes
from round to round, each call is waited for, compilation and warm-up come before and are timed apart, and the median
round counts. The networks have the same parameters, layer for layer. What is timed:

forward   one evaluation, parameters in the compute dtype
train     ε-loss of a fresh noise, its gradient, clipping, Adam on float32 parameters, their moving average
generate  DDIM with classifier-free guidance, in latents: one ``lax.scan`` here, diffusers' scheduler in a loop there

TFLOP/s count the model's own matrix work (``devices.flops``), the same for both sides; MFU is that over the chip's
published peak (``devices.chips``). Peak memory is the device's where it tells, each side's by its own allocator: start
with ``XLA_PYTHON_CLIENT_PREALLOCATE=false``, or JAX leaves PyTorch too little.
"""

import statistics
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from vgen_jax.bench.peers.settings import TimedCall
from vgen_jax.devices.chips import Chip


class CallCost(NamedTuple):
    """The first call, compilation included; the median of the later ones; seconds, and MiB."""

    first: float
    seconds: float
    peak_mib: float | None


def interleaved(lanes: Mapping[str, TimedCall], rounds: int) -> dict[str, CallCost]:
    """Every lane's cost; the second call still warms up."""

    def timed(lane: TimedCall) -> float:
        started = time.perf_counter()
        lane.call()
        return time.perf_counter() - started

    first = {name: timed(lane) for name, lane in lanes.items()}
    for lane in lanes.values():
        lane.call()
    later: dict[str, list[float]] = {name: [] for name in lanes}
    for number in range(rounds):
        for name in list(lanes)[:: 1 if number % 2 else -1]:
            later[name].append(timed(lanes[name]))
    return {
        name: CallCost(first[name], statistics.median(later[name]), lane.peak_mib()) for name, lane in lanes.items()
    }


HEADER = (
    "| what | side | ms | ÷ PyTorch's speed | first call, s | TFLOP/s | MFU | peak MiB |",
    "|---|---|---|---|---|---|---|---|",
)


def table_lines(what: str, costs: Mapping[str, CallCost], flops: int, chip: Chip | None, devices: int) -> list[str]:
    """Rows of the table; a ratio above 1 is faster than PyTorch."""
    lines = []
    for side, cost in costs.items():
        rate = flops / cost.seconds
        mfu = f"{rate / devices / chip.flops:.1%}" if chip else "–"
        ratio = costs["PyTorch"].seconds / cost.seconds
        peak = f"{cost.peak_mib:,.0f}" if cost.peak_mib is not None else "–"
        lines.append(
            f"| {what} | {side} | {cost.seconds * 1e3:,.1f} | {ratio:.2f} | {cost.first:,.1f} | {rate / 1e12:,.3g} | "
            f"{mfu} | {peak} |"
        )
    return lines


def named(what: str, costs: Mapping[str, CallCost], flops: int, chip: Chip | None, devices: int) -> dict[str, Any]:
    """The flat results."""
    out: dict[str, Any] = {f"{what}/flops": flops}
    for side, cost in costs.items():
        out |= {f"{what}/{side}/{key}": value for key, value in cost._asdict().items()}
        if chip:
            out[f"{what}/{side}/mfu"] = flops / cost.seconds / devices / chip.flops
    out[f"{what}/speed_over_pytorch"] = costs["PyTorch"].seconds / costs["vgen_jax"].seconds
    return out
