"""The training loop. There is one: autoencoders, diffusion models, adapters and action networks all run through it.

Order of a start: mesh, sharded init, restore (state and data position), loop. In the loop step n is dispatched before
the metrics of step n-1 are fetched, so the device never waits for the host. Randomness is a function of (seed, step)
alone, so that a restarted run is bit-identical to an uninterrupted one; the number of devices changes nothing beyond
rounding.

What is learnt by gradients are ``params``. Model state goes beside them, through a StatefulObjective; a part of the
parameters may have an optimiser of its own (``state.SecondOptimizer``). An adversarial objective is the sum of both
losses, each with a gradient into its own part alone.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from vgen_jax.config import later
from vgen_jax.devices import sharding as sh
from vgen_jax.devices.chips import chip_of
from vgen_jax.devices.flops import jaxpr_flops
from vgen_jax.devices.preemption import Preempted, StopSignal
from vgen_jax.devices.profiler import Profiler
from vgen_jax.files.log import MetricWriter
from vgen_jax.files.run_folder import CHECKPOINTS
from vgen_jax.learning.checkpoint import Checkpoints
from vgen_jax.learning.gallery import Gallery, Look
from vgen_jax.learning.state import OptimizerConfig, TrainState, divided, ema_update, init_state, joined, make_optimizer
from vgen_jax.types import Array, Key, Objective, Params, StatefulObjective, VgenError

AnyObjective = Objective | StatefulObjective
# (step, metrics and timings)
Report = Callable[[int, Mapping[str, float]], None]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The loop.

    Attributes:
        steps: updates in all.
        seed: of the parameters and of the noise; the data have their own.
        log_every, checkpoint_every: in steps.
        keep: checkpoints kept.
        accumulate: micro-batches whose gradients are averaged into one update; divides the batch size.
        ema_decay: of the moving average of the parameters.
        profile_start, profile_steps: a profiler trace of that many steps; 0 steps for none.
        sample_minutes: between two looks at what the model makes by then (``samples/``, TensorBoard); 0 for none.
    """

    steps: int = 1000
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 500
    keep: int = 2
    accumulate: int = 1
    ema_decay: float = 0.999
    profile_start: int = 10
    profile_steps: int = 0
    sample_minutes: float = later(0.0)

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "checkpoint_every", "keep", "accumulate"):
            if getattr(self, name) < 1:
                raise VgenError(f"train.{name} is {getattr(self, name)}: use 1 or more")
        if not 0.0 <= self.ema_decay < 1.0:
            raise VgenError(f"train.ema_decay is {self.ema_decay}: use a value in [0, 1)")


