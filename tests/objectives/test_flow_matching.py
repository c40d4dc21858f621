"""Flow matching of states: the exact velocity of a Gaussian, which frames are drawn, latents and actions apart."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from vgen_jax.objectives.flow_matching import FlowLoss, flow_matching, parts, states
from vgen_jax.types import Array, Key, Params, VgenError, VideoBatch

SIGMA = 1e-2


def clips(b: int, frames: int = 6, actions: int = 2) -> VideoBatch:
    """Latents that say their clip and frame, actions that say their frame."""
    number = np.arange(frames, dtype=np.float32)
    video = np.broadcast_to(number[None, :, None, None, None], (b, frames, 1, 1, 1)).copy()
    action = np.broadcast_to(number[None, :, None] / 10, (b, frames, actions)).copy() if actions else None
    return VideoBatch(video, np.zeros((b, frames), bool), action_BTA=action)


def same(x: Array) -> Array:
    return x


def test_the_drawn_frames_are_those_of_river() -> None:
    """The frame before, any earlier one, and the distance between what is made and the context."""
    seen: list[np.ndarray] = []

    def regress(
        params: Params, x: Array, s_B: Array, reference: Array, context: Array, distance_B: Array, rng: Key | None
    ) -> Array:
        seen.append(np.stack([s_B, reference[:, 0, 0, 0], context[:, 0, 0, 0], distance_B, reference[:, 0, 0, 1]]))
        return jnp.zeros_like(x)

    objective = flow_matching(regress, Partial(same), 2, FlowLoss(SIGMA))
    objective({}, clips(2000), jax.random.key(0))
    s, before, context, distance, action = seen[0]
    made = before + 1
    assert set(made) == {2, 3, 4} and ((0 < s) & (s <= 1)).all() and 0.45 < s.mean() < 0.55
    np.testing.assert_array_equal(context, made - distance)
    for number in (2, 3, 4):
        assert set(context[made == number]) == set(range(number - 1))
    # The action of a state is the one taken at its frame, which led to the next: entry t + 1 of the batch.
    np.testing.assert_allclose(action, (before + 1) / 10, rtol=1e-5)


def test_a_gaussians_velocity_is_found() -> None:
    """Of x_0 ~ N(m, v²) the best network is linear in x_s; least squares over draws gives its slope at each s."""
    mean, deviation, draws = 0.7, 0.5, 4000

    def of(s: float) -> tuple[float, float]:
        """Slope and offset of E[u | x_s]."""
        a, c = 1 - s, SIGMA + (1 - SIGMA) * s
        slope = ((1 - SIGMA) * c - a * deviation**2) / (a**2 * deviation**2 + c**2)
        return slope, -mean - slope * a * mean

    times = np.linspace(0.05, 0.95, 7)
    features = lambda x, s: jnp.stack([x, jnp.ones_like(x)], -1)  # noqa: E731

    def regress(
        params: Params, x: Array, s_B: Array, reference: Array, context: Array, distance_B: Array, rng: Key | None
    ) -> Array:
        near_BK = jax.nn.softmax(-(((s_B[:, None] - times) / 0.04) ** 2), axis=-1)
        row_BF = near_BK @ params["w"]
        return (features(x, s_B) * row_BF[:, None, None, None, :]).sum(-1)

    objective = flow_matching(regress, Partial(same), 0, FlowLoss(SIGMA))
    optimizer = optax.adam(0.03)
    params: Params = {"w": jnp.zeros((len(times), 2))}

    @jax.jit
    def update(params: Params, state: optax.OptState, key: Key) -> tuple[Params, optax.OptState]:
        video = mean + deviation * jax.random.normal(key, (draws, 6, 1, 1, 1))
        batch = VideoBatch(video, jnp.zeros((draws, 6), bool))
        grads = jax.grad(lambda p: objective(p, batch, jax.random.fold_in(key, 1))[0])(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for n in range(200):
        params, state = update(params, state, jax.random.key(n))
    wanted = np.asarray([of(s) for s in times])
    np.testing.assert_allclose(np.asarray(params["w"])[1:-1], wanted[1:-1], atol=0.12)


def test_states_are_taken_apart_again() -> None:
    rng = np.random.default_rng(0)
    latent, action = rng.normal(size=(2, 3, 4, 4, 5)).astype(np.float32), rng.normal(size=(2, 3, 2)).astype(np.float32)
    joined = states(latent, action)
    assert joined.shape == (2, 3, 4, 4, 7)
    found = parts(joined, 2)
    np.testing.assert_array_equal(found[0], latent)
    np.testing.assert_allclose(found[1], action, rtol=1e-5)
    assert states(latent, None) is latent and parts(latent, 0)[1].shape == (2, 3, 0)


def test_what_is_missing_is_said() -> None:
    objective = flow_matching(lambda *a: a[1], Partial(same), 2, FlowLoss(SIGMA))
    with pytest.raises(VgenError, match="fewer than 4 frames"):
        objective({}, clips(1, 3), jax.random.key(0))
    with pytest.raises(VgenError, match="set data.action"):
        objective({}, clips(1, 6, 0), jax.random.key(0))
