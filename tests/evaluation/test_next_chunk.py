"""The next-chunk evaluation with models that obey, that obey texts alone, and that obey nothing."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from vgen_jax.evaluation.next_chunk import EvaluatedModel, evaluate, shuffled_actions, texts_alone
from vgen_jax.types import VideoBatch

B, PAST, FUTURE, SIZE = 4, 2, 4, 16
RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (B, PAST + FUTURE, SIZE, SIZE, 3), np.uint8)
KNOWN = np.tile(np.arange(PAST + FUTURE) > 0, (B, 1))


def batch() -> VideoBatch:
    ids = np.arange(B)
    pose = np.zeros((B, PAST + FUTURE, 4), np.float32)
    pose[..., 0] = 20 * np.arange(PAST + FUTURE)
    return VideoBatch(
        FRAMES, ~KNOWN, token_BL=ids[:, None], action_BTA=np.tile(ids[:, None, None], (1, PAST + FUTURE, 1)),
        action_valid_BT=KNOWN, sample_id_B=ids, pose_BTP=pose,
    )  # fmt: skip


def obeys(what: str) -> EvaluatedModel:
    """Shows the future of the window whose command it is given, or a grey picture where it is given none."""

    def next_chunk(given: VideoBatch, rng: Any) -> Any:
        told = np.asarray(given.action_BTA)[:, -1, 0] if what == "action" else np.asarray(given.token_BL)[:, 0]
        frames = FRAMES[told, PAST:]
        if what == "action":
            known = np.asarray(given.action_valid_BT)[:, -1]
            frames = np.where(known[:, None, None, None, None], frames, 128)
        return np.clip(frames.astype(int) + 1, 0, 255).astype(np.uint8)  # never quite right: a ratio needs an error

    return EvaluatedModel(next_chunk, lambda given, rng: {"loss": np.float32(0.0)})


def test_a_batch_of_texts_alone_keeps_them_and_no_action() -> None:
    told = texts_alone(batch())
    assert not np.asarray(told.action_valid_BT).any()
    np.testing.assert_array_equal(told.token_BL, batch().token_BL)
    without = texts_alone(dataclasses.replace(batch(), action_valid_BT=None, action_BTA=None))
    assert without.action_valid_BT is None
    np.testing.assert_array_equal(shuffled_actions(told).token_BL[:, 0], [3, 0, 1, 2])


@pytest.mark.parametrize("what", ["action", "text"])
def test_ratios_tell_what_is_obeyed(what: str) -> None:
    found = evaluate(obeys(what), [batch()], FUTURE, jax.random.key(0), text=True)
    if what == "text":
        assert found["text_shuffle_ratio"] > 100 and found["text_shuffle_ratio_low"] > 100
    else:
        assert found["text_shuffle_ratio"] == pytest.approx(1)
    assert "text_shuffle_ratio" not in evaluate(obeys("text"), [batch()], FUTURE, jax.random.key(0))
