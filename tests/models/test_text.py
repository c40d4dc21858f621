"""The byte text encoder."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vgen_jax.data.text import VOCABULARY, encode_text
from vgen_jax.models.text import BYTE_VOCABULARY, ByteTextEncoder
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
