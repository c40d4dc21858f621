"""Questions to a denoiser and its answers as bytes: safetensors, so that nothing that is received can run.

A question holds ``x_t`` (B, T, H, W, C) float32, ``t`` (B,) int32 and those fields of the ``Condition`` that are there,
under ``condition.<field>``. An answer holds ``value``, float32 of the shape of ``x_t``, and its kind in the metadata.
"""

import dataclasses
import json
import struct
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from vgen_jax.diffusion.prediction import check_kind
from vgen_jax.types import Condition, Prediction, VgenError

_FIELDS = tuple(field.name for field in dataclasses.fields(Condition))
_PREFIX = "condition."


def pack_question(x_t_BTHWC: np.ndarray, t_B: np.ndarray, condition: Condition) -> bytes:
    """The question as a safetensors file."""
    arrays = {"x_t": np.asarray(x_t_BTHWC, np.float32), "t": np.asarray(t_B, np.int32)}
    for name in _FIELDS:
        value = getattr(condition, name)
        if value is not None:
            arrays[_PREFIX + name] = np.asarray(value)
    return safetensors.numpy.save({name: np.ascontiguousarray(value) for name, value in arrays.items()})


def unpack_question(data: bytes) -> tuple[np.ndarray, np.ndarray, Condition]:
    """``x_t``, ``t`` and the condition.

    Raises:
        VgenError: anything but a question.
    """
    arrays, _ = _load(data)
    if "x_t" not in arrays or "t" not in arrays:
        raise VgenError(f"a question needs x_t and t, this one has {', '.join(sorted(arrays)) or 'nothing'}")
    x_t_BTHWC, t_B = arrays.pop("x_t"), arrays.pop("t")
    if x_t_BTHWC.ndim != 5 or x_t_BTHWC.dtype != np.float32:
        raise VgenError(f"x_t is {x_t_BTHWC.dtype} {x_t_BTHWC.shape}; expected float32 (B, T, H, W, C)")
    if t_B.shape != x_t_BTHWC.shape[:1] or t_B.dtype != np.int32:
        raise VgenError(f"t is {t_B.dtype} {t_B.shape}; expected int32 {x_t_BTHWC.shape[:1]}")
    for name, value in arrays.items():
        if name.removeprefix(_PREFIX) not in _FIELDS or not name.startswith(_PREFIX):
            raise VgenError(f"{name} is no part of a question; use x_t, t and {_PREFIX}{{{', '.join(_FIELDS)}}}")
        if value.shape[:1] != t_B.shape:
            raise VgenError(f"{name} has shape {value.shape}, but the batch is {len(t_B)}")
    condition = Condition(**{name.removeprefix(_PREFIX): value for name, value in arrays.items()})
    return x_t_BTHWC, t_B, condition


def pack_answer(value_BTHWC: np.ndarray, kind: str) -> bytes:
    """The answer as a safetensors file."""
    value = np.ascontiguousarray(value_BTHWC, np.float32)
    return safetensors.numpy.save({"value": value}, metadata={"kind": kind})


def unpack_answer(data: bytes) -> Prediction:
    """The Prediction, a NumPy array in it.

    Raises:
        VgenError: anything but an answer.
    """
    arrays, metadata = _load(data)
    if set(arrays) != {"value"} or "kind" not in metadata:
        raise VgenError(f"an answer is one array 'value' and its kind; this one has {', '.join(sorted(arrays))}")
    kind: Any = metadata["kind"]
    check_kind(kind)
    return Prediction(arrays["value"], kind)


def _load(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        arrays = safetensors.numpy.load(data)
        (length,) = struct.unpack_from("<Q", data)
        return arrays, json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (safetensors.SafetensorError, KeyError, ValueError, struct.error) as error:
        raise VgenError(f"{len(data)} bytes that are no safetensors file ({error}); is it another service?") from error
