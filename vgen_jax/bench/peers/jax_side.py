"""This library's side of the comparison with PyTorch."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vgen_jax.bench.peers.settings import AVERAGE, CLIP, RATE, SCHEDULE, PeerConfig, TimedCall
from vgen_jax.compose.guidance import classifier_free
from vgen_jax.devices.flops import matmul_flops
from vgen_jax.devices.sharding import MeshConfig, batch_sharding, make_mesh, replicated
from vgen_jax.diffusion.samplers import Sampler, sample
from vgen_jax.learning.slow import CompiledUpdate, Task, TrainConfig, abstract_state, make_update
from vgen_jax.learning.state import OptimizerConfig, make_optimizer
from vgen_jax.models.unet_latent import UNet3D
from vgen_jax.models.unet_pixel import PixelUNet
from vgen_jax.nn.dtypes import dtype_of
from vgen_jax.types import Array, Condition, Key, Params, Prediction


class OurSide:
    """The JAX network over all devices of the mesh, the batch split over them."""

    def __init__(self, settings: PeerConfig, unet: Mapping[str, Any], mesh_config: MeshConfig):
        self._s = settings
        self.mesh = make_mesh(mesh_config)
        self._mesh_config = mesh_config
        dtype = dtype_of(settings.dtype)
        self._network = (UNet3D if settings.network == "latent" else PixelUNet)(**unet, dtype=dtype)
        shape = (settings.batch, settings.frames, settings.height, settings.width)
        rng = np.random.default_rng(0)
        self._x = self._split(rng.standard_normal((*shape, settings.channels), np.float32))
        self._t = self._split(rng.integers(0, SCHEDULE.steps, settings.batch).astype(np.int32))
        text = rng.standard_normal((settings.batch, settings.text_tokens, settings.text_width), np.float32)
        self._text = self._split(text) if settings.network == "latent" else None
        shapes = jax.eval_shape(self._init, jax.random.key(0))
        self.parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))

    def _split(self, x: np.ndarray) -> jax.Array:
        return jax.device_put(x, batch_sharding(self.mesh))

    def _init(self, rng: Key) -> Params:
        one = (jax.tree.map(lambda x: x[:1], part) for part in (self._x, self._t, self._text))
        return self._network.init(rng, *one)["params"]

    def _apply(self, params: Params, x: Array, t: Array, text: Array | None) -> Array:
        value: Any = self._network.apply({"params": params}, x, t, text)
        return value

    def _cast(self) -> Params:
        """Random parameters in the compute dtype, on every device."""
        dtype = dtype_of(self._s.dtype)
        init = jax.jit(lambda rng: jax.tree.map(lambda p: p.astype(dtype), self._init(rng)))
        return jax.device_put(init(jax.random.key(0)), replicated(self.mesh))

    def lane(self, what: str) -> TimedCall:
        """The measurement ``what``."""
        call = {"forward": self._forward, "train": self._train, "generate": self._generate}[what]()
        return TimedCall(call, _peak_mib)

    def flops(self, what: str) -> int:
        """Model FLOPs of one call."""
        params = jax.eval_shape(self._init, jax.random.key(0))
        if what == "forward":
            return matmul_flops(self._apply, params, self._x, self._t, self._text)
        if what == "train":
            loss = lambda p: self._loss(p, (self._x, self._text), jax.random.key(0))[0]  # noqa: E731
            return matmul_flops(jax.grad(loss), params)
        forward = matmul_flops(self._apply, params, self._x, self._t, self._text)
        return forward * self._s.steps * (2 if self._s.guidance != 1.0 else 1)

    def _forward(self) -> Callable[[], None]:
        params = self._cast()
        compiled = jax.jit(self._apply)
        return lambda: _wait(compiled(params, self._x, self._t, self._text))

    def _loss(self, params: Params, batch: Any, rng: Key) -> tuple[Array, dict[str, Array]]:
        x, text = batch
        k_t, k_eps = jax.random.split(rng)
        t = jax.random.randint(k_t, x.shape[:1], 0, SCHEDULE.steps)
        eps = jax.random.normal(k_eps, x.shape)
        alpha, sigma = (v.reshape(-1, 1, 1, 1, 1) for v in SCHEDULE.alpha_sigma(t))
        value = self._apply(params, alpha * x + sigma * eps, t, text)
        return jnp.mean((value - eps[..., : self._s.out_channels]) ** 2), {}

    def _train(self) -> Callable[[], None]:
        optimizer = make_optimizer(OptimizerConfig(learning_rate=RATE, clip=CLIP))
        task = Task(self._init, Partial(self._loss), iter(()))  # type: ignore[arg-type]
        init, _, shardings = abstract_state(task, optimizer, self.mesh, self._mesh_config, 0)
        update = CompiledUpdate(make_update(optimizer, TrainConfig(ema_decay=AVERAGE)), shardings, self.mesh)
        state = init(jax.random.key(0))

        def call() -> None:
            nonlocal state
            state, metrics = update(state, task.objective, (self._x, self._text))
            jax.block_until_ready(metrics)

        return call

    def _generate(self) -> Callable[[], None]:
        sampler = Sampler("ddim", self._s.steps, spacing="leading", steps_offset=1)
        params, keys = self._cast(), jax.random.split(jax.random.key(0), self._s.batch)

        @jax.jit
        def generate(params: Params, noise: Array, text: Array, null: Array) -> Array:
            def predict(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
                return Prediction(self._apply(params, x_t_BTHWC, t_B, condition.text_BLD), "eps")

            guided = classifier_free(predict, Condition(null), self._s.guidance)
            out: Any = sample(guided, SCHEDULE, sampler, noise, Condition(text), keys)
            return out

        null = jnp.zeros_like(jnp.asarray(self._text))
        return lambda: _wait(generate(params, self._x, self._text, null))


def _wait(x: Any) -> None:
    jax.block_until_ready(x)


def _peak_mib() -> float | None:
    stats = jax.local_devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / 2**20 if stats and "peak_bytes_in_use" in stats else None
