"""Training of the action predictor (AVID, appendix 9.3): cross-entropy over ids, or the squared error of actions.

Continuous actions are brought to mean zero and unit variance first, as there. Steps whose action is not known do not
count.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vgen_jax.nn.pixels import to_unit
from vgen_jax.types import Array, Key, Objective, Params, VgenError, VideoBatch


@dataclasses.dataclass(frozen=True)
class ActionTarget:
    """What is predicted.

    Attributes:
        kind: ``discrete`` (logits of ids) or ``continuous`` (normalised values).
        mean, std: of each dimension in model units, of the training data; empty for ids.
    """

    kind: Literal["discrete", "continuous"]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or any(s <= 0 for s in self.std):
            raise VgenError(f"actions of mean {self.mean} and deviation {self.std}: give as many of each, above 0")


def normalised(action_BTA: Array, target: ActionTarget) -> Array:
    """Actions in model units as the predictor knows them; a one-hot row stays as it is."""
    if target.kind == "discrete":
        return action_BTA
    return (action_BTA - jnp.asarray(target.mean)) / jnp.asarray(target.std)


def action(predict: Partial, target: ActionTarget) -> Objective:
    """The objective; ``predict(params, float frames (B, T, H, W, 3) in [-1, 1])`` gives (B, T - 1, A).

    It reports what the action error ratio is made of: ``accuracy`` of ids, or ``mae`` of normalised values.
    """

    def objective(params: Params, batch: VideoBatch, rng: Key) -> tuple[Array, dict[str, Array]]:
        if batch.action_BTA is None or batch.action_valid_BT is None:
            raise VgenError("an action predictor is trained on data with actions: set data.action")
        known_BT = batch.action_valid_BT[:, 1:].astype(jnp.float32)
        want_BTA = normalised(batch.action_BTA[:, 1:], target)
        found_BTA = predict(params, to_unit(batch.video_BTHWC))
        count = jnp.maximum(known_BT.sum(), 1.0)
        if target.kind == "discrete":
            loss_BT = -(want_BTA * jax.nn.log_softmax(found_BTA)).sum(-1)
            name, score_BT = "accuracy", (found_BTA.argmax(-1) == want_BTA.argmax(-1)).astype(jnp.float32)
        else:
            loss_BT = ((found_BTA - want_BTA) ** 2).mean(-1)
            name, score_BT = "mae", jnp.abs(found_BTA - want_BTA).mean(-1)
        return (loss_BT * known_BT).sum() / count, {name: (score_BT * known_BT).sum() / count}

    return Partial(objective)
