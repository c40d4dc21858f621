"""A base behind HTTP: the same numbers, patience with a server that is away, none with one that refuses."""

import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tests.black_box import boxes
from vgen_jax.black_box.answers import CachedAnswers
from vgen_jax.black_box.client import Remote
from vgen_jax.black_box.server import PredictorServer
from vgen_jax.black_box.wire import pack_answer, pack_question, unpack_answer, unpack_question
from vgen_jax.types import Condition, VgenError


def test_questions_and_answers_survive_the_wire() -> None:
    x, t, _ = boxes.question()
    condition = Condition(action_BTA=np.ones((3, 4, 2), np.float32), action_valid_BT=np.eye(3, 4) > 0)
    x2, t2, condition2 = unpack_question(pack_question(x, t, condition))
    np.testing.assert_array_equal(x2, x)
    np.testing.assert_array_equal(t2, t)
    np.testing.assert_array_equal(condition2.action_valid_BT, condition.action_valid_BT)
    assert condition2.action_valid_BT.dtype == bool and condition2.past_BTHWC is None
    back = unpack_answer(pack_answer(x, "v"))
    assert back.kind == "v"
    np.testing.assert_array_equal(back.value, x)


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"t": np.zeros(3, np.int32)}, "x_t and t"),
        ({"x_t": np.zeros((3, 2), np.float32), "t": np.zeros(3, np.int32)}, r"float32 \(3, 2\)"),
        ({"x_t": np.zeros((3, 1, 1, 1, 1), np.float32), "t": np.zeros(2, np.int32)}, r"int32 \(2,\)"),
        ({"x_t": np.zeros((1, 1, 1, 1, 1), np.float32), "t": np.zeros(1, np.int32), "y": np.zeros(1)}, "y is no part"),
        (
            {
                "x_t": np.zeros((1, 1, 1, 1, 1), np.float32),
                "t": np.zeros(1, np.int32),
                "condition.text_BLD": np.zeros((2, 1, 1)),
            },
            "batch is 1",
        ),
    ],
)
def test_what_is_no_question_is_refused(arrays: dict, fault: str) -> None:
    with pytest.raises(VgenError, match=fault):
        unpack_question(safetensors.numpy.save(arrays))


def test_what_is_no_file_is_refused() -> None:
    for data in (b"", b"pickle", b"\x80\x04}\x94.", pack_question(*boxes.question())[:-3]):
        with pytest.raises(VgenError, match="no safetensors file"):
            unpack_question(data)


def test_the_twins_agree_over_http() -> None:
    """In parts of two rows, which the server pads to eight."""
    x, t, condition = boxes.question(5)
    with boxes.serving(boxes.torch_ask()) as port:
        ask = Remote(boxes.remote(port, batch=2))
        assert ask.kind() == "x0"
        np.testing.assert_allclose(ask(x, t, condition), boxes.jax_base(x, t, condition), atol=1e-5)


def test_the_token() -> None:
    x, t, condition = boxes.question(1)
    with boxes.serving(boxes.torch_ask(), token="sésame") as port, pytest.MonkeyPatch.context() as patch:
        with pytest.raises(VgenError, match="401.*token is missing or wrong"):
            Remote(boxes.remote(port))(x, t, condition)
        patch.setenv("BOX_TOKEN", "guess")
        with pytest.raises(VgenError, match="401"):
            Remote(boxes.remote(port, token_env="BOX_TOKEN")).kind()
        with pytest.raises(VgenError, match="NO_TOKEN is not set"):
            Remote(boxes.remote(port, token_env="NO_TOKEN"))


def test_the_right_token_opens() -> None:
    x, t, condition = boxes.question(1)
    with boxes.serving(boxes.torch_ask(), token="sesame") as port, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOX_TOKEN", "sesame")
        assert Remote(boxes.remote(port, token_env="BOX_TOKEN"))(x, t, condition).shape == x.shape


def test_a_passing_fault_is_survived() -> None:
    """The first two tries meet an error in the network, the third one an answer."""
    calls = []

    def moody(x: np.ndarray, t: np.ndarray, condition: Condition) -> np.ndarray:
        calls.append(len(t))
        if len(calls) < 3:
            raise RuntimeError("out of memory")
        return x

    x, t, condition = boxes.question(2)
    with boxes.serving(moody) as port:
        np.testing.assert_array_equal(Remote(boxes.remote(port))(x, t, condition), x)
        assert calls == [8, 8, 8]


