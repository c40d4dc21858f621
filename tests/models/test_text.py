"""Text encoders; CLIP's is held against the original in tests/convert."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vgen_jax.data.text import VOCABULARY, encode_text
from vgen_jax.models.text import BYTE_VOCABULARY, ByteTextEncoder, ClipTextEncoder, looked_up
from vgen_jax.types import VgenError

ENCODER = ByteTextEncoder(width=8, layers=2, heads=2, max_length=16)


def encode(text: str, length: int) -> tuple[np.ndarray, np.ndarray]:
    token = jnp.asarray(encode_text(text, length))[None]
    variables = tiny.random_params(ENCODER.init, jnp.ones((1, 16), jnp.int32))
    embedding, mask = tiny.jit(ENCODER.apply)(variables, token)
    return np.asarray(embedding[0]), np.asarray(mask[0])


def test_the_length_of_the_padding_does_not_matter() -> None:
    (short, _), (long, mask) = encode("go on", 6), encode("go on", 16)
    np.testing.assert_array_equal(mask, np.arange(16) < 6)
    np.testing.assert_allclose(long[:6], short, atol=1e-5)


def test_every_letter_is_heard_everywhere() -> None:
    (a, _), (b, _) = encode("turn left", 10), encode("turn lift", 10)
    assert (np.abs(a - b).max(-1) > 1e-6).all()


def test_the_vocabulary_is_that_of_the_data() -> None:
    assert BYTE_VOCABULARY == VOCABULARY
    assert np.isfinite(encode("\u00ff\U0001f600", 16)[0]).all()


def test_a_text_longer_than_the_encoder_is_refused() -> None:
    with pytest.raises(VgenError, match="17 tokens.*text.max_length 16"):
        encode("go", 17)


CLIP = ClipTextEncoder(vocabulary=20, width=8, layers=2, heads=2, feed_forward=16, max_length=6)


def encode_clip(token_BL: object, mask_BL: object = None) -> np.ndarray:
    variables = tiny.random_params(CLIP.init, jnp.ones((1, 6), jnp.int32))
    return np.asarray(tiny.jit(CLIP.apply)(variables, jnp.asarray(token_BL, jnp.int32), mask_BL))


def test_the_text_tower_of_modelscope_has_its_number_of_parameters() -> None:
    shapes = jax.eval_shape(ClipTextEncoder().init, jax.random.key(0), jax.ShapeDtypeStruct((1, 77), jnp.int32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 340_387_840


def test_clip_reads_from_left_to_right() -> None:
    a, b = encode_clip([[3, 4, 5, 6]]), encode_clip([[3, 4, 9, 6]])
    np.testing.assert_allclose(a[:, :2], b[:, :2], atol=1e-6)
    assert (np.abs(a - b)[:, 2:].max(-1) > 1e-3).all()


def test_masked_tokens_are_not_heard() -> None:
    mask = np.asarray([[True, False, True, True]])
    a, b = encode_clip([[3, 4, 5, 6]], mask), encode_clip([[3, 9, 5, 6]], mask)
    np.testing.assert_allclose(a[:, [0, 2, 3]], b[:, [0, 2, 3]], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "length", "named"),
    [
        ({}, 7, "7 tokens exceed text.max_length 6"),
        ({"activation": "tanh"}, 6, "text.activation 'tanh'"),
        ({"heads": 3}, 6, "text.width 8 is no multiple of text.heads 3"),
    ],
)
def test_what_is_no_text_tower_is_refused(changes: dict[str, object], length: int, named: str) -> None:
    token = jax.ShapeDtypeStruct((1, length), jnp.int32)
    with pytest.raises(VgenError, match=named):
        jax.eval_shape(CLIP.clone(**changes).init, jax.random.key(0), token)


def test_texts_are_looked_up_by_their_bytes_and_unknown_ones_are_nan() -> None:
    tokens = np.stack([encode_text(text, 8) for text in ("", "go", "turn")])
    table = {"token": tokens, "embedding": np.arange(3.0)[:, None, None] + np.zeros((3, 2, 4))}
    asked = np.stack([encode_text(text, 8) for text in ("turn", "", "got", "go")])
    np.testing.assert_array_equal(looked_up(table, asked)[:, 1, 3], [2.0, 0.0, np.nan, 1.0])
    with pytest.raises(VgenError, match="texts of 6 bytes cannot be looked up among texts of 8"):
        looked_up(table, asked[:, :6])
