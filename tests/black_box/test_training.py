"""A training over a black box equals the one over the same base in JAX, and loses nothing when the box fails."""

import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from jax.tree_util import Partial

from tests import tiny
from tests.black_box import boxes
from vgen_jax.black_box.ask import Ask, ask_jax, from_jax
from vgen_jax.black_box.client import Remote
from vgen_jax.black_box.training import answered_task
from vgen_jax.data.batches import BatchesConfig
from vgen_jax.devices.sharding import MeshConfig
from vgen_jax.files.log import METRICS_FILE, read_metrics
from vgen_jax.learning.checkpoint import Checkpoints
from vgen_jax.learning.slow import Task, TrainConfig, train
from vgen_jax.learning.state import OptimizerConfig
from vgen_jax.tasks.inputs import Batches
from vgen_jax.types import Condition, Prediction, Predictor, VgenError

STEPS = 12
TRAIN = TrainConfig(steps=STEPS, log_every=1, checkpoint_every=100, ema_decay=0.9)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_dataset(tmp_path_factory.mktemp("queried") / "data")


def batches(data: Path) -> Batches:
    return Batches(
        BatchesConfig(str(data), "train", ((2, 3),), (1.0,), 8, 0, 0, "continuous", True, True, 0, False)
    )  # fmt: skip


def box(data: Path, ask: Ask, config: TrainConfig = TRAIN) -> Task:
    return answered_task(boxes.init, Partial(boxes.around), batches(data), ask, "x0", config)


def losses(task: Task, workdir: Path) -> np.ndarray:
    """Of a training on all of the suite's devices."""
    train(task, TRAIN, OptimizerConfig(learning_rate=3e-2), MeshConfig(), workdir)
    return np.asarray([entry["loss"] for entry in read_metrics(workdir / METRICS_FILE)])


@pytest.fixture(scope="module")
def expected(data: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The losses over the base in JAX, within the step."""
    task = Task(boxes.init, boxes.around(from_jax(boxes.jax_base, "x0")), batches(data))
    found = losses(task, tmp_path_factory.mktemp("inside"))
    assert len(found) == STEPS and found[-3:].mean() < 0.9 * found[:3].mean()
    return found


def test_a_torch_twin_gives_the_same_losses(data: Path, expected: np.ndarray, tmp_path: Path) -> None:
    np.testing.assert_allclose(losses(box(data, boxes.torch_ask()), tmp_path), expected, rtol=0, atol=1e-4)


def test_and_so_does_a_jax_function_that_is_asked(data: Path, expected: np.ndarray, tmp_path: Path) -> None:
    ask = ask_jax(lambda x, t, c: Prediction(boxes.jax_base(x, t, c), "x0"))
    np.testing.assert_allclose(losses(box(data, ask), tmp_path), expected, rtol=0, atol=1e-4)


def test_another_base_gives_other_losses(data: Path, expected: np.ndarray, tmp_path: Path) -> None:
    ask = boxes.torch_ask()
    other = losses(box(data, lambda x, t, c: 0.9 * ask(x, t, c)), tmp_path)
    assert np.abs(other - expected).max() > 1e-3


class Flaky:
    """An ``Ask`` that does something before its n-th question."""

    def __init__(self, ask: Ask, number: int, event: Callable[[], None]):
        self._ask, self._number, self._event, self.count = ask, number, event, 0

    def __call__(self, x: np.ndarray, t: np.ndarray, condition: Condition) -> np.ndarray:
        self.count += 1
        if self.count == self._number:
            self._event()
        return self._ask(x, t, condition)


def test_a_failure_ends_the_run_with_its_state_saved(data: Path, expected: np.ndarray, tmp_path: Path) -> None:
    def fail() -> None:
        raise VgenError("http://base: no answer; see to it")

    ask = Flaky(boxes.torch_ask(), 8, fail)
    with pytest.raises(VgenError, match=r"no answer; see to it \(the state after step 7 is saved\)"):
        losses(box(data, ask), tmp_path)
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 7
    np.testing.assert_allclose(losses(box(data, boxes.torch_ask()), tmp_path), expected, rtol=0, atol=1e-4)


@pytest.fixture
def port() -> int:
    """A free one: it is given back before a server asks for it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.slow
def test_over_http_with_the_server_killed_in_between(
    data: Path, expected: np.ndarray, tmp_path: Path, port: int
) -> None:
    servers = [boxes.start_server(port)]

    def kill_and_restart() -> None:
        servers[-1].kill()
        servers[-1].wait()
        servers.append(boxes.start_server(port))

    ask = Flaky(Remote(boxes.remote(port, tries=600, timeout=60.0)), 6, kill_and_restart)
    try:
        np.testing.assert_allclose(losses(box(data, ask), tmp_path), expected, rtol=0, atol=1e-4)
    finally:
        servers[-1].kill()
        servers[-1].wait()
    assert len(servers) == 2 and ask.count >= STEPS


def test_accumulation_is_refused(data: Path) -> None:
    with pytest.raises(VgenError, match="train.accumulate is 2"):
        box(data, boxes.torch_ask(), TrainConfig(accumulate=2))


def test_a_question_that_depends_on_what_is_trained_is_refused(data: Path) -> None:
    def around(base: Predictor) -> object:
        def objective(params: dict, batch: object, rng: object) -> tuple:
            x = batch.video_BTHWC / 255.0 * params["Dense_0"]["bias"].sum()
            return base(x, np.zeros(8, np.int32), Condition()).value.sum(), {}

        return objective

    task = answered_task(boxes.init, Partial(around), batches(data), boxes.torch_ask(), "x0", TRAIN)
    with pytest.raises(VgenError, match="batch 0 is not finite"):
        next(task.data)


def test_an_objective_that_asks_twice_is_refused(data: Path) -> None:
    def around(base: Predictor) -> object:
        twice = lambda x, t, c: base(x, t, base(x, t, c) and c)  # noqa: E731
        return boxes.around(twice)

    task = answered_task(boxes.init, Partial(around), batches(data), boxes.torch_ask(), "x0", TRAIN)
    with pytest.raises(VgenError, match="asks its base 2 times"):
        next(task.data)


def test_the_position_is_that_of_what_was_handed_out(data: Path) -> None:
    queried, plain = box(data, boxes.torch_ask()).data, batches(data)
    for n in range(3):
        assert queried.get_state() == {"batch": n}
        np.testing.assert_array_equal(next(queried).batch.sample_id_B, next(plain).sample_id_B)
    queried.set_state({"batch": 1})
    plain.set_state({"batch": 1})
    np.testing.assert_array_equal(next(queried).batch.sample_id_B, next(plain).sample_id_B)
    assert queried.get_state() == {"batch": 2}