def test_a_lasting_fault_is_one_line() -> None:
    def broken(x: np.ndarray, t: np.ndarray, condition: Condition) -> np.ndarray:
        raise RuntimeError("out of memory\nand more")

    x, t, condition = boxes.question(2)
    with boxes.serving(broken) as port:
        with pytest.raises(VgenError, match=r"no answer in 3 tries.*RuntimeError: .*out of memory") as caught:
            Remote(boxes.remote(port))(x, t, condition)
    assert "\n" not in str(caught.value)
    with pytest.raises(VgenError, match="no answer in 2 tries.*refused"):
        Remote(boxes.remote(port, tries=2))(x, t, condition)


def test_a_slow_server_counts_as_failed() -> None:
    def slow(x: np.ndarray, t: np.ndarray, condition: Condition) -> np.ndarray:
        time.sleep(0.5)
        return x

    with boxes.serving(slow) as port, pytest.raises(VgenError, match="timed out"):
        Remote(boxes.remote(port, timeout=0.05, tries=2))(*boxes.question(1))


def test_a_server_that_comes_back_is_waited_for() -> None:
    x, t, condition = boxes.question(1)
    with boxes.serving(boxes.torch_ask()) as port:
        pass
    back: list[PredictorServer] = []

    def revive() -> None:
        time.sleep(0.2)
        back.append(PredictorServer(("127.0.0.1", port), boxes.torch_ask(), "x0", 8, 10**7))
        back[0].serve_forever(0.01)

    thread = threading.Thread(target=revive, daemon=True)
    thread.start()
    value = Remote(boxes.remote(port, tries=20, pause=0.05))(x, t, condition)
    back[0].shutdown()
    back[0].server_close()
    np.testing.assert_allclose(value, boxes.jax_base(x, t, condition), atol=1e-5)


def test_refusals_are_not_repeated() -> None:
    calls = []

    def counted(x: np.ndarray, t: np.ndarray, condition: Condition) -> np.ndarray:
        calls.append(1)
        return x

    x, t, condition = boxes.question(4)
    with boxes.serving(counted, batch=2) as port, pytest.raises(VgenError, match="413.*4 rows, 1 to 2"):
        Remote(boxes.remote(port))(x, t, condition)
    with boxes.serving(counted, max_bytes=100) as port, pytest.raises(VgenError, match="413.*bytes"):
        Remote(boxes.remote(port))(x, t, condition)
    assert not calls


def test_a_strange_request_leaves_the_server_alive() -> None:
    x, t, condition = boxes.question(1)
    with boxes.serving(boxes.torch_ask()) as port:
        for path, data, status in (("/predict", b"nonsense", 400), ("/secret", b"", 404), ("/secret", None, 404)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data), timeout=5)
            assert caught.value.code == status
        assert Remote(boxes.remote(port))(x, t, condition).shape == x.shape


def test_a_port_in_use_is_named() -> None:
    with boxes.serving(boxes.torch_ask()) as port, pytest.raises(VgenError, match=f"127.0.0.1:{port}.*another port"):
        PredictorServer(("127.0.0.1", port), boxes.torch_ask(), "x0", 8, 10**7)


@pytest.mark.parametrize(
    ("changes", "fault"), [({"tries": 0}, "tries is 0"), ({"timeout": 0.0}, "timeout is 0"), ({"batch": 0}, "batch 0")]
)
def test_wrong_settings_are_refused(changes: dict, fault: str) -> None:
    with pytest.raises(VgenError, match=fault):
        boxes.remote(1, **changes)
    with pytest.raises(VgenError, match="begin it with http"):
        boxes.RemoteConfig("localhost:80", "", 1.0, 1, 1.0, 1.0, 1)


def test_a_kept_answer_is_not_asked_for_again(tmp_path: Path) -> None:
    calls = []

    def counted(x: np.ndarray, t: np.ndarray, condition: Condition) -> np.ndarray:
        calls.append(1)
        return 2 * x

    x, t, condition = boxes.question()
    for ask in (CachedAnswers(counted, tmp_path, "a"), CachedAnswers(counted, tmp_path, "a")):
        np.testing.assert_array_equal(ask(x, t, condition), 2 * x)
    assert len(calls) == 1
    for number, other in enumerate(((x + 1, t, condition), (x, t + 1, condition), (x, t, Condition()))):
        CachedAnswers(counted, tmp_path, "a")(*other)
        assert len(calls) == 2 + number
    CachedAnswers(counted, tmp_path, "b")(x, t, condition)
    assert len(calls) == 5
    for path in tmp_path.glob("*/*"):
        path.write_bytes(b"half an ans")
    with pytest.raises(VgenError, match="safetensors.*delete it"):
        CachedAnswers(counted, tmp_path, "a")(x, t, condition)
