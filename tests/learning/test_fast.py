"""Fast learning, on a network of two dense layers over each pixel."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests import tiny
from vgen_jax.diffusion.masking import Masking
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.learning.fast import FastConfig, FastState, fast_step, fast_update, init_fast
from vgen_jax.nn.lora import LoraConfig, merge
from vgen_jax.objectives.masked_diffusion import DiffusionLoss, masked_diffusion
from vgen_jax.types import Array, Condition, Key, Params, Prediction, VgenError, VideoBatch

SCHEDULE, MASKING = Schedule("cosine", 50), Masking()
LORA = LoraConfig(rank=2, targets="")
CONFIG = FastConfig(lora=LORA, learning_rate=1e-2)


class Net(nn.Module):
    """Sees its frame, the mean frame, the step, the text and the action."""

    @nn.compact
    def __call__(self, x_BTHWC: Array, t: Array, condition: Condition) -> Array:
        t_BT = t[:, None] if t.ndim == 1 else t
        told = jnp.broadcast_to(t_BT / 50.0, x_BTHWC.shape[:2])[..., None]
        told = told + condition.text_BLD.mean((1, 2))[:, None, None]
        told = told + jnp.where(condition.action_valid_BT, condition.action_BTA.sum(-1), 0.0)[..., None]
        told_BTHWC = jnp.broadcast_to(told[:, :, None, None], (*x_BTHWC.shape[:-1], 1))
        mean = jnp.broadcast_to(x_BTHWC.mean(1, keepdims=True), x_BTHWC.shape)
        h = nn.Dense(16, name="first")(jnp.concatenate([x_BTHWC, mean, told_BTHWC], axis=-1))
        return nn.Dense(3, name="second")(jax.nn.silu(h))


NET = Net()


def embed(params: Params, batch: VideoBatch) -> Condition:
    return Condition(batch.token_BL[..., None] / 100.0, None, batch.action_BTA, batch.action_valid_BT)


def predict(params: Params, x: Array, t: Array, condition: Condition) -> Prediction:
    return Prediction(NET.apply({"params": params}, x, t, condition), "eps")


def windows(seed: int = 0, b: int = 2) -> VideoBatch:
    """One clip for each video."""
    return jax.tree.map(lambda x: x[None], tiny.latent_batch(b=b, size=2, seed=seed))


def keys(*numbers: int) -> Key:
    return jax.vmap(jax.random.key)(jnp.asarray(numbers))


@pytest.fixture(scope="module")
def params() -> Any:
    batch = tiny.latent_batch(size=2)
    return tiny.random_params(NET.init, batch.video_BTHWC, jnp.zeros(2, int), embed({}, batch))["params"]


def learner(config: FastConfig, masking: Masking = MASKING, **options: Any) -> Callable:
    """An update that leaves the state it is given."""
    update = fast_update(config, stepper(config, masking, **options))
    return lambda state, *rest: update(jax.tree.map(jnp.array, state), *rest)


def stepper(config: FastConfig, masking: Masking = MASKING, **options: Any) -> Callable:
    return tiny.jit(fast_step(config, embed, predict, "eps", SCHEDULE, masking), **options)


def by_hand(
    params: Any, state: FastState, batch: VideoBatch, key: Key, rate: float, steps: int, first_t: int, slow_down: float
) -> tuple[Any, list]:
    """Eq. (3) and Adam for one video, written out."""
    lora = jax.tree.map(lambda x: np.asarray(x[0], np.float64), state.lora.weights)
    x0 = np.asarray(batch.video_BTHWC[0, 0])[None]
    empty = np.asarray([[1] + [0] * 7])
    condition = Condition(empty[..., None] / 100.0, None, np.zeros((1, 4, 2)), np.zeros((1, 4), bool))
    moments = {name: [0.0, 0.0] for name in ("firsta", "firstb", "seconda", "secondb")}
    losses = []

    def loss(lora: Any, t: Array, eps: Array) -> Array:
        weights = {n: {**params[n], "kernel": params[n]["kernel"] + lora[n]["a"] @ lora[n]["b"]} for n in params}
        alpha, sigma = SCHEDULE.alpha_sigma(t)
        return ((predict(weights, alpha * x0 + sigma * eps, t, condition).value - eps) ** 2).mean()

    for step in range(steps):
        k_t, k_eps, _, _ = jax.random.split(jax.random.fold_in(key, step), 4)
        t, eps = jax.random.randint(k_t, (1,), first_t, SCHEDULE.steps), jax.random.normal(k_eps, x0.shape)
        value, grads = jax.value_and_grad(loss)(jax.tree.map(jnp.float32, lora), t, eps)
        losses.append(float(value))
        for layer in lora:
            for part in lora[layer]:
                g = np.asarray(grads[layer][part], np.float64)
                m = moments[layer + part]
                m[0], m[1] = 0.9 * m[0] + 0.1 * g, 0.999 * m[1] + 0.001 * g**2
                m_hat, v_hat = m[0] / (1 - 0.9 ** (step + 1)), m[1] / (1 - 0.999 ** (step + 1))
                now = rate * slow_down / (slow_down + step) if slow_down else rate
                lora[layer][part] = lora[layer][part] - now * m_hat / (np.sqrt(v_hat) + 1e-8)
    return lora, losses


@pytest.mark.parametrize(("steps", "t_from", "slow_down"), [(1, 0.0, 0), (3, 0.0, 0), (3, 0.8, 0), (3, 0.0, 2)])
def test_an_update_is_the_one_written_out(params: Any, steps: int, t_from: float, slow_down: int) -> None:
    config = dataclasses.replace(CONFIG, steps=steps, t_range=(t_from, 1.0), slow_down=slow_down)
    state = init_fast(config, params, keys(5))
    first_t = round(t_from * SCHEDULE.steps)
    lora, expected = by_hand(params, state, windows(b=1), jax.random.key(7), 1e-2, steps, first_t, slow_down)
    new, losses = learner(config)(state, params, windows(b=1), keys(7))
    np.testing.assert_allclose(losses[0], expected, rtol=1e-4)
    for layer, weights in lora.items():
        for part in weights:
            np.testing.assert_allclose(new.lora.weights[layer][part][0], weights[part], rtol=1e-3, atol=2e-5)


def test_what_it_learns_it_knows_better(params: Any) -> None:
    state, update = init_fast(CONFIG, params, keys(0, 1)), learner(CONFIG)
    objective = masked_diffusion(
        embed, predict, Partial(jnp.asarray), SCHEDULE, Masking(), DiffusionLoss("eps", 1.0, 1.0), clean_past=False
    )
    batch = jax.tree.map(lambda x: x[0], windows())

    @tiny.jit
    def loss(state: FastState) -> Array:
        """Of the first video, over many steps and noises."""
        weights = merge(params, jax.tree.map(lambda x: x[0], state.lora))
        first = jax.tree.map(lambda x: x[:1], batch)
        return jax.vmap(lambda n: objective(weights, first, jax.random.key(n))[0])(jnp.arange(256)).mean()

    values = [float(loss(state))]
    for chunk in range(4):
        for n in range(25):
            state, _ = update(state, params, windows(), keys(100 * chunk + n, 1000 + 100 * chunk + n))
        values.append(float(loss(state)))
    assert all(after < before for before, after in zip(values, values[1:], strict=False)), values
    assert values[-1] < 0.8 * values[0], values


def test_a_hundred_updates_leave_the_network_as_it_was_and_compile_once(params: Any) -> None:
    frozen = jax.tree.map(jnp.asarray, params)
    state, step = init_fast(CONFIG, params, keys(0, 1)), stepper(CONFIG, donate_argnums=0)
    update = fast_update(CONFIG, step)
    for n in range(100):
        before, held = state, jax.device_get(state)
        state, _ = update(state, frozen, windows(n), keys(n, n + 1000))
    jax.tree.map(np.testing.assert_array_equal, frozen, params)
    assert step._cache_size() == 1
    jax.tree.map(np.testing.assert_array_equal, before, held)


def test_videos_of_a_batch_do_not_leak_into_each_other(params: Any) -> None:
    config = dataclasses.replace(CONFIG, steps=2)
    update = learner(config)
    both, _ = update(init_fast(config, params, keys(3, 4)), params, windows(0), keys(8, 9))
    other = windows(0)
    changed = other.video_BTHWC.at[:, 1].set(5.0)
    mixed = update(
        init_fast(config, params, keys(3, 6)), params, dataclasses.replace(other, video_BTHWC=changed), keys(8, 1)
    )[0]
    for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(mixed), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
    assert any(
        np.abs(a[1] - b[1]).max() > 1e-3 for a, b in zip(*map(jax.tree.leaves, (both.lora, mixed.lora)), strict=True)
    )
    alone, _ = update(init_fast(config, params, keys(4)), params, jax.tree.map(lambda x: x[:, 1:], windows(0)), keys(9))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b[1], rtol=1e-4, atol=1e-6), alone.lora, both.lora)


@pytest.mark.parametrize(("field", "kept"), [("text", "token_BL"), ("actions", "action_BTA")])
def test_conditions_are_left_out_unless_kept(params: Any, field: str, kept: str) -> None:
    batch = windows()
    other = dataclasses.replace(batch, **{kept: getattr(batch, kept) * 2})
    for value in (getattr(CONFIG, field), "keep"):
        config = dataclasses.replace(CONFIG, **{field: value})
        state, update = init_fast(config, params, keys(0, 1)), learner(config)
        (_, a), (_, b) = (update(state, params, w, keys(2, 3)) for w in (batch, other))
        assert np.array_equal(a, b) == (value != "keep")


def test_the_original_temp_lora_learns_from_a_clean_past(params: Any) -> None:
    """Its loss is that of slow learning, text and actions given."""
    config = dataclasses.replace(CONFIG, text="keep", actions="keep", past="clean")
    masking = Masking("zero", augment_past=0.5)
    _, losses = learner(config, masking)(init_fast(config, params, keys(0, 1)), params, windows(), keys(2, 3))
    slow = masked_diffusion(
        embed, predict, Partial(jnp.asarray), SCHEDULE, Masking("zero"), DiffusionLoss("eps", 0.0, 0.0)
    )
    for n in range(2):
        one = jax.tree.map(lambda x, n=n: x[0, n : n + 1], windows())
        value, _ = slow(params, one, jax.random.fold_in(jax.random.key(2 + n), 0))
        np.testing.assert_allclose(losses[n, 0], value, rtol=1e-5)


def test_moments_persist_or_begin_anew_with_a_chunk(params: Any) -> None:
    for persist in (True, False):
        config = dataclasses.replace(CONFIG, persist_optimizer=persist, steps=2)
        update, fresh = learner(config), init_fast(config, params, keys(0, 1))
        first, _ = update(fresh, params, windows(0), keys(2, 3))
        second, _ = update(first, params, windows(1), keys(4, 5))
        moments = init_fast(config, params, keys(0, 1)).opt_state
        anew, _ = update(FastState(first.lora, moments), params, windows(1), keys(4, 5))
        same = all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (second.lora, anew.lora)), strict=True))
        assert same != persist
        count = second.opt_state[0].count
        np.testing.assert_array_equal(count, 4 if persist else 2)


def test_each_step_may_have_a_clip_of_its_own(params: Any) -> None:
    config = dataclasses.replace(CONFIG, steps=2, clips="whole")
    state, update = init_fast(config, params, keys(0, 1)), learner(config)
    two = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), windows(0), windows(1))
    _, losses = update(state, params, two, keys(2, 3))
    swapped = jax.tree.map(lambda x: x[::-1], two)
    _, others = update(state, params, swapped, keys(2, 3))
    assert losses.shape == (2, 2) and np.abs(losses - others).min() > 1e-4


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"steps": 0}, "fast.steps is 0"),
        ({"slow_down": -1}, "fast.slow_down is -1"),
        ({"slow_down": 4, "persist_optimizer": False}, "set fast.persist_optimizer"),
        ({"t_range": (0.5, 0.5)}, "fast.t_range is"),
        ({"t_range": (-0.5, 0.5)}, "fast.t_range is"),
        ({"learning_rate": 0.0}, "fast.learning_rate is 0.0"),
        ({"text": "none"}, "fast.text is 'none': use empty or keep"),
        ({"past": "dirty"}, "fast.past is 'dirty': use noised or clean"),
        ({"text": "keep", "clips": "whole"}, "does not go with fast.clips 'whole'"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(VgenError, match=named):
        FastConfig(**changes)
