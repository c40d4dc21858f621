"""Answers of a black box that are written down, so that the same question is asked once.

A training draws its steps and noise from its seeds, so that adapters which are trained on the same data, batches, seeds
and schedule ask their base the same: its answers may be precomputed by any one of them. A question is known by its
bytes.
"""

import hashlib
import os
from pathlib import Path

import numpy as np

from vgen_jax.black_box.ask import Ask
from vgen_jax.black_box.wire import pack_answer, pack_question, unpack_answer
from vgen_jax.types import Condition, VgenError


class CachedAnswers:
    """An ``Ask`` that asks another one what it was not asked before.

    Args:
        folder: of the answers, one safetensors file each.
        name: of the base; other bases have other answers.
    """

    def __init__(self, ask: Ask, folder: Path, name: str):
        self._ask, self._folder, self._name = ask, folder, name

    def __call__(self, x_t_BTHWC: np.ndarray, t_B: np.ndarray, condition: Condition) -> np.ndarray:
        """The answer, float32.

        Raises:
            VgenError: a kept answer is damaged.
        """
        question = pack_question(x_t_BTHWC, t_B, condition)
        key = hashlib.sha256(self._name.encode() + b"\0" + question).hexdigest()
        path = self._folder / key[:2] / f"{key}.safetensors"
        if path.is_file():
            try:
                return np.asarray(unpack_answer(path.read_bytes()).value)
            except VgenError as error:
                raise VgenError(f"{path}: {error}; delete it") from error
        value = np.asarray(self._ask(x_t_BTHWC, t_B, condition), np.float32)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(pack_answer(value, "x0"))  # some kind has to stand there; whoever asks knows it
        part.replace(path)
        return value
