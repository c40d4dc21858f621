"""Run ``peer_benchmark``: this library's networks beside the same ones in PyTorch, on the same inputs, taking turns.

Both sides run in one process, call by call, so that whatever else the machine does falls on both; who is first changes
from round to round, each call is waited for, compilation and warm-up come before and are timed apart, and the median
round counts. The networks have the same parameters, layer for layer. What is timed:

forward   one evaluation, parameters in the compute dtype
train     ε-loss of a fresh noise, its gradient, clipping, Adam on float32 parameters, their moving average
generate  DDIM with classifier-free guidance, in latents: one ``lax.scan`` here, diffusers' scheduler in a loop there

TFLOP/s count the model's own matrix work (``flops``), the same for both sides; MFU is that over the chip's published
peak (``chips``). Peak memory is the device's where it tells, each side's by its own allocator: start with
``XLA_PYTHON_CLIENT_PREALLOCATE=false``, or JAX leaves PyTorch too little.
"""

import dataclasses
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from ml_collections import ConfigDict

from vgen_jax.compose.guidance import classifier_free
from vgen_jax.config import section
from vgen_jax.devices.chips import Chip, chip_of
from vgen_jax.devices.flops import matmul_flops
from vgen_jax.devices.sharding import MeshConfig, batch_sharding, make_mesh, replicated
from vgen_jax.diffusion.samplers import Sampler, sample
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.learning.slow import CompiledUpdate, Task, TrainConfig, abstract_state, make_update
from vgen_jax.learning.state import OptimizerConfig, make_optimizer
from vgen_jax.models.unet_latent import UNet3D
from vgen_jax.models.unet_pixel import PixelUNet
from vgen_jax.types import Array, Condition, Key, Params, Prediction, VgenError
from vgen_jax.worlds.slow_networks import dtype_of

TABLE_FILE = "peer_benchmark.md"
WHAT = ("forward", "train", "generate")
# The schedule of ModelScopeT2V; no speed depends on it.
SCHEDULE = Schedule("scaled_linear", 1000, 0.00085, 0.012, zero_terminal_snr=False, set_alpha_to_one=False)
RATE, CLIP, AVERAGE = 1e-4, 1.0, 0.999


@dataclasses.dataclass(frozen=True)
class PeerConfig:
    """What is timed.

    Attributes:
        network: ``latent`` (``UNet3D`` beside diffusers' ``UNet3DConditionModel``) or ``pixel`` (``PixelUNet`` beside
            ``bench.peers.pixel_unet``).
        what: of ``forward``, ``train``, ``generate``; the last of a latent network only.
        batch, frames, height, width: of what the network sees.
        channels, out_channels: of its input and its output.
        text_tokens, text_width: of the texts' embeddings of a latent network.
        dtype: of the computation on both sides.
        rounds: timed.
        steps, guidance: of a generation.
        compile: PyTorch's ``torch.compile`` mode, such as ``max-autotune``; empty leaves it out.
    """

    network: Literal["latent", "pixel"]
    what: tuple[str, ...]
    batch: int
    frames: int
    height: int
    width: int
    channels: int
    out_channels: int
    text_tokens: int
    text_width: int
    dtype: str
    rounds: int
    steps: int
    guidance: float
    compile: str

    def __post_init__(self) -> None:
        if self.network not in ("latent", "pixel"):
            raise VgenError(f"peer.network '{self.network}' is unknown: use latent or pixel")
        for what in self.what:
            if what not in WHAT or (what == "generate" and self.network == "pixel"):
                raise VgenError(f"peer.what has '{what}', which a {self.network} network is not timed at")
        if self.rounds < 1:
            raise VgenError(f"peer.rounds is {self.rounds}: use 1 or more")


class Lane(NamedTuple):
    """One side of one measurement: a call that returns when its result is there; what its peak memory was, MiB."""

    call: Callable[[], None]
    peak_mib: Callable[[], float | None]


class Cost(NamedTuple):
    """The first call, compilation included; the median of the later ones; seconds, and MiB."""

    first: float
    seconds: float
    peak_mib: float | None


