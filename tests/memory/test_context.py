"""Memories that keep frames: what they hand out, chunk after chunk."""

from typing import Any

import jax
import numpy as np
import pytest

from vgen_jax.memory.anchor import Anchor
from vgen_jax.memory.context import Context, ContextConfig
from vgen_jax.types import Memory, Past, VgenError

pytestmark = pytest.mark.usefixtures("checked_axes")

KEYS = jax.random.split(jax.random.key(0), 2)


def frames(first: int, count: int, actions: bool = True) -> Past:
    """Two videos whose frame n is n (and 100 + n) and was led to by action n."""
    n_BT = np.arange(first, first + count) + np.asarray([[0], [100]])
    video = n_BT[..., None, None, None].astype(np.float32)
    if not actions:
        return Past(video)
    return Past(video, n_BT[..., None].astype(np.float32), n_BT % 100 > 0)


def told(past: Past) -> list[tuple[int, int | None]]:
    """The first video's frames, each with the action that is known to have led to it."""
    numbers = np.asarray(past.frames_BTHWC)[0, :, 0, 0, 0].astype(int).tolist()
    if past.action_BTA is None:
        return [(n, None) for n in numbers]
    actions, valid = np.asarray(past.action_BTA)[0, :, 0], np.asarray(past.action_valid_BT)[0]
    return [(n, int(a) if v else None) for n, a, v in zip(numbers, actions, valid, strict=True)]


def after(memory: Memory, chunks: int, actions: bool = True, f_p: int = 2, f_g: int = 3) -> tuple[Any, Past]:
    """The state after some chunks, and the past then."""
    past = frames(0, f_p, actions)
    m = memory.init(past, KEYS)
    for n in range(chunks):
        new = frames(f_p + n * f_g, f_g, actions)
        m = memory.remember(m, past, new, None, KEYS)
        past = past.then(new).last(f_p)
    return m, past


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        (0, [(0, None), (0, None), (0, None), (0, None), (1, 1)]),
        (1, [(0, None), (1, 1), (2, 2), (3, 3), (4, 4)]),
        (4, [(n, n) for n in range(9, 14)]),
    ],
)
def test_context_hands_out_the_last_frames_or_a_still_start(chunks: int, expected: list) -> None:
    memory = Context(5)
    m, past = after(memory, chunks)
    recalled = memory.recall(m, past, None)
    assert told(recalled.past) == expected and recalled.adapter is None
    assert np.asarray(recalled.past.frames_BTHWC)[1, -1, 0, 0, 0] == 100 + expected[-1][0]
    m, past = after(memory, chunks, actions=False)
    assert told(memory.recall(m, past, None).past) == [(n, None) for n, _ in expected]


def test_context_as_long_as_the_past_is_no_memory() -> None:
    memory = Context(2)
    for chunks in range(3):
        m, past = after(memory, chunks)
        assert told(memory.recall(m, past, None).past) == told(past)


@pytest.mark.parametrize(
    ("config", "frames"),
    [
        (ContextConfig(2, 0), 6), (ContextConfig(5, 0), 12), (ContextConfig(5, 10), 7), (ContextConfig(1, 0), 3),
        (ContextConfig(1, 4), 2), (ContextConfig(9, 40), 27),
    ],
)  # fmt: skip
def test_the_window_limits_the_context(config: ContextConfig, frames: int) -> None:
    assert config.past_frames(past=2, future=3, trained=15) == frames


@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_the_anchor_stays_and_no_action_leads_from_it(chunks: int) -> None:
    memory = Anchor()
    m, past = after(memory, chunks)
    (first, _), (second, _), *rest = told(past)[:1] * 2 + told(past)[1:]
    assert told(memory.recall(m, past, None).past) == [(0, None), (first, None), *rest]
    m, past = after(memory, chunks, actions=False)
    assert told(memory.recall(m, past, None).past) == [(0, None), *told(past)]
    assert told(past) == told(after(memory, chunks, actions=False)[1]), "the past is not changed"


def test_mistakes_are_named() -> None:
    with pytest.raises(VgenError, match="memory.context.chunks is 0"):
        ContextConfig(0, 0)
    with pytest.raises(VgenError, match="memory.context.window is -1"):
        ContextConfig(1, -1)