class DataIterator(Protocol):
    """This process's rows of the global batches, and a position that is the same on every process."""

    def __next__(self) -> Any: ...

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
        init: parameters from a key; runs under jit with sharded outputs. What training changes without a gradient (the
            averages of batch normalisation, a codebook) it gives beside them, under ``state.MODEL_STATE``.
        objective: the loss, a StatefulObjective where there is model state; its frozen arrays are leaves of the pytree
            (``Partial``).
        data: gives batches as pytrees of NumPy arrays.
        start: changes what ``init`` gave (as NumPy arrays) before the first step: what is known of the data, or weights
            from elsewhere. The same on every process; not called when a checkpoint is restored.
        sample: (parameters, key) -> a video of what they make, uint8 (T, H, W, 3), to be watched; ``None`` for none.
    """

    init: Callable[[Key], Params]
    objective: AnyObjective
    data: DataIterator
    start: Callable[[Params], Params] | None = None
    sample: Look | None = None


def step_key(seed: int, step: Array | int) -> Key:
    """The key of the update after ``step`` of them."""
    return jax.random.fold_in(jax.random.key(seed + 1), step)


def make_update(optimizer: optax.GradientTransformation, config: TrainConfig) -> Callable:
    """One update, ``(state, objective, batch) -> (state, metrics)``; pure, to be jitted with a donated state."""

    def update(state: TrainState, objective: AnyObjective, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        rng = step_key(config.seed, state.step)
        gradient = _gradient if config.accumulate == 1 else functools.partial(_accumulated, config.accumulate)
        (metrics, grads), model_state = gradient(state.params, state.model_state, objective, batch, rng)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics["grad_norm"] = optax.tree.norm(grads)
        ema = ema_update(state.ema, params, config.ema_decay, state.step)
        return TrainState(state.step + 1, params, ema, opt_state, model_state), metrics

    return update


def _gradient(params: Params, model_state: Any, objective: Any, batch: Any, rng: Key) -> tuple[tuple[Any, Params], Any]:
    """((metrics, gradients), model state after the batch); the objective is stateful where there is model state."""

    def loss_of(params: Params) -> tuple[Array, tuple[dict[str, Array], Any]]:
        if not jax.tree.leaves(model_state):
            loss, aux = objective(params, batch, rng)
            return loss, (aux, model_state)
        loss, aux, after = objective(params, model_state, batch, rng)
        return loss, (aux, after)

    (loss, (aux, after)), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    return ({"loss": loss, **aux}, grads), after


def _accumulated(
    parts: int, params: Params, model_state: Any, objective: Any, batch: Any, rng: Key
) -> tuple[tuple[Any, Params], Any]:
    """``_gradient`` as the mean over ``parts`` micro-batches, in a scan; each takes every ``parts``-th sample.

    Model state goes from one micro-batch to the next: batch normalisation sees each as a batch of its own.
    """
    size = jax.tree.leaves(batch)[0].shape[0]
    if size % parts:
        raise VgenError(f"train.accumulate {parts} does not divide the batch of {size}: change data.batch_size")
    split = jax.tree.map(lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch)
    first = jax.tree.map(lambda x: x[0], split)
    shapes, _ = jax.eval_shape(_gradient, params, model_state, objective, first, rng)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def body(carry: Any, part: tuple[Array, Any]) -> tuple[Any, None]:
        (total, before), (number, micro) = carry, part
        out, after = _gradient(params, before, objective, micro, jax.random.fold_in(rng, number))
        return (jax.tree.map(jnp.add, total, out), after), None

    (total, after), _ = jax.lax.scan(body, (zeros, model_state), (jnp.arange(parts), split))
    return jax.tree.map(lambda x: x / parts, total), after


class CompiledUpdate:
    """The jitted update, compiled ahead of time once per batch shape, with a count of its FLOPs."""

    def __init__(self, update: Callable, state_shardings: Any, mesh: Mesh):
        out = (state_shardings, sh.replicated(mesh))
        self._jitted = jax.jit(update, donate_argnums=0, out_shardings=out)
        self._devices = mesh.size
        self._compiled: dict[Any, Any] = {}
        self._flops: dict[Any, float] = {}
        self.flops_per_device = 0.0

    def trace(self, state: TrainState, objective: AnyObjective, batch: Any) -> Any:
        """What is compiled, as ``jax.jit(...).trace`` gives it; takes ShapeDtypeStructs as well."""
        return self._jitted.trace(state, objective, batch)

    def __call__(self, state: TrainState, objective: AnyObjective, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        key = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        if key not in self._compiled:
            traced = self.trace(state, objective, batch)
            self._compiled[key] = traced.lower().compile()
            self._flops[key] = jaxpr_flops(traced.jaxpr) / self._devices
        self.flops_per_device = self._flops[key]
        return self._compiled[key](state, objective, batch)


def abstract_state(
    task: Task, optimizer: optax.GradientTransformation, mesh: Mesh, mesh_config: sh.MeshConfig, seed: int
) -> tuple[Callable[[Key], TrainState], TrainState, TrainState]:
    """The jitted initialiser, the state as shapes with shardings, and its shardings alone."""
    init = lambda rng: init_state(task.init, optimizer, rng)  # noqa: E731
    shapes = jax.eval_shape(init, jax.random.key(seed))
    shardings = sh.tree_shardings(mesh, shapes, mesh_config)
    abstract = jax.tree.map(
        lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes, shardings
    )
    return jax.jit(init, out_shardings=shardings), abstract, shardings


def started(state: TrainState, start: Callable[[Params], Params], shardings: TrainState, mesh: Mesh) -> TrainState:
    """A fresh state whose parameters, with their moving average, and model state ``start`` has changed."""
    params, model_state = divided(start(sh.gathered(joined(state.params, state.model_state), mesh)))
    copies = lambda p, m: (jax.tree.map(jnp.copy, p), jax.tree.map(jnp.copy, p), jax.tree.map(jnp.copy, m))  # noqa: E731
    out = (shardings.params, shardings.ema, shardings.model_state)
    placed, ema, model_state = jax.jit(copies, out_shardings=out)(params, model_state)
    return dataclasses.replace(state, params=placed, ema=ema, model_state=model_state)


def first_state(
    task: Task,
    states: tuple[Callable[[Key], TrainState], TrainState, TrainState],
    mesh: Mesh,
    seed: int,
    checkpoints: Checkpoints,
) -> TrainState:
    """The newest checkpoint's state, ``task.data`` put to its position, or a fresh one; ``states``: see above."""
    init, abstract, shardings = states
    if checkpoints.latest_step() is not None:
        state, position = checkpoints.restore(abstract)
        task.data.set_state(position)
        return state
    state = init(jax.random.key(seed))
    return state if task.start is None else started(state, task.start, shardings, mesh)