def run(config: ConfigDict, workdir: Path) -> None:
    """Prints and writes ``results.json`` and a Markdown table, ``peer_benchmark.md``."""
    settings = section(PeerConfig, config.peer, "peer")
    mesh_config = section(MeshConfig, config.mesh, "mesh")
    keep_config(config, workdir)
    load_average = os.getloadavg()[0]
    from vgen_jax.bench.peers import torch_side  # PyTorch is an extra

    ours = OurSide(settings, config.unet.to_dict(), mesh_config)
    theirs = torch_side.TorchSide(settings, config.unet.to_dict())
    chip = chip_of(jax.devices()[0])
    results: dict[str, Any] = {
        "device": jax.devices()[0].device_kind, "devices": ours.mesh.size, "cores": os.cpu_count(),
        "load_average_before": load_average, "jax": jax.__version__, **theirs.versions(),
        "parameters": ours.parameters, "parameters_of_peer": theirs.parameters,
    }  # fmt: skip
    lines = []
    for what in settings.what:
        flops = ours.flops(what)
        costs = interleaved({"vgen_jax": ours.lane(what), "PyTorch": theirs.lane(what)}, settings.rounds)
        results |= named(what, costs, flops, chip, ours.mesh.size)
        lines += table_lines(what, costs, flops, chip, ours.mesh.size)
        print("\n".join(lines[-2:]), flush=True)
        write_results(workdir, results)
    note = (
        f"{settings.network}, batch {settings.batch}, {settings.frames} frames of {settings.height}×{settings.width}, "
        f"{settings.dtype}, median of {settings.rounds} on {results['device']}, {results['cores']} cores, load average "
        f"{load_average:.1f} before the start; JAX {jax.__version__}, {theirs.versions()}."
    )
    (workdir / TABLE_FILE).write_text("\n".join([*HEADER, *lines]) + f"\n\n{note}\n")


def interleaved(lanes: Mapping[str, Lane], rounds: int) -> dict[str, Cost]:
    """Every lane's cost; the second call still warms up."""

    def timed(lane: Lane) -> float:
        begun = time.perf_counter()
        lane.call()
        return time.perf_counter() - begun

    first = {name: timed(lane) for name, lane in lanes.items()}
    for lane in lanes.values():
        lane.call()
    later: dict[str, list[float]] = {name: [] for name in lanes}
    for number in range(rounds):
        for name in list(lanes)[:: 1 if number % 2 else -1]:
            later[name].append(timed(lanes[name]))
    return {name: Cost(first[name], statistics.median(later[name]), lane.peak_mib()) for name, lane in lanes.items()}


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

    def lane(self, what: str) -> Lane:
        """The measurement ``what``."""
        call = {"forward": self._forward, "train": self._train, "generate": self._generate}[what]()
        return Lane(call, _peak_mib)

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


HEADER = (
    "| what | side | ms | ÷ PyTorch's speed | first call, s | TFLOP/s | MFU | peak MiB |",
    "|---|---|---|---|---|---|---|---|",
)


def table_lines(what: str, costs: Mapping[str, Cost], flops: int, chip: Chip | None, devices: int) -> list[str]:
    """Rows of the table; a ratio above 1 is faster than PyTorch."""
    lines = []
    for side, cost in costs.items():
        rate = flops / cost.seconds
        mfu = f"{rate / devices / chip.flops:.1%}" if chip else "–"
        ratio = costs["PyTorch"].seconds / cost.seconds
        peak = f"{cost.peak_mib:,.0f}" if cost.peak_mib is not None else "–"
        lines.append(
            f"| {what} | {side} | {cost.seconds * 1e3:,.1f} | {ratio:.2f} | {cost.first:,.1f} | {rate / 1e12:,.3g} | "
            f"{mfu} | {peak} |"
        )
    return lines


def named(what: str, costs: Mapping[str, Cost], flops: int, chip: Chip | None, devices: int) -> dict[str, Any]:
    """The flat results."""
    out: dict[str, Any] = {f"{what}/flops": flops}
    for side, cost in costs.items():
        out |= {f"{what}/{side}/{key}": value for key, value in cost._asdict().items()}
        if chip:
            out[f"{what}/{side}/mfu"] = flops / cost.seconds / devices / chip.flops
    out[f"{what}/speed_over_pytorch"] = costs["PyTorch"].seconds / costs["vgen_jax"].seconds
    return out
