"""How long an interactive rollout makes one wait for a chunk, by the number of sampling steps.

Rollouts with each number of steps take turns, chunk by chunk, in one process (``bench.fast_learning``); a chunk is over
when its frames are decoded and written. The median counts, and the slowest of all, which is what a player notices. What
a chunk shows is as long as it lasts at the data's frame rate: below a ratio of 1 a player outruns the model.
"""

import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

from vgen_jax.bench.fast_learning import TimedRollout, play


class Wait(NamedTuple):
    """Seconds a chunk: the median and the slowest; how often the sampler was compiled after the warm-up."""

    median: float
    slowest: float
    compilations: int


def timed(lanes: Mapping[int, TimedRollout], chunks: int, warm_up: int) -> dict[int, Wait]:
    """Every lane's wait; who is first changes from round to round."""
    for lane in lanes.values():
        for _ in range(warm_up):
            play(lane)
    before = {steps: sum(lane.compilations()) for steps, lane in lanes.items()}
    seconds: dict[int, list[float]] = {steps: [] for steps in lanes}
    for number in range(chunks):
        for steps in list(lanes)[:: 1 if number % 2 else -1]:
            seconds[steps].append(play(lanes[steps])[0])
    for lane in lanes.values():
        lane.videos.close()
    return {
        steps: Wait(
            statistics.median(seconds[steps]), max(seconds[steps]), sum(lane.compilations()) - before[steps]
        )
        for steps, lane in lanes.items()
    }  # fmt: skip


def markdown(waits: Mapping[int, Wait], machine: Mapping[str, Any], future: int) -> str:
    """The results as a table."""
    lines = ["| sampling steps | ms a chunk | slowest, ms | frames/s | shown ÷ waited |", "|---" * 5 + "|"]
    for steps, wait in waits.items():
        lines.append(
            f"| {steps} | {wait.median * 1e3:,.0f} | {wait.slowest * 1e3:,.0f} | {future / wait.median:,.1f} | "
            f"{machine['chunk_shows_seconds'] / wait.median:.2f} |"
        )
    note = (
        f"Chunks of {future} frames, median of {machine['chunks']}, on {machine['device']}, {machine['cores']} cores, "
        f"load average {machine['load_average_before']:.1f} before the start."
    )
    return "\n".join(lines) + f"\n\n{note}\n"
