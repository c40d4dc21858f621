"""A base that is not JAX: the same numbers, no gradient, one clear line when it fails."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests import tiny
from tests.black_box import boxes
from vgen_jax.black_box.ask import answer, ask_jax, ask_torch, fault_of, from_ask, from_jax
from vgen_jax.black_box.sampling import sample_black_box
from vgen_jax.diffusion.samplers import Sampler, sample
from vgen_jax.types import Condition, Prediction, Predictor, VgenError


def both() -> list[Predictor]:
    """The network within the program, and its PyTorch twin outside."""
    return [from_jax(boxes.jax_base, "x0"), from_ask(boxes.torch_ask(), "x0")]


def test_the_twins_agree_within_a_program() -> None:
    x, t, condition = boxes.question()
    inside, outside = (tiny.jit(p)(x, t, condition) for p in both())
    assert inside.kind == outside.kind == "x0"
    np.testing.assert_allclose(outside.value, inside.value, atol=1e-5)
    assert np.abs(inside.value - from_jax(boxes.jax_base, "x0")(x, t + 5, condition).value).max() > 1e-3


@pytest.mark.parametrize("kind", ["ddim", "ddpm"])
def test_samplers_take_a_black_box(kind: str) -> None:
    x, _, condition = boxes.question()
    keys = jax.random.split(jax.random.key(0), len(x))
    run = lambda p: tiny.jit(partial(sample, p, boxes.SCHEDULE, Sampler(kind, 5)))(x, condition, keys)  # noqa: E731
    inside, outside = map(run, both())
    np.testing.assert_allclose(outside, inside, atol=1e-4)


@pytest.mark.parametrize("devices", [1, 4])
def test_a_black_box_is_asked_between_the_steps(devices: int) -> None:
    """The numbers of the scan, whatever the number of devices; here the base is asked twice a step."""
    x, _, condition = boxes.question(4)
    keys = jax.random.split(jax.random.key(0), len(x))

    def around(base: Predictor) -> Predictor:
        def predict(x: jax.Array, t: jax.Array, c: Condition) -> Prediction:
            return Prediction(base(x, t, c).value + 0.3 * base(x, t, Condition()).value, "x0")

        return predict

    sampler = Sampler("ddpm", 4)
    inside = tiny.jit(partial(sample, around(both()[0]), boxes.SCHEDULE, sampler))(x, condition, keys)
    rows = NamedSharding(Mesh(np.asarray(jax.devices()[:devices]), "data"), PartitionSpec("data"))
    x, condition = jax.device_put((x, condition), rows)
    outside = sample_black_box(around, boxes.torch_ask(), "x0", boxes.SCHEDULE, sampler, x, condition, keys)
    np.testing.assert_allclose(outside, inside, atol=1e-4)


def test_a_question_that_depends_on_an_answer_is_refused() -> None:
    def around(base: Predictor) -> Predictor:
        return lambda x, t, c: base(base(x, t, c).value, t, c)

    x, _, condition = boxes.question(1)
    keys = jax.random.split(jax.random.key(0), 1)
    with pytest.raises(VgenError, match="depends on its own answer"):
        sample_black_box(around, boxes.torch_ask(), "x0", boxes.SCHEDULE, Sampler("ddim", 2), x, condition, keys)


@pytest.mark.parametrize("number", [0, 1])
def test_no_gradient_flows_into_it(number: int) -> None:
    x, t, condition = boxes.question(1)

    def loss(scale: jax.Array) -> jax.Array:
        return (both()[number](x * scale, t, condition).value * scale).sum()

    value, grad = tiny.jit(jax.value_and_grad(loss))(2.0)
    np.testing.assert_allclose(grad, value / 2.0, rtol=1e-4)  # of the factor outside of the base alone


def test_a_fault_is_one_line() -> None:
    def broken(x: np.ndarray, t: np.ndarray, condition: Condition) -> np.ndarray:
        raise VgenError("the base is away; call it back")

    x, t, condition = boxes.question(1)
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        jax.block_until_ready(jax.jit(from_ask(broken, "x0"))(x, t, condition))
    assert str(fault_of(caught.value)) == "the base is away; call it back"


def test_another_error_is_left_alone() -> None:
    def broken(x: np.ndarray, t: np.ndarray, condition: Condition) -> np.ndarray:
        raise ZeroDivisionError

    x, t, condition = boxes.question(1)
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        jax.block_until_ready(jax.jit(from_ask(broken, "x0"))(x, t, condition))
    assert fault_of(caught.value) is None


def test_an_answer_of_another_shape_is_refused() -> None:
    x, t, condition = boxes.question()
    with pytest.raises(VgenError, match=r"\(3, 1, 8, 8, 3\) to x_t of shape \(3, 4, 8, 8, 3\)"):
        answer(lambda x, t, c: x[:, :1], x, t, condition)


def test_a_predictor_may_be_asked() -> None:
    x, t, condition = boxes.question()
    given = ask_jax(lambda x, t, c: Prediction(boxes.jax_base(x, t, c), "x0"))(x, t, condition)
    assert isinstance(given, np.ndarray)
    np.testing.assert_allclose(given, boxes.torch_ask()(x, t, condition), atol=1e-5)


def test_torch_sees_its_own_axes() -> None:
    seen = {}

    def network(x: torch.Tensor, t: torch.Tensor, condition: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.update(x=x.shape, t=(t.dtype, tuple(t)), condition=set(condition))
        return x * 2

    x = np.arange(2 * 3 * 4 * 5 * 3, dtype=np.float32).reshape(2, 3, 4, 5, 3)
    value = ask_torch(network)(x, np.asarray([3, 4], np.int32), Condition(action_BTA=np.zeros((2, 3, 1))))
    np.testing.assert_array_equal(value, 2 * x)
    assert seen == {"x": (2, 3, 3, 4, 5), "t": (torch.int64, (3, 4)), "condition": {"action_BTA"}}


def test_a_module_in_training_mode_is_refused() -> None:
    with pytest.raises(VgenError, match=r"\.eval\(\)"):
        ask_torch(boxes.TorchBase())


def test_an_unknown_kind_is_refused() -> None:
    for make in (from_jax, from_ask):
        with pytest.raises(VgenError, match="'noise'"):
            make(boxes.jax_base, "noise")
    assert jnp.isfinite(boxes.KERNEL).all()
