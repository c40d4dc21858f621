"""Byte tokens equal ByT5's."""

import numpy as np
import pytest

from vgen_jax.data.text import decode_text, encode_text, join_texts


@pytest.mark.parametrize("text", ["", "go forward", "größer, then 左に曲がる", "x" * 40])
@pytest.mark.parametrize("length", [1, 8, 64])
def test_equal_to_byt5(text: str, length: int) -> None:
    tokenizer = pytest.importorskip("transformers").ByT5Tokenizer()
    expected = tokenizer(text, max_length=length, padding="max_length", truncation=True)["input_ids"]
    ids = encode_text(text, length)
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, expected)


def test_repetitions_are_said_once() -> None:
    assert join_texts(["go", "go", "turn", "go"]) == "go, then turn, then go"
    assert join_texts([]) == ""


@pytest.mark.parametrize("text", ["", "go forward", "größer, then 左に曲がる"])
def test_tokens_are_read_back(text: str) -> None:
    assert decode_text(encode_text(text, 64)) == text
    assert text.startswith(decode_text(encode_text(text, 4))), "a character that was cut in two is left out"
