"""Text as bytes: the token ids of ByT5, without its library."""

import numpy as np

PAD, EOS, OFFSET = 0, 1, 3
VOCABULARY = 256 + OFFSET  # ids in use; ByT5's own embedding has 384 rows


def encode_text(text: str, length: int) -> np.ndarray:
    """int32 (length,) ids: UTF-8 bytes + 3, end of sequence 1, padding 0; a longer text is cut to fit its end mark."""
    ids = [byte + OFFSET for byte in text.encode()[: length - 1]] + [EOS]
    return np.asarray(ids + [PAD] * (length - len(ids)), np.int32)


def join_texts(texts: list[str]) -> str:
    """One text for commands that follow each other; a repeated one is said once."""
    distinct = [text for n, text in enumerate(texts) if n == 0 or text != texts[n - 1]]
    return ", then ".join(distinct)


def decode_text(token_L: np.ndarray) -> str:
    """The text of ``encode_text``'s ids; a character that was cut in two is left out."""
    return bytes(int(i) - OFFSET for i in token_L if i >= OFFSET).decode(errors="ignore")
