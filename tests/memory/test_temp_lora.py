"""Temp-LoRA's part of a rollout: what is learnt when, with a learner that adds up what it is given."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.memory.test_context import KEYS, after, frames
from vgen_jax.memory.temp_lora import TempLora, TempLoraWhole
from vgen_jax.types import Array, Key, VideoBatch

pytestmark = pytest.mark.usefixtures("checked_axes")


@flax.struct.dataclass
class Sum:
    """The learner's state."""

    lora: Array


def begin(key_B: Key) -> Sum:
    return Sum(jnp.zeros(key_B.shape))


class Learner:
    """Adds up all frames of a video; keeps the windows that it is given."""

    def __init__(self) -> None:
        self.seen: list[VideoBatch] = []

    def __call__(self, state: Sum, windows: VideoBatch, key_B: Key) -> Sum:
        self.seen.append(windows)
        return Sum(state.lora + np.asarray(windows.video_BTHWC).sum((0, 2, 3, 4, 5)))


def test_each_chunk_is_learnt_with_the_frames_before_it() -> None:
    learner = Learner()
    memory = TempLora(begin, learner)
    m, past = after(memory, 3)
    recalled = memory.recall(m, past, None)
    assert recalled.past is past
    learnt = sum(range(0, 5)) + sum(range(3, 8)) + sum(range(6, 11))
    np.testing.assert_array_equal(recalled.adapter, [learnt, learnt + 15 * 100])
    for n, windows in enumerate(learner.seen):
        assert windows.video_BTHWC.shape == (1, 2, 5, 1, 1, 1)
        np.testing.assert_array_equal(np.asarray(windows.video_BTHWC)[0, 0, :, 0, 0, 0], 3 * n + np.arange(5))
        np.testing.assert_array_equal(windows.action_BTA[0, 0, 1:, 0], 3 * n + np.arange(1, 5))
        np.testing.assert_array_equal(windows.action_valid_BT[0, 0], [False, True, True, True, True])
        np.testing.assert_array_equal(windows.past_BT[0, 0], [True, True, False, False, False])


def test_a_fresh_state_has_forgotten_everything() -> None:
    memory = TempLora(begin, Learner())
    after(memory, 3)
    np.testing.assert_array_equal(memory.init(frames(0, 2), KEYS).lora, [0, 0])


def test_the_text_goes_with_the_window() -> None:
    learner, past, new = Learner(), frames(0, 2), frames(2, 3)
    memory = TempLora(begin, learner)
    memory.remember(memory.init(past, KEYS), past, new, np.asarray([[3, 1], [4, 1]]), KEYS)
    np.testing.assert_array_equal(learner.seen[0].token_BL, [[[3, 1], [4, 1]]])


@pytest.mark.parametrize("actions", [True, False])
def test_clips_of_the_whole_video_come_from_all_of_it(actions: bool) -> None:
    learner = Learner()
    memory = TempLoraWhole(begin, learner, clips=60)
    m, _ = after(memory, 4, actions)
    assert m.video.frames_BTHWC.shape[1] == 2 + 4 * 3
    windows = learner.seen[-1]
    assert windows.video_BTHWC.shape == (60, 2, 5, 1, 1, 1)
    first = np.asarray(windows.video_BTHWC)[:, :, 0, 0, 0, 0] - [0, 100]
    assert set(first[:, 0]) == set(first[:, 1]) == set(range(10)), "every place is drawn"
    assert (first[:, 0] != first[:, 1]).any(), "for every video its own"
    np.testing.assert_array_equal(windows.video_BTHWC[:, 0, :, 0, 0, 0], first[:, :1] + np.arange(5))
    if actions:
        np.testing.assert_array_equal(windows.action_BTA[:, 0, 1:, 0], first[:, :1] + np.arange(1, 5))
        assert not windows.action_valid_BT[:, :, 0].any() and windows.action_valid_BT[:, :, 1:].all()
    assert all(w.video_BTHWC.shape == windows.video_BTHWC.shape for w in learner.seen), "one compilation"


def test_clips_of_a_video_do_not_depend_on_its_batch() -> None:
    seen = []
    for select in (slice(0, 2), slice(1, 2)):
        learner = Learner()
        memory = TempLoraWhole(begin, learner, clips=5)
        past, new = (jax.tree.map(lambda x, s=select: x[s], p) for p in (frames(0, 2), frames(2, 9)))
        memory.remember(memory.init(past, KEYS[select]), past, new, None, KEYS[select])
        seen.append(np.asarray(learner.seen[0].video_BTHWC))
    np.testing.assert_array_equal(seen[0][:, 1:], seen[1])


def test_without_actions() -> None:
    learner = Learner()
    after(TempLora(begin, learner), 1, actions=False)
    assert learner.seen[0].action_BTA is None and learner.seen[0].video_BTHWC.shape[2] == 5
