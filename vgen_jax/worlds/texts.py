"""The texts of a rollout or of data, for a model that takes their embeddings from a table, and that table."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vgen_jax.convert.clip import text_embeddings
from vgen_jax.data.batches import BatchesConfig
from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.text import decode_text, encode_text, join_texts
from vgen_jax.data.windows import WindowIndex, future_texts
from vgen_jax.files.progress import progress
from vgen_jax.types import ChunkAction, VgenError
from vgen_jax.worlds.actions import ActionCodec
from vgen_jax.worlds.pretrained import read_texts
from vgen_jax.worlds.slow import SlowModel

MANY_BYTES = 2**32

Table = Mapping[str, np.ndarray]


def window_tokens(data_dir: str, split: str, windows: Iterable[tuple[int, int]], token_length: int) -> np.ndarray:
    """The different texts of a split's windows as ``data.windows`` tells them, int32 (N, token_length)."""
    source = EpisodeSource(data_dir, split)
    indices = [WindowIndex(source.frames, source.info.chunk, f_p, f_g) for f_p, f_g in windows]
    found = set()
    for episode in progress(range(len(source)), desc=f"texts of {split}", unit="episode"):
        texts = source.head(episode).texts
        for index in indices:
            for n in index.episode_range(episode):
                found.add(join_texts(future_texts(texts, index[n].boundary, index.f_g)))
    return distinct([encode_text(text, token_length) for text in found])


def distinct(tokens: Iterable[np.ndarray]) -> np.ndarray:
    """Different rows in a fixed order, int32 (N, L)."""
    return np.unique(np.stack(list(tokens)), axis=0).astype(np.int32)


def text_table(model_dir: str | Path, token_NL: np.ndarray, known: Table | None = None) -> dict[str, np.ndarray]:
    """A table (``models.text.looked_up``) of the given texts and the empty one.

    Args:
        model_dir: a text-to-video model, whose text tower is in memory during the call only, and only if a text is not
            ``known``.
        known: an earlier table.

    Raises:
        VgenError: if the tower cannot be loaded, or the texts would fill a device.
    """
    empty_L = encode_text("", token_NL.shape[1])
    token_NL = distinct([empty_L, *token_NL])
    rows: dict[bytes, np.ndarray] = {}
    if known is not None:
        rows = {_key(token_L): row for token_L, row in zip(known["token"], known["embedding"], strict=True)}
    new_NL = [token_L for token_L in token_NL if _key(token_L) not in rows]
    if new_NL:
        embedded = text_embeddings(str(model_dir), [decode_text(token_L) for token_L in new_NL])
        rows |= {_key(token_L): row for token_L, row in zip(new_NL, embedded.astype(np.float16), strict=True)}
    embedding = np.stack([rows[_key(token_L)] for token_L in token_NL])
    if embedding.nbytes > MANY_BYTES:
        raise VgenError(
            f"{len(token_NL)} different texts take {embedding.nbytes / 2**30:.1f} GiB on every device: use longer "
            "chunks, fewer paraphrases or shorter windows, so that fewer are joined"
        )
    return {"token": token_NL, "embedding": embedding}


def load_table(folder: Path, token_NL: np.ndarray) -> dict[str, np.ndarray]:
    """A table that ``embed_texts`` wrote, if it has all of these texts.

    Raises:
        VgenError: if it is missing, or lacks a text.
    """
    table = read_texts(folder)
    have = {_key(token_L) for token_L in table["token"]}
    lacking = [token_L for token_L in token_NL if _key(token_L) not in have]
    if lacking:
        raise VgenError(
            f"{folder} lacks {len(lacking)} texts of the data, such as '{decode_text(lacking[0])}': run embed_texts "
            "with this data, windows and token_length"
        )
    return table


def has_table(model: SlowModel) -> bool:
    """Whether a model takes its texts from a table."""
    return model.config.text.width > 0 and model.config.text.layers == 0


def with_texts(model: SlowModel, model_dir: str | Path, token_NL: Sequence[np.ndarray]) -> SlowModel:
    """A model whose table has these texts and no others; a model that encodes its texts itself stays as it is."""
    if not has_table(model):
        return model
    known = model.params["text"] if "text" in model.params else None
    length = model.config.text.max_length
    table = text_table(model_dir, np.asarray(token_NL, np.int32).reshape(-1, length), known)
    return model._replace(params={**model.params, "text": table})


def with_window_texts(model: SlowModel, model_dir: str | Path, data: BatchesConfig) -> SlowModel:
    """``with_texts`` of all windows that ``data`` may give."""
    if not has_table(model):
        return model
    token_NL = window_tokens(data.data_dir, data.split, data.windows, data.token_length)
    return with_texts(model, model_dir, list(token_NL))


def rollout_texts(codec: ActionCodec, actions: Iterable[ChunkAction], typed: bool) -> list[np.ndarray]:
    """The texts of a rollout to come, (L,) each; of one that is ``typed``, all that the data have commands for.

    Args:
        actions: of the rollout, or where they are typed those that were announced.
    """
    tokens = [action.token_L for action in actions if action.token_L is not None]
    if typed and codec.token_length:
        texts = [text for command in codec.info.commands for text in (command.name, *command.texts)]
        tokens += [encode_text(text, codec.token_length) for text in texts]
    return tokens


def embedded_texts(model: SlowModel) -> frozenset[bytes] | None:
    """The tokens of the texts that a model's table has, as bytes; ``None`` for a model that embeds any text."""
    if not has_table(model):
        return None
    return frozenset(_key(token_L) for token_L in (model.params["text"]["token"] if "text" in model.params else ()))


def _key(token_L: np.ndarray) -> bytes:
    return np.asarray(token_L, np.int32).tobytes()
