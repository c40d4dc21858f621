"""Denoisers that are not written in JAX, or not at hand at all, as Predictors.

AVID (arXiv:2410.12822, §2.3) adapts a model through its outputs alone. What gives them is an ``Ask``: a function on the
host, NumPy arrays in and NumPy arrays out. ``ask_torch`` makes one of a PyTorch module, ``client.Remote`` of an HTTP
service, ``ask_jax`` of a Predictor. ``from_ask`` makes a Predictor of it for jitted code, a sampler's scan included; in
trainings it is asked outside of the compiled step instead (``black_box.training``), so that a question without an
answer loses nothing. No gradient flows into any of them.
"""

import re
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vgen_jax.diffusion.prediction import check_kind
from vgen_jax.types import Array, Condition, Prediction, PredictionKind, Predictor, VgenError


class Ask(Protocol):
    """A denoiser on the host.

    ``x_t_BTHWC`` is float32, ``t_B`` int32, the condition's arrays are NumPy's. Returns floats of the shape of ``x_t``.
    """

    def __call__(self, x_t_BTHWC: np.ndarray, t_B: np.ndarray, condition: Condition) -> np.ndarray: ...


def from_jax(function: Callable[[Array, Array, Condition], Array], kind: PredictionKind) -> Predictor:
    """A JAX function as a frozen Predictor: traced into the caller's program, nothing is asked on the host."""
    check_kind(kind)

    def predict(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
        arguments = jax.lax.stop_gradient((x_t_BTHWC, t_B, condition))
        return Prediction(jax.lax.stop_gradient(function(*arguments)), kind)

    return predict


def from_ask(ask: Ask, kind: PredictionKind) -> Predictor:
    """An ``Ask`` as a frozen Predictor, under ``jit`` a callback to the host with the whole batch.

    For programs on one device: several CPU devices have been seen to wait for each other around a callback for ever;
    there take ``sampling.sample_black_box``. A fault of ``ask`` reaches the caller as JAX's error, from which
    ``fault_of`` takes the line that says what happened.
    """
    check_kind(kind)

    def on_host(x_t_BTHWC: Any, t_B: Any, condition: Condition) -> np.ndarray:
        return answer(ask, np.asarray(x_t_BTHWC), np.asarray(t_B), jax.tree.map(np.asarray, condition))

    def predict(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
        x, t, given = jax.lax.stop_gradient((jnp.asarray(x_t_BTHWC, jnp.float32), t_B, condition))
        like = jax.ShapeDtypeStruct(x.shape, jnp.float32)
        value: Any = jax.pure_callback(on_host, like, x, t, given, vmap_method="sequential")
        return Prediction(value, kind)

    return predict


def answer(ask: Ask, x_t_BTHWC: np.ndarray, t_B: np.ndarray, condition: Condition) -> np.ndarray:
    """One question, float32.

    Raises:
        VgenError: for an answer of another shape.
    """
    value = np.asarray(ask(x_t_BTHWC, t_B, condition), np.float32)
    if value.shape != x_t_BTHWC.shape:
        raise VgenError(f"the black box answers with shape {value.shape} to x_t of shape {x_t_BTHWC.shape}; mend it")
    return value


def ask_jax(predictor: Predictor) -> Ask:
    """A Predictor as an ``Ask``: what the project's own server serves."""
    jitted = jax.jit(lambda x, t, condition: predictor(x, t, condition).value)

    def ask(x_t_BTHWC: np.ndarray, t_B: np.ndarray, condition: Condition) -> np.ndarray:
        return np.asarray(jitted(x_t_BTHWC, t_B, condition))

    return ask


def ask_torch(module: Callable[..., Any], device: str = "cpu") -> Ask:
    """A PyTorch network as an ``Ask``.

    Args:
        module: (x_t (B, C, T, H, W), t (B,) int64, condition) -> tensor of the shape of x_t. ``condition`` is a
            dictionary of the ``Condition``'s fields that are there, channels last; a function may adapt the signature.
        device: where it computes; the module is moved there if it can be.

    Raises:
        VgenError: PyTorch is missing, or the module is in training mode.
    """
    try:
        import torch
    except ImportError as error:
        raise VgenError("a PyTorch black box needs PyTorch; pip install torch") from error
    if isinstance(module, torch.nn.Module):
        if module.training:
            raise VgenError("the PyTorch black box is in training mode, in which its outputs vary; call .eval() on it")
        module = module.to(device)

    def tensor(values: np.ndarray) -> Any:
        return torch.from_numpy(np.array(values)).to(device)

    def ask(x_t_BTHWC: np.ndarray, t_B: np.ndarray, condition: Condition) -> np.ndarray:
        given = {name: tensor(value) for name, value in vars(condition).items() if value is not None}
        with torch.no_grad():
            out = module(tensor(np.moveaxis(x_t_BTHWC, -1, 1)), tensor(t_B).long(), given)
        return np.moveaxis(out.float().cpu().numpy(), 1, -1)

    return ask


_FAULT = re.compile(r"^(?:\w+\.)*VgenError: (.+)$", re.MULTILINE)


def fault_of(error: jax.errors.JaxRuntimeError) -> VgenError | None:
    """The fault of an ``Ask`` that ended a jitted program, as one line; ``None`` if something else ended it."""
    found = _FAULT.findall(str(error))
    return VgenError(found[-1]) if found else None
