"""Long videos, on a network that adds up the actions it is given."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vgen_jax.data.schema import ActionSpace
from vgen_jax.diffusion.masking import Masking
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.memory.none import NoMemory
from vgen_jax.types import Array, ChunkAction, Condition, Key, Memory, Past, Prediction, Recalled, VideoBatch
from vgen_jax.worlds.actions import ActionCodec
from vgen_jax.worlds.chunks import LORA_STREAM, chunk_condition, opening, video_keys
from vgen_jax.worlds.rollout import Generated, rollout
from vgen_jax.worlds.slow_world import SampleChunk, SlowState, SlowWorld, sample_future

pytestmark = pytest.mark.usefixtures("checked_axes")

SCHEDULE, MASKING = Schedule("cosine", 20), Masking("zero")
WINDOWS = [(3, 2), (2, 4), (1, 3)]


def adding(x_t: Array, t: Array, condition: Condition) -> Prediction:
    """Each frame is the frame before it plus the action that leads to it; the first frame is what it is."""
    steps = condition.action_BTA[:, 1:, 0].cumsum(1)[..., None, None, None]
    return Prediction(jnp.concatenate([x_t[:, :1], x_t[:, :1] + steps], axis=1), "x0")


def noisy(x_t: Array, t: Array, condition: Condition) -> Prediction:
    """Keeps a part of its noise."""
    return Prediction(0.5 * x_t + 0.1 * x_t.mean(1, keepdims=True), "x0")


def sampler_of(predictor: Callable, frames: int, seen: list[VideoBatch] | None = None, eta: float = 0.0) -> Any:
    """The jitted sampler, and a function that records the conditioning it is called with."""

    @jax.jit
    def sample(past: Array, window: VideoBatch, key_B: Key) -> Array:
        condition = Condition(action_BTA=window.action_BTA, action_valid_BT=window.action_valid_BT)
        sampler = Sampler("ddim", 4, eta)
        return sample_future(predictor, condition, past, frames, SCHEDULE, sampler, MASKING, key_B)

    def sample_chunk(recalled: Recalled, window: VideoBatch, key_B: Key) -> Array:
        if seen is not None:
            seen.append(window)
        return sample(recalled.past.frames_BTHWC, window, key_B)

    return sample_chunk, sample


def stream(chunks: int, frames: int, asked: list[int] | None = None) -> Iterator[ChunkAction]:
    """Action number k, counted from 1 over the whole video, is k."""
    for n in range(chunks):
        if asked is not None:
            asked.append(n)
        rows = np.arange(n * frames + 1, (n + 1) * frames + 1, dtype=np.float32)
        yield ChunkAction(f"chunk {n}", None, rows[:, None])


INFO = dataclasses.replace(
    tiny.info(), chunk=1, action_spaces={"continuous": ActionSpace("continuous", ("turn",), (1.0,))}
)


def world_of(
    sample_chunk: SampleChunk, memory: Memory, f_p: int, frames: int, space: str = "continuous", show: Any = None
) -> SlowWorld:
    """Its frames are its latents, or what ``show`` makes of them."""
    codec = ActionCodec(INFO, space, 0, frames)
    return SlowWorld(
        sample_chunk, memory, lambda m: m, lambda x: x, show or (lambda x: [x]), codec, f_p, (2, 2), lambda: (1, 0)
    )


def beginning(memory: Memory, f_p: int, rng: Key, ids: tuple[int, ...] = (4, 9), acting: bool = True) -> SlowState:
    """Past frames that obey the rule above, led to by the actions 0, -1, -2, … in reverse order."""
    history = np.arange(1 - f_p, 1, dtype=np.float32)
    frames = np.cumsum(history) - history.sum()
    latents = jnp.asarray(np.broadcast_to(frames[:, None, None, None], (len(ids), f_p, 2, 2, 1)))
    past = opening(latents, np.broadcast_to(history[:, None], (len(ids), f_p, 1)) if acting else None)
    m = memory.init(past, video_keys(rng, LORA_STREAM, 0, np.asarray(ids)))
    return SlowState(0, past, m, rng, np.asarray(ids))


def run(
    sample_chunk: SampleChunk,
    memory: Memory,
    f_p: int,
    actions: Iterable[ChunkAction],
    frames: int,
    rng: Key,
    ids: tuple[int, ...] = (4, 9),
    m: Any = None,
) -> Iterator[Generated]:
    state = beginning(memory, f_p, rng, ids)
    return rollout(
        world_of(sample_chunk, memory, f_p, frames), state if m is None else state.replace(memory=m), actions
    )


def latents(chunks: Iterator[Generated]) -> np.ndarray:
    return np.concatenate([chunk.step.frames_BTHWC for chunk in chunks], axis=1)


@pytest.mark.parametrize(("f_p", "f_g"), WINDOWS)
def test_every_frame_is_led_to_by_its_action(f_p: int, f_g: int, rng: Array) -> None:
    """The video is right in the end only if each chunk goes on from the last one with its own actions, in place."""
    sample_chunk, _ = sampler_of(adding, f_g)
    video = latents(run(sample_chunk, NoMemory(), f_p, stream(5, f_g), f_g, rng))
    expected = np.cumsum(np.arange(1, 5 * f_g + 1))
    np.testing.assert_allclose(video, np.broadcast_to(expected[:, None, None, None], video.shape), rtol=1e-4)


@pytest.mark.parametrize(("f_p", "f_g"), WINDOWS)
def test_row_t_of_the_actions_leads_to_frame_t(f_p: int, f_g: int, rng: Array) -> None:
    seen: list[VideoBatch] = []
    sample_chunk, _ = sampler_of(adding, f_g, seen)
    list(run(sample_chunk, NoMemory(), f_p, stream(4, f_g), f_g, rng))
    for n, window in enumerate(seen):
        action_BT = np.asarray(window.action_BTA)[..., 0]
        first = n * f_g - f_p + 1  # the window's frame 0; start's last frame is frame 0 of the video
        np.testing.assert_array_equal(action_BT[0, 1:], np.arange(first + 1, first + f_p + f_g))
        assert (action_BT[:, 0] == 0).all()
        np.testing.assert_array_equal(window.action_valid_BT[0], np.arange(f_p + f_g) > 0)
        np.testing.assert_array_equal(window.past_BT[0], np.arange(f_p + f_g) < f_p)


@pytest.mark.parametrize(("f_p", "f_g"), WINDOWS)
def test_one_compilation_however_long(f_p: int, f_g: int, rng: Array) -> None:
    sample_chunk, compiled = sampler_of(adding, f_g)
    list(run(sample_chunk, NoMemory(), f_p, stream(12, f_g), f_g, rng))
    assert compiled._cache_size() == 1


def test_actions_are_asked_for_when_their_turn_comes(rng: Array) -> None:
    asked: list[int] = []
    sample_chunk, _ = sampler_of(adding, 2)
    chunks = run(sample_chunk, NoMemory(), 2, stream(100, 2, asked), 2, rng)
    assert asked == []
    for n in range(3):
        chunk = next(chunks)
        assert asked == list(range(n + 1)) and chunk.number == n and chunk.step.text == f"chunk {n}"


def test_a_video_depends_on_its_number_and_not_on_its_batch(rng: Array) -> None:
    sample_chunk, _ = sampler_of(noisy, 2, eta=1.0)
    whole = latents(run(sample_chunk, NoMemory(), 2, stream(3, 2), 2, rng, (4, 9)))
    again = latents(run(sample_chunk, NoMemory(), 2, stream(3, 2), 2, rng, (4, 9)))
    alone = latents(run(sample_chunk, NoMemory(), 2, stream(3, 2), 2, rng, (9,)))
    np.testing.assert_array_equal(whole, again)
    np.testing.assert_allclose(alone[0], whole[1], atol=1e-6)
    assert np.abs(whole[0] - whole[1]).max() > 1e-2, "videos have noise of their own"
    other = latents(run(sample_chunk, NoMemory(), 2, stream(3, 2), 2, jax.random.key(1), (9,)))
    assert np.abs(other - alone).max() > 1e-2


def test_no_key_is_used_twice(rng: Array) -> None:
    used = [
        jax.random.key_data(video_keys(rng, stream, n, np.asarray([4, 9]))) for stream in (0, 1, 2) for n in range(5)
    ]
    assert len({tuple(key) for keys in np.asarray(used) for key in keys}) == 3 * 5 * 2
    np.testing.assert_array_equal(jax.random.key_data(video_keys(rng, 0, 3, np.asarray([9])))[0], used[3][1])


def test_without_actions(rng: Array) -> None:
    sample_chunk, _ = sampler_of(noisy, 2)
    silent = (ChunkAction("", None, None) for _ in range(2))
    world = world_of(sample_chunk, NoMemory(), 2, 2, "none")
    *_, last = rollout(world, beginning(NoMemory(), 2, rng, acting=False), silent)
    assert last.number == 1 and last.step.frames_BTHWC.shape[1] == 2 and last.step.actions is None
    *_, told_nothing = rollout(world, beginning(NoMemory(), 2, rng, acting=False), [None, None])
    np.testing.assert_array_equal(told_nothing.step.frames_BTHWC, last.step.frames_BTHWC)


class Counting:
    """Shifts what it recalls by the number of chunks so far."""

    def init(self, past: Past, key_B: Key) -> Array:
        return jnp.zeros(())

    def recall(self, m: Array, past: Past, coming_BTA: object) -> Recalled:
        return Recalled(past.replace(frames_BTHWC=past.frames_BTHWC + 1000.0 * m))

    def remember(self, m: Array, past: Past, new: Past, token_BL: Array | None, key_B: Key) -> Array:
        assert past.frames_BTHWC.shape[1] == 1 and new.frames_BTHWC.shape[1] == 2
        assert new.action_BTA.shape[1] == new.action_valid_BT.shape[1] == 2 and key_B.shape == (2,)
        return m + 1


def test_the_memory_is_asked_before_and_told_after_each_chunk(rng: Array) -> None:
    sample_chunk, _ = sampler_of(adding, 2)
    video = latents(run(sample_chunk, Counting(), 1, stream(3, 2), 2, rng))
    np.testing.assert_allclose(video[0, :, 0, 0, 0], [1, 3, 1006, 1010, 3015, 3021], rtol=1e-4)


def test_a_rollout_goes_on_with_a_memory_and_leaves_it_as_it_is(rng: Array) -> None:
    sample_chunk, _ = sampler_of(adding, 2)
    *_, last = run(sample_chunk, Counting(), 1, stream(3, 2), 2, rng)
    for _ in range(2):
        video = latents(run(sample_chunk, Counting(), 1, stream(1, 2), 2, rng, m=last.state.memory))
        np.testing.assert_allclose(video[0, :, 0, 0, 0], [3001, 3003], rtol=1e-4)
    assert last.state.memory == 3


def test_a_chunk_is_shown_before_the_memory_learns_it(rng: Array) -> None:
    order: list[str] = []

    class Telling(NoMemory):
        def remember(self, *arguments: Any) -> Any:
            order.append("learn")
            return ()

    def show(latents_BTHWC: Array) -> list[Array]:
        order.append("show")
        return [latents_BTHWC]

    sample_chunk, _ = sampler_of(adding, 2)
    world = world_of(sample_chunk, Telling(), 1, 2, show=show)
    list(rollout(world, beginning(Telling(), 1, rng), stream(2, 2)))
    assert order == ["show", "learn"] * 2


def test_what_led_to_the_first_frame_is_never_told_as_known(rng: Array) -> None:
    """A memory with a longer past puts that frame in the middle of a window."""
    past = beginning(NoMemory(), 3, rng).past
    np.testing.assert_array_equal(past.action_valid_BT[0], [False, True, True])
    longer = Past(past.frames_BTHWC[:, :1], np.full((2, 1, 1), 7.0), np.ones((2, 1), bool)).then(past)
    window = chunk_condition(longer, next(stream(1, 2)), 2)
    np.testing.assert_array_equal(window.action_valid_BT[0], [False, False, True, True, True, True])
    np.testing.assert_array_equal(window.past_BT[0], [True] * 4 + [False] * 2)
    np.testing.assert_array_equal(window.action_BTA[0, :, 0], [0, -2, -1, 0, 1, 2])
