"""AVID's mixture and the baselines that add predictions up, on toy Predictors of every kind, in every sampler."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vgen_jax.compose.avid import avid, parts, with_mask
from vgen_jax.compose.classifier_guidance import classifier_guided
from vgen_jax.compose.control import controlled
from vgen_jax.compose.mixing import action_guidance, product_of_experts, without_actions
from vgen_jax.diffusion.prediction import KINDS, to_eps
from vgen_jax.diffusion.samplers import Sampler, sample, sample_path
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.models.adapter import Adapted
from vgen_jax.types import Array, Condition, Prediction, Predictor, VgenError

SHAPE = (2, 3, 2, 2, 1)
SCHEDULE = Schedule("sigmoid", 20, -3.0, 3.0)
CONDITION = Condition(
    action_BTA=jnp.arange(12.0).reshape(2, 3, 2),
    action_valid_BT=jnp.ones((2, 3), bool),
    past_BTHWC=jnp.ones((2, 1, 2, 2, 1)),
)
SAMPLERS = {
    "ddim": Sampler("ddim", 5), "ddim_eta": Sampler("ddim", 5, eta=1.0), "ddpm": Sampler("ddpm", 5),
    "dpmpp_2m": Sampler("dpmpp_2m", 5),
}  # fmt: skip


def linear(kind: str, slope: float, acts: bool = False) -> Predictor:
    """A network that depends on x_t, t and, with ``acts``, on the actions; a base must not be given any."""

    def predict(x_t: Array, t_B: Array, condition: Condition) -> Prediction:
        value = jnp.tanh(slope * x_t) + 0.01 * t_B.reshape(-1, 1, 1, 1, 1)
        assert acts or condition.action_BTA is None
        if acts:
            known = jnp.where(condition.action_valid_BT[..., None], condition.action_BTA, -1.0)
            value = value + 0.1 * known.sum(-1)[..., None, None, None]
        return Prediction(value, kind)

    return predict


def adapter(mask: Array | None):
    """Adds to what it sees of the base."""

    def adapt(x_t: Array, base: Array | None, t_B: Array, condition: Condition) -> Adapted:
        return Adapted(jnp.cos(x_t) + (0.0 if base is None else 2.0 * base), mask)

    return adapt


def alone(kind: str, conditioned: bool) -> Predictor:
    """The adapter as a Predictor of its own."""

    def predict(x_t: Array, t_B: Array, condition: Condition) -> Prediction:
        base = linear(kind, 1.0)(x_t, t_B, Condition()).value
        return Prediction(adapter(None)(x_t, base if conditioned else None, t_B, condition).value_BTHWC, kind)

    return predict


def drawn(predictor: Predictor, sampler: Sampler) -> Array:
    keys = jax.random.split(jax.random.key(1), SHAPE[0])
    return sample(predictor, SCHEDULE, sampler, jax.random.normal(jax.random.key(0), SHAPE), CONDITION, keys)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_mask_of_one_is_the_base_and_of_zero_the_adapter(kind: str, name: str) -> None:
    base, plain = linear(kind, 1.0), lambda x, t, c: linear(kind, 1.0)(x, t, Condition())
    own = adapter(jnp.full((*SHAPE[:-1], 1), 0.3))
    predictors = {
        "base": plain,
        "adapter": alone(kind, True),
        "adapter unconditioned": alone(kind, False),
        **{m: avid(base, with_mask(own, m)) for m in (0.0, 0.5, 1.0)},
        "0 unconditioned": avid(base, with_mask(own, 0.0), conditioned=False),
    }
    found = tiny.jit(lambda: {str(key): drawn(predictor, SAMPLERS[name]) for key, predictor in predictors.items()})()
    np.testing.assert_allclose(found["1.0"], found["base"], rtol=1e-6)
    np.testing.assert_allclose(found["0.0"], found["adapter"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["0 unconditioned"], found["adapter unconditioned"], rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(found["0.5"] - found["1.0"]).max()) > 1e-2


def test_the_mixture_is_equation_five_and_without_a_mask_a_sum(rng: Array) -> None:
    x, t_B = jax.random.normal(rng, SHAPE), jnp.asarray([3, 7])
    mask = jax.random.uniform(rng, (*SHAPE[:-1], 1))
    base = linear("x0", 1.0)(x, t_B, Condition()).value
    added = jnp.cos(x) + 2.0 * base
    found = parts(linear("x0", 1.0), adapter(mask), True, x, t_B, CONDITION)
    np.testing.assert_allclose(found.final.value, base * mask + added * (1 - mask), rtol=1e-5)
    summed = avid(linear("x0", 1.0), adapter(None), True)(x, t_B, CONDITION)
    np.testing.assert_allclose(summed.value, base + added, rtol=1e-5)
    assert found.final.kind == summed.kind == "x0"


def test_no_gradient_flows_into_the_base() -> None:
    def loss(slope: Array) -> Array:
        return avid(linear("eps", slope), adapter(None))(jnp.ones(SHAPE), jnp.zeros(2, int), CONDITION).value.sum()

    assert float(jax.grad(loss)(1.0)) == 0.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_products_and_guidance_recover_their_parts_and_are_affine_in_eps(kind: str, other: str, rng: Array) -> None:
    x, t_B = jax.random.normal(rng, SHAPE), jnp.asarray([3, 17])
    alpha, sigma = SCHEDULE.alpha_sigma(t_B)
    base, small = linear(kind, 1.0), linear(other, 0.5, acts=True)
    eps = lambda predictor, c: to_eps(predictor(x, t_B, c), x, alpha, sigma)  # noqa: E731
    prior, true = eps(base, Condition()), eps(small, CONDITION)
    null = eps(small, without_actions(CONDITION))
    for weight in (0.0, 0.4, 1.0):
        product, guided = (f(base, small, weight, SCHEDULE) for f in (product_of_experts, action_guidance))
        np.testing.assert_allclose(eps(product, CONDITION), weight * true + (1 - weight) * prior, rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(eps(guided, CONDITION), prior + weight * (true - null), rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(
        product_of_experts(base, small, 0.0, SCHEDULE)(x, t_B, CONDITION).value, base(x, t_B, Condition()).value
    )
    np.testing.assert_array_equal(
        action_guidance(base, small, 0.0, SCHEDULE)(x, t_B, CONDITION).value, base(x, t_B, Condition()).value
    )
    assert float(jnp.abs(true - null).max()) > 1e-2


def log_probability(x_t: Array, t_B: Array, condition: Condition) -> Array:
    """Prefers frames that are as bright as the first action."""
    return -((x_t.mean((2, 3, 4)) - condition.action_BTA[..., 0]) ** 2).sum(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_classifier_guidance_steers_every_sampler(kind: str, name: str) -> None:
    base, plain = linear(kind, 1.0), lambda x, t, c: linear(kind, 1.0)(x, t, Condition())
    with_weight = lambda w: drawn(classifier_guided(base, log_probability, w, SCHEDULE), SAMPLERS[name])  # noqa: E731
    without, guided, alone = tiny.jit(lambda: (with_weight(0.0), with_weight(0.05), drawn(plain, SAMPLERS[name])))()
    np.testing.assert_allclose(without, alone, rtol=1e-6)
    likely = [log_probability(x, jnp.zeros(2, int), CONDITION).sum() for x in (without, guided)]
    assert float(likely[1]) > float(likely[0]) + 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_classifier_guidance_shifts_eps_by_the_papers_formula(kind: str, rng: Array) -> None:
    x, t_B = jax.random.normal(rng, SHAPE), jnp.asarray([3, 12])
    alpha, sigma = SCHEDULE.alpha_sigma(t_B)
    gradient = jax.grad(lambda x: log_probability(x, t_B, CONDITION).sum())(x)
    base = linear(kind, 1.0)
    eps = [
        to_eps(predictor(x, t_B, CONDITION), x, alpha, sigma)
        for predictor in (
            lambda x, t, c: base(x, t, Condition()),
            classifier_guided(base, log_probability, 0.3, SCHEDULE),
        )
    ]
    np.testing.assert_allclose(eps[1] - eps[0], -sigma * 0.3 * gradient, rtol=1e-3, atol=1e-4)


def test_guidance_at_pure_noise_changes_nothing_that_is_not_finite() -> None:
    schedule = dataclasses.replace(SCHEDULE, zero_terminal_snr=True)
    guided = classifier_guided(linear("v", 1.0), log_probability, 1.0, schedule)
    assert bool(jnp.isfinite(guided(jnp.ones(SHAPE), jnp.asarray([0, 19]), CONDITION).value).all())


def test_control_reaches_a_base_that_sees_no_actions() -> None:
    def base(x_t: Array, t_B: Array, condition: Condition, control: tuple[Array, ...]) -> Prediction:
        assert condition.action_BTA is None and condition.past_BTHWC is not None
        return Prediction(x_t + sum(control), "v")

    steered = controlled(base, lambda x, t, c: (c.action_BTA.sum(), jnp.ones(())))
    np.testing.assert_allclose(steered(jnp.zeros(SHAPE), jnp.zeros(2, int), CONDITION).value, 67.0)


def test_guidance_without_actions_is_refused() -> None:
    with pytest.raises(VgenError, match="needs a condition with actions"):
        without_actions(Condition())


def test_a_kept_path_leads_to_the_sample() -> None:
    keys = jax.random.split(jax.random.key(1), SHAPE[0])
    noise = jax.random.normal(jax.random.key(0), SHAPE)
    predictor, sampler = linear("x0", 1.0, acts=True), SAMPLERS["ddpm"]
    final, path = sample_path(predictor, SCHEDULE, sampler, noise, CONDITION, keys)
    np.testing.assert_array_equal(final, sample(predictor, SCHEDULE, sampler, noise, CONDITION, keys))
    np.testing.assert_array_equal(path[0], noise)
    assert path.shape == (5, *SHAPE)
