"""One small denoiser three times: in JAX, in PyTorch, and in PyTorch behind HTTP; and an adapter to train on it."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.tree_util import Partial

from vgen_jax.black_box.ask import Ask, ask_torch
from vgen_jax.black_box.client import RemoteConfig
from vgen_jax.black_box.server import PredictorServer
from vgen_jax.compose.avid import avid
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.models.adapter import Adapted, AdapterHead
from vgen_jax.nn.pixels import to_unit
from vgen_jax.objectives.adapter import AdapterLoss, adapter
from vgen_jax.types import Array, Condition, Objective, Params, Prediction, Predictor

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 3, 3, 3), scale=0.15).astype(np.float32)  # T, H, W, in, out
SCHEDULE = Schedule("cosine", 50)
PAST = 2


def jax_base(x_BTHWC: Array, t_B: Array, condition: Condition) -> Array:
    """An x0 denoiser: a convolution of x_t and of the last past frame, fainter at later steps."""
    if condition.past_BTHWC is not None:
        x_BTHWC = x_BTHWC + condition.past_BTHWC[:, -1:]
    out = jax.lax.conv_general_dilated(
        x_BTHWC, KERNEL, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )  # fmt: skip
    return jnp.tanh(out) / (1 + t_B[:, None, None, None, None] / 50)


class TorchBase(torch.nn.Module):
    """The same network, written in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv3d(3, 3, 3, padding=1, bias=False)
        self.conv.weight.data = torch.from_numpy(KERNEL.transpose(4, 3, 0, 1, 2).copy())

    def forward(self, x: torch.Tensor, t: torch.Tensor, condition: dict[str, torch.Tensor]) -> torch.Tensor:
        if "past_BTHWC" in condition:
            x = x + condition["past_BTHWC"].movedim(-1, 1)[:, :, -1:]
        return torch.tanh(self.conv(x)) / (1 + t[:, None, None, None, None] / 50)


def torch_ask() -> Ask:
    """The PyTorch network as a black box."""
    return ask_torch(TorchBase().eval())


class Network(nn.Module):
    """An adapter's network: two dense layers over x_t, the base's output, the last past frame and the actions."""

    @nn.compact
    def __call__(self, x: Array, base: Array, t_B: Array, condition: Condition) -> Adapted:
        past = jnp.broadcast_to(condition.past_BTHWC[:, -1:], x.shape)
        action = jnp.broadcast_to(condition.action_BTA[:, :, None, None], (*x.shape[:-1], 2))
        h = nn.gelu(nn.Dense(8)(jnp.concatenate([x, base, past, action], axis=-1)))
        h = h * (1 + jnp.sin(t_B / 10)[:, None, None, None, None])
        return AdapterHead(True)(nn.Dense(4)(h))


def around(base: Predictor) -> Objective:
    """AVID's objective over any base."""

    def predict(params: Params, x: Array, t_B: Array, condition: Condition) -> Prediction:
        return avid(base, Partial(lambda x, b, t, c: Network().apply({"params": params}, x, b, t, c)))(
            x, t_B, condition
        )

    return adapter(Partial(predict), Partial(to_unit), PAST, SCHEDULE, AdapterLoss("none", 0.0))


def init(rng: jax.Array) -> Params:
    """The adapter's parameters."""
    x = jnp.zeros((1, 2, 4, 4, 3))
    condition = Condition(action_BTA=jnp.zeros((1, 2, 2)), past_BTHWC=x)
    return Network().init(rng, x, x, jnp.zeros((1,), jnp.int32), condition)["params"]


def question(b: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Condition]:
    """Noisy frames, steps and a condition."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(b, 4, 8, 8, 3)).astype(np.float32)
    past = rng.normal(size=(b, 2, 8, 8, 3)).astype(np.float32)
    return x, rng.integers(0, 50, b).astype(np.int32), Condition(past_BTHWC=past)


def remote(port: int, **changes: object) -> RemoteConfig:
    """An impatient client of a server on this machine."""
    values = {"token_env": "", "timeout": 10.0, "tries": 3, "pause": 0.01, "longest_pause": 0.2, "batch": 8}
    return RemoteConfig(url=f"http://127.0.0.1:{port}", **{**values, **changes})


@contextlib.contextmanager
def serving(ask: Ask, batch: int = 8, token: str = "", max_bytes: int = 10**7) -> Iterator[int]:
    """A server in a thread of this process; gives its port."""
    server = PredictorServer(("127.0.0.1", 0), ask, "x0", batch, max_bytes, token)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def start_server(port: int) -> subprocess.Popen[str]:
    """A server of the PyTorch network as a process of its own, which may be killed; it may still be starting."""
    program = (
        "from tests.black_box.boxes import torch_ask\nfrom vgen_jax.black_box.server import PredictorServer\n"
        f"PredictorServer(('127.0.0.1', {port}), torch_ask(), 'x0', 8, 10**7).serve_forever()"
    )
    return subprocess.Popen([sys.executable, "-c", program], text=True)