def train(
    task: Task,
    config: TrainConfig,
    optimizer_config: OptimizerConfig,
    mesh_config: sh.MeshConfig,
    workdir: Path,
    report: Report = lambda step, metrics: None,
) -> TrainState:
    """Trains to ``config.steps``, from the newest checkpoint in ``workdir`` if there is one.

    Args:
        report: called at every logged step with the metrics and timings (a progress bar, say).

    Returns:
        The final state, saved in ``workdir/checkpoints``.

    Raises:
        VgenError: if a loss or a gradient is not finite (names the step and the last good checkpoint), or the data are
            damaged.
        Preempted: after SIGTERM, when the state has been saved.
    """
    mesh = sh.make_mesh(mesh_config)
    optimizer = make_optimizer(optimizer_config)
    states = abstract_state(task, optimizer, mesh, mesh_config, config.seed)
    checkpoints = Checkpoints(workdir / CHECKPOINTS, config.keep)
    state = first_state(task, states, mesh, config.seed, checkpoints)
    start = int(state.step)
    update = CompiledUpdate(make_update(optimizer, config), states[-1], mesh)
    objective = jax.device_put(task.objective, sh.replicated(mesh))
    writer, stop = MetricWriter(workdir, resume_step=start), StopSignal()
    recorder = MetricRecorder(config, writer, checkpoints, report, start)
    gallery = Gallery(task.sample, config.sample_minutes, mesh, workdir / "samples", writer)
    profiler = Profiler(config.profile_start, config.profile_steps, workdir / "profile")
    try:
        for step in range(start + 1, config.steps + 1):
            profiler.before(step)
            try:
                rows = next(task.data)
            except VgenError as fault:
                raise saved_before(fault, state, task.data, recorder, checkpoints) from fault
            batch = sh.global_batch(sh.batch_sharding(mesh), rows)
            state, metrics = update(state, objective, batch)
            recorder.dispatched(step, metrics, update.flops_per_device)
            if gallery.due(step == config.steps):
                recorder.settle()
                gallery.add(step, state)
            stopping = stop.reached(step)
            if step % config.checkpoint_every == 0 or step == config.steps or stopping:
                recorder.settle()
                checkpoints.save(state, task.data.get_state())
            if stopping:
                raise Preempted(step)
        recorder.settle()
    except Exception as error:
        if sh.lost_process(error):
            checkpoints.abandon()
        raise
    finally:
        profiler.close()
        stop.restore()
        checkpoints.close()
        writer.close()
    return state


def saved_before(
    fault: VgenError, state: TrainState, data: DataIterator, recorder: "MetricRecorder", checkpoints: Checkpoints
) -> VgenError:
    """A fault of the data, said when what was learnt until then is saved. (Among several processes it is one's own.)"""
    recorder.settle()
    step = int(state.step)
    if jax.process_count() > 1 or not step:
        return fault
    if step != checkpoints.latest_step():
        checkpoints.save(state, data.get_state())
    return VgenError(f"{fault} (the state after step {step} is saved)")


class MetricRecorder:
    """Fetches each step's metrics one step late, stops on a loss that is not finite, and logs."""

    def __init__(self, config: TrainConfig, writer: MetricWriter, checkpoints: Checkpoints, report: Report, start: int):
        self._config, self._writer, self._checkpoints, self._report = config, writer, checkpoints, report
        self._pending: tuple[int, Any, float] | None = None
        self._clock, self._clock_step, self._flops = time.perf_counter(), start, 0.0

    def dispatched(self, step: int, metrics: Any, flops: float) -> None:
        """Takes the metrics of the step just dispatched and settles those of the one before."""
        previous, self._pending = self._pending, (step, metrics, flops)
        if previous is not None:
            self._record(*previous)

    def settle(self) -> None:
        """Waits for the last dispatched step."""
        if self._pending is not None:
            self._record(*self._pending)
            self._pending = None

    def _record(self, step: int, device_metrics: Any, flops: float) -> None:
        metrics = {name: float(value) for name, value in jax.device_get(device_metrics).items()}
        self._flops += flops
        # A gradient that is not finite has spoilt the parameters already, though only the next loss would show it.
        bad = [name for name in ("loss", "grad_norm") if not np.isfinite(metrics[name])]
        if bad:
            last = self._checkpoints.latest_step()
            good = f"the last good checkpoint is {self._checkpoints.folder / str(last)}" if last else "none was saved"
            raise VgenError(
                f"the {bad[0]} is {metrics[bad[0]]} at step {step}; {good}: "
                "lower optimizer.learning_rate or check the data"
            )
        if step % self._config.log_every and step not in (1, self._config.steps):
            return
        self._checkpoints.check()
        now = time.perf_counter()
        seconds, steps = now - self._clock, step - self._clock_step
        rate = self._flops / seconds
        timing = {"steps_per_second": steps / seconds, "tflops_per_second_per_device": rate / 1e12}
        if (chip := chip_of(jax.devices()[0])) is not None:
            timing["fraction_of_peak"] = rate / chip.flops  # recomputation included, unlike in MFU
        self._clock, self._clock_step, self._flops = now, step, 0.0
        self._writer.scalars(step, metrics)
        self._writer.timings(step, timing)
        self._report(step, {**metrics, **timing})
