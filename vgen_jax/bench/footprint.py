"""How much memory a slow model and its autoencoder take, by the compiler's own analysis.

Every row is compiled from shapes alone: no weights are needed, none are allocated, and nothing is run. The bytes are
those of one device: the program's arguments (parameters, the optimiser's state, the batch), what it returns beyond
those that it may overwrite, and its largest set of temporaries. What the runtime holds besides is not in them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial

from vgen_jax.learning.slow import TrainConfig, make_update
from vgen_jax.learning.state import OptimizerConfig, init_state, make_optimizer
from vgen_jax.nn.dtypes import dtype_of
from vgen_jax.objectives.masked_diffusion import DiffusionLoss, masked_diffusion
from vgen_jax.types import Array, Condition, Params, VgenError, VideoBatch
from vgen_jax.worlds.autoencoder import AutoencoderConfig, autoencoder_network
from vgen_jax.worlds.slow_networks import SlowConfig, denoiser

TEXT_TOKENS = 77  # of a text's embedding
# The CPU's compiler spends most of its time on machine code, long after memory has been assigned.
QUICK_CPU: dict[str, Any] = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
ROW_FIELDS = ("what", "batch", "frames", "height", "width", "dtype", "remat")

Shapes = Any  # a pytree of ShapeDtypeStructs


@dataclasses.dataclass(frozen=True)
class FootprintRow:
    """One program.

    Attributes:
        what: ``forward`` (one evaluation of the UNet, its parameters in ``dtype``), ``train`` (one update: float32
            parameters, their moving average, Adam's two moments, donated), ``encode`` or ``decode`` (the autoencoder,
            float32 parameters, computing in ``dtype``).
        batch, frames: of the window; for the autoencoder the slice that is coded at once.
        height, width: of the frames, in pixels.
        dtype: of the computation.
        remat: see ``models.unet_latent``; means something to ``train`` alone.
    """

    what: Literal["forward", "train", "encode", "decode"]
    batch: int
    frames: int
    height: int
    width: int
    dtype: str
    remat: str

    def __post_init__(self) -> None:
        if self.what not in PROGRAMS:
            raise VgenError(f"footprint.rows has '{self.what}': use one of {', '.join(PROGRAMS)}")


@dataclasses.dataclass(frozen=True)
class FootprintConfig:
    """What is compiled.

    Attributes:
        rows: the programs, (what, batch, frames, height, width, dtype, remat) each.
        topology: the TPU slice to compile for, such as ``v5p:2x2x1`` (needs the package libtpu, no TPU); every device
            then has a row's batch, and the parameters whole. Empty for this machine's first device.
    """

    rows: tuple[tuple[str, int, int, int, int, str, str], ...]
    topology: str


def table_line(row: FootprintRow, found: Mapping[str, int]) -> str:
    """A row of the Markdown table."""
    cells = [f"{n / 2**30:.2f}" for n in (found["argument_bytes"], found["temporary_bytes"], found["bytes"])]
    return f"| {' | '.join([*map(str, dataclasses.astuple(row)), *cells])} |"


def compile_mesh(topology: str) -> Mesh:
    """A mesh of one axis over the devices to compile for.

    Raises:
        VgenError: if there is no such topology, or no compiler for it here.
    """
    if not topology:
        return Mesh(jax.local_devices()[:1], ("data",))
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except Exception as error:  # the plugin's loader and the plugin raise what they please
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise VgenError(
            f"config key footprint.topology is '{topology}', which cannot be compiled for ({line:.120}): name one such "
            "as v5p:2x2x1 and install the package libtpu"
        ) from error
    return Mesh(found.devices, ("data",))


def footprint(row: FootprintRow, slow: SlowConfig, autoencoder: AutoencoderConfig, mesh: Mesh) -> dict[str, int]:
    """Bytes per device: of the arguments, of the temporaries, and in all (what is returned included)."""
    whole, split = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec("data")))
    place = lambda shapes, sharding: jax.tree.map(  # noqa: E731
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes
    )
    whole_batch = dataclasses.replace(row, batch=row.batch * mesh.size)
    function, state, batch, donated = PROGRAMS[row.what](whole_batch, slow, autoencoder)
    jitted = jax.jit(
        function, donate_argnums=(0,) if donated else (), out_shardings=(whole, whole) if donated else split
    )
    options = QUICK_CPU if mesh.devices.flat[0].platform == "cpu" else None
    try:
        compiled = jitted.lower(place(state, whole), place(batch, split)).compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        raise VgenError(f"{row} cannot be compiled ({str(error).splitlines()[0]:.300}): use a smaller one") from error
    found = compiled.memory_analysis()
    if found is None:
        raise VgenError("this JAX backend analyses no memory: use a CPU, a GPU or a TPU")
    new = found.output_size_in_bytes - found.alias_size_in_bytes
    total = found.argument_size_in_bytes + new + found.temp_size_in_bytes
    return {
        "argument_bytes": found.argument_size_in_bytes, "temporary_bytes": found.temp_size_in_bytes, "bytes": total,
    }  # fmt: skip


# (function of (parameters or state, batch), shapes of both, whether the first is donated and given back first)
Program = tuple[Callable[..., Any], Shapes, Shapes, bool]


def _sized(row: FootprintRow, slow: SlowConfig) -> SlowConfig:
    return dataclasses.replace(slow, unet=dataclasses.replace(slow.unet, dtype=row.dtype, remat=row.remat))


def _latents(row: FootprintRow, slow: SlowConfig, autoencoder: AutoencoderConfig) -> jax.ShapeDtypeStruct:
    factor = autoencoder_network(autoencoder).factor
    shape = (row.batch, row.frames, row.height // factor, row.width // factor, slow.latent_channels)
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _text(row: FootprintRow, slow: SlowConfig) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((row.batch, TEXT_TOKENS, slow.text.width), dtype_of(row.dtype))


def _forward(row: FootprintRow, slow: SlowConfig, autoencoder: AutoencoderConfig) -> Program:
    networks = denoiser(_sized(row, slow))
    params = jax.eval_shape(networks.init, jax.random.key(0))
    cast = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, dtype_of(row.dtype)), params)

    def forward(params: Params, batch: tuple[Array, Array, Array]) -> Array:
        x, t, text = batch
        return networks.predict(params, x, t, Condition(text)).value

    t = jax.ShapeDtypeStruct((row.batch,), jnp.int32)
    return forward, cast, (_latents(row, slow, autoencoder), t, _text(row, slow)), False


def _train(row: FootprintRow, slow: SlowConfig, autoencoder: AutoencoderConfig) -> Program:
    networks, optimizer = denoiser(_sized(row, slow)), make_optimizer(OptimizerConfig())
    state = jax.eval_shape(lambda: init_state(networks.init, optimizer, jax.random.key(0)))

    def update(state: Any, batch: tuple[VideoBatch, Array]) -> Any:
        objective = masked_diffusion(
            lambda params, _: Condition(batch[1]), networks.predict, Partial(lambda latents: latents),
            slow.schedule, slow.masking, DiffusionLoss(slow.kind),
        )  # fmt: skip
        return make_update(optimizer, TrainConfig())(state, objective, batch[0])

    x = _latents(row, slow, autoencoder)
    past_BT = jax.ShapeDtypeStruct(x.shape[:2], jnp.bool_)
    batch = jax.eval_shape(VideoBatch, x, past_BT)
    return update, state, (batch, _text(row, slow)), True


def _coder(method: str) -> Callable[[FootprintRow, SlowConfig, AutoencoderConfig], Program]:
    def program(row: FootprintRow, slow: SlowConfig, autoencoder: AutoencoderConfig) -> Program:
        network = autoencoder_network(dataclasses.replace(autoencoder, dtype=row.dtype))
        frames = jax.ShapeDtypeStruct((row.batch, row.frames, row.height, row.width, 3), jnp.float32)
        one = jax.ShapeDtypeStruct((1, network.factor, network.factor, 3), jnp.float32)
        params = jax.eval_shape(network.init, jax.random.key(0), one)
        x = frames if method == "encode" else _latents(row, slow, autoencoder)
        return lambda params, x: network.apply(params, x, method=method), params, x, False

    return program


PROGRAMS: dict[str, Callable[[FootprintRow, SlowConfig, AutoencoderConfig], Program]] = {
    "forward": _forward,
    "train": _train,
    "encode": _coder("encode"),
    "decode": _coder("decode"),
}
