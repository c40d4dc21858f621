"""Streams of actions."""

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from vgen_jax.data.text import encode_text
from vgen_jax.types import VgenError
from vgen_jax.worlds.actions import ActionCodec, cycled, read_lines

INFO = tiny.info()


def codec(space: str = "continuous", frames: int = 4, token_length: int = 16) -> ActionCodec:
    return ActionCodec(INFO, space, token_length, frames)


def test_commands_become_chunks() -> None:
    chunks = list(codec().chunks(["go", "Rotate", "turn", "turn"]))
    assert [chunk.text for chunk in chunks] == ["go, then Rotate", "turn"]
    np.testing.assert_allclose(chunks[0].action_TA, [[0, 2], [0, 2], [0.5, 0], [0.5, 0]])
    np.testing.assert_array_equal(chunks[0].token_L, encode_text("go, then Rotate", 16))
    assert chunks[1].action_TA.dtype == np.float32


def test_discrete_actions_are_one_hot() -> None:
    (chunk,) = codec("discrete").chunks(["turn", "go"])
    np.testing.assert_array_equal(chunk.action_TA, [[0, 1], [0, 1], [1, 0], [1, 0]])
    text, rows = codec("discrete").step('{"text": "x", "actions": [1, 0]}')
    np.testing.assert_array_equal(rows, [[0, 1], [1, 0]])


def test_a_model_without_actions_or_text_reads_anything() -> None:
    (chunk,) = codec("none", frames=2, token_length=0).chunks(["dance wildly"])
    assert chunk == ("dance wildly", None, None)


def test_actions_may_be_given_in_raw_units() -> None:
    line = json.dumps({"text": "slide", "actions": [[5, 0.25], [-10, 0]]})
    text, rows = codec().step(line)
    assert text == "slide"
    np.testing.assert_allclose(rows, [[0.5, 0.5], [-1, 0]])


def test_only_what_a_chunk_needs_is_read() -> None:
    read: list[str] = []

    def lines() -> Iterator[str]:
        for line in itertools.cycle(["go", "turn"]):
            read.append(line)
            yield line

    chunks = codec().chunks(lines())
    assert read == []
    next(chunks)
    assert len(read) == 2


@pytest.mark.parametrize(
    ("space", "line", "named"),
    [
        ("continuous", "fly", "unknown command 'fly'.*go, turn"),
        ("continuous", '{"text": "x"', "not a JSON object"),
        ("continuous", '{"actions": [[0, 0], [0, 0]]}', "'text' and 'actions'"),
        ("continuous", '{"text": "x", "actions": [[0, 0]]}', "give 2 rows of 2 numbers"),
        ("continuous", '{"text": "x", "actions": [0, 0]}', "give 2 rows of 2 numbers"),
        ("continuous", '{"text": "x", "actions": [[0, 0], [0]]}', "give 2 rows of 2 numbers"),
        ("continuous", '{"text": "x", "actions": [[0, 0], [NaN, 0]]}', "give 2 rows of 2 numbers"),
        ("continuous", '{"text": "x", "actions": [["a", 0], [0, 0]]}', "give 2 rows of 2 numbers"),
        ("discrete", '{"text": "x", "actions": [0]}', "give 2 ids"),
        ("discrete", '{"text": "x", "actions": [0, 2]}', "from 0 to 1"),
        ("discrete", '{"text": "x", "actions": [-1, 0]}', "from 0 to 1"),
        ("discrete", '{"text": "x", "actions": [0.5, 0]}', "from 0 to 1"),
    ],
)
def test_what_does_not_fit_is_named(space: str, line: str, named: str) -> None:
    with pytest.raises(VgenError, match=named) as error:
        list(codec(space, frames=2).chunks([line]))
    assert "\n" not in str(error.value)


def test_a_chunk_is_a_whole_number_of_commands() -> None:
    with pytest.raises(VgenError, match="3 frames is no multiple .* 2"):
        next(codec(frames=3).chunks(["go"]))


def test_files_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "# a tour\ngo\n\n  turn  \n#go\n"
    path = tmp_path / "tour.txt"
    path.write_text(text)
    assert list(read_lines(str(path))) == ["go", "turn"]
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert list(read_lines("-")) == ["go", "turn"]
    with pytest.raises(VgenError, match=f"{tmp_path}/none is no file"):
        list(read_lines(str(tmp_path / "none")))


def test_cycled() -> None:
    assert list(cycled(("go", "turn"), 5)) == ["go", "turn", "go", "turn", "go"]
    assert list(cycled(iter(["go"]), 2)) == ["go", "go"]
