"""RIVER and RAFI as a World: a frame after the other by flow matching, with the user's actions or with RAFI's own.

What is carried are the states of the last ``horizon`` frames: latents, and of RAFI the actions taken at them. A new
state is the solution of the velocity's ODE from noise (or, ``solver.start`` below 1, from the last latent with noise),
given the newest state and, drawn anew at every evaluation and for every video, any earlier one. The published code
draws from all frames of a clip of at most 25; a window of ``horizon`` keeps a long video's state small.

RAFI's states hold the action that the model would take at their frame. A command replaces that of the newest state
before the next one is made; without a command it stays. Latents are never decoded and encoded again.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vgen_jax.config import section
from vgen_jax.data.schema import DatasetInfo
from vgen_jax.diffusion.samplers import normal_like
from vgen_jax.diffusion.solvers import Solver, noised, solve
from vgen_jax.files.exports import check_matches, load_export
from vgen_jax.models.uvit import UViT, UViTConfig
from vgen_jax.objectives.flow_matching import parts, states
from vgen_jax.types import Array, Autoencoder, Command, Key, Params, Step, VgenError
from vgen_jax.worlds.actions import ActionCodec, CommandedWorld
from vgen_jax.worlds.autoencoder import load_autoencoder, required
from vgen_jax.worlds.chunks import NOISE_STREAM, fitting_frames, identities, video_keys
from vgen_jax.worlds.leap import dataset_of

RAFI = "rafi"  # in an export's config.json: the definition of such a model


@dataclasses.dataclass(frozen=True)
class RafiConfig:
    """The definition of a model.

    Attributes:
        uvit: the network's shape.
        horizon: states that a rollout carries, 2 or more.
        sigma: the width of the noise that is left at the data.
        actions: the action space on the states' further channels: ``continuous`` (RAFI) or ``none`` (RIVER).
        action_dim: A; 0 without actions.
        latent: (height, width, channels) of a latent.
    """

    uvit: UViTConfig
    horizon: int
    sigma: float
    actions: str
    action_dim: int
    latent: tuple[int, int, int]

    def __post_init__(self) -> None:
        if self.horizon < 2:
            raise VgenError(f"rafi.horizon is {self.horizon}: use 2 or more, the newest state and an earlier one")
        if self.actions not in ("continuous", "none") or (self.actions == "none") != (self.action_dim == 0):
            raise VgenError(f"rafi.actions is '{self.actions}': use continuous (RAFI) or none (RIVER)")

    @property
    def channels(self) -> int:
        """Of a state."""
        return self.latent[2] + self.action_dim

    def init(self, rng: Key) -> Params:
        """Fresh parameters."""
        state = jnp.zeros((1, *self.latent[:2], self.channels))
        one = jnp.ones(1)
        return UViT(self.uvit, self.channels).init(rng, state, one, state, state, 2.0 * one, False)["params"]

    def regress(
        self, params: Params, x_BHWC: Array, s_B: Array, reference_BHWC: Array, context_BHWC: Array, distance_B: Array,
        rng: Key | None = None,
    ) -> Array:  # fmt: skip
        """See ``objectives.flow_matching.Regress``."""
        rngs = None if rng is None else {"dropout": rng}
        network, inputs = UViT(self.uvit, self.channels), (x_BHWC, s_B, reference_BHWC, context_BHWC, distance_B)
        found: Any = network.apply({"params": params}, *inputs, rng is not None, rngs=rngs)
        return found


class RafiModel(NamedTuple):
    """A trained model, its frozen autoencoder, and what its training data said; ``past`` frames open a video."""

    config: RafiConfig
    params: Params
    autoencoder: Autoencoder
    data: DatasetInfo
    past: int


@flax.struct.dataclass
class RafiState:
    """Where videos stand.

    Attributes:
        frames: generated so far.
        history_BTHWC: the states of the last ``horizon`` frames, the newest one last.
        known: how many of them there are; those before are empty.
        key, id_B: what all that is random depends on, besides the number of the frame.
    """

    frames: int
    history_BTHWC: Array
    known: int
    key: Key
    id_B: np.ndarray


def load_rafi_model(folder: Path) -> RafiModel:
    """A model from the ``export`` folder of its training.

    Raises:
        VgenError: if a file is missing or does not fit.
    """
    params, raw = load_export(folder)
    config = section(RafiConfig, required(raw, RAFI, folder), RAFI)
    check_matches(params, jax.eval_shape(config.init, jax.random.key(0)), folder)
    autoencoder = load_autoencoder(folder / "autoencoder")
    return RafiModel(config, jax.device_put(params), autoencoder, dataset_of(folder), raw["past"])


@dataclasses.dataclass(frozen=True)
class RafiWorld(CommandedWorld):
    """See the module's docstring; ``rafi_world`` builds it.

    Attributes:
        encode: uint8 frames -> latents, compiled.
        go: (history, how many are known, number of the first frame, key, ids, actions of the step or ``None``) ->
            (history, frames, actions that were done).
        codec: how it wants its actions.
        past: frames that open a video.
        horizon: states that are carried.
        size: (height, width) of a frame.
        compilations: how often ``encode`` and ``go`` have been compiled.
    """

    encode: Callable[[Array], Array]
    go: Callable[..., Any]
    codec: ActionCodec
    past: int
    horizon: int
    size: tuple[int, int]
    compilations: Callable[[], tuple[int, int]]

    def start(
        self,
        frames: np.ndarray,
        actions: np.ndarray | None = None,
        key: Key | None = None,
        id_B: np.ndarray | None = None,
    ) -> RafiState:
        """See ``World``. A single frame is held still for ``past`` frames; of more than ``past`` the last count.

        Where the action at the last frame is not given, and no command replaces it, it is zero: standing still.

        Args:
            actions: see ``World``; or one more, (B, T, A): what is done at the last frame, if it is known already.

        Raises:
            VgenError: for frames of another size, or too few of them.
        """
        given = 1 if np.ndim(frames) == 3 else np.shape(frames)[1]
        frames_BTHWC = fitting_frames(np.asarray(frames), self.size, self.past)
        latents = self.encode(frames_BTHWC)
        if latents.shape[1] < self.past:
            latents = jnp.asarray(latents).repeat(self.past, axis=1)
        b = len(latents)
        taken_BTA, _ = self.codec.taken_actions(b, self.past, given, actions)
        history = states(jnp.asarray(latents), taken_BTA if taken_BTA.shape[-1] else None)[:, -self.horizon :]
        missing = self.horizon - history.shape[1]
        padded = jnp.pad(history, ((0, 0), (missing, 0), (0, 0), (0, 0), (0, 0)))
        key, id_B = identities(b, key, id_B)
        return RafiState(0, padded, history.shape[1], key, id_B)

    def step(self, state: RafiState, command: Command | None = None) -> tuple[RafiState, Step]:
        """See ``World``. Without a command RAFI does what it expects; RIVER knows no actions."""
        text, given = "", None
        if command is not None:
            action = self.codec.chunk(command)
            text, given = action.text, action.action_TA
        history, frames, action_BTA = self.go(
            state.history_BTHWC, state.known, state.frames, state.key, state.id_B, given
        )  # fmt: skip
        shown = None if self.codec.space == "none" else self.codec.raw(action_BTA)
        known = min(self.horizon, state.known + self.future)
        after = RafiState(state.frames + self.future, history, known, state.key, state.id_B)
        return after, Step(frames, shown, text)


def rafi_world(model: RafiModel, solver: Solver, past: int = 0, future: int = 0) -> RafiWorld:
    """A model that can be stepped.

    Args:
        past: frames that open a video, 2 or more; 0 for those of the training's windows.
        future: frames of a step; 0 for the data's commands.

    Raises:
        VgenError: for fewer than two frames to begin with: the newest and an earlier one.
    """
    past, future = past or model.past, future or model.data.chunk
    if past < 2:
        raise VgenError(f"this world opens with {past} frame: give it 2 or more, the newest and an earlier one")
    encode: Any = jax.jit(lambda encode, frames: encode(frames))
    go: Any = jax.jit(partial(flowed, model.config, solver))
    frozen = model.autoencoder

    def step(history: Array, known: int, number: int, key: Key, id_B: np.ndarray, given: np.ndarray | None) -> Any:
        shape = (len(id_B), future, model.config.action_dim)
        commanded = np.zeros(shape, np.float32) if given is None else np.broadcast_to(given, shape)
        return go(
            model.params, frozen.decode, history, jnp.asarray(known), jnp.asarray(number), key, jnp.asarray(id_B),
            commanded, given is not None,
        )  # fmt: skip

    codec = ActionCodec(model.data, model.config.actions, 0, future)
    size = (model.config.latent[0] * frozen.factor, model.config.latent[1] * frozen.factor)
    return RafiWorld(
        lambda frames: encode(frozen.encode, frames), step, codec, past, model.config.horizon, size,
        lambda: (encode._cache_size(), go._cache_size()),
    )  # fmt: skip


def flowed(
    config: RafiConfig, solver: Solver, params: Params, decode: Partial, history_BTHWC: Array, known: Array,
    number: Array, key: Key, id_B: Array, commanded_BTA: Array, given: bool | Array,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Some frames further: the history, the frames (uint8), and the actions that were done (B, T, A), model units.

    Args:
        known: how many states of the history there are.
        number: of the first new frame.
        commanded_BTA: model units; they count where ``given``.
    """

    def step(carry: tuple[Array, Array], inputs: tuple[Array, Array]) -> tuple[tuple[Array, Array], Any]:
        (history, known), (offset, command_BA) = carry, inputs
        latent, own_BA = parts(history[:, -1], config.action_dim)
        action_BA = jnp.where(given, command_BA, own_BA)
        newest = states(latent[:, None], action_BA[:, None])[:, 0] if config.action_dim else latent
        history = jnp.concatenate([history[:, :-1], newest[:, None]], axis=1)
        new = next_state(
            config, solver, params, history, known, video_keys(key, NOISE_STREAM, number + offset, id_B)
        )  # fmt: skip
        history = jnp.concatenate([history[:, 1:], new[:, None]], axis=1)
        known = jnp.minimum(known + 1, config.horizon)
        return (history, known), (parts(new, config.action_dim)[0], action_BA)

    inputs = jnp.arange(commanded_BTA.shape[1]), jnp.swapaxes(commanded_BTA, 0, 1)
    (history, _), (latents, actions) = jax.lax.scan(step, (history_BTHWC, known), inputs)
    return history, decode(jnp.swapaxes(latents, 0, 1)), jnp.swapaxes(actions, 0, 1)


def next_state(
    config: RafiConfig, solver: Solver, params: Params, history_BTHWC: Array, known: Array, key_B: Key
) -> Array:
    """The state after the newest of the history, (B, h, w, C); one key per video."""
    b, horizon = history_BTHWC.shape[:2]
    reference = history_BTHWC[:, -1]
    split_B = jax.vmap(jax.random.split)(key_B)
    eps = normal_like(split_B[:, 0], reference.shape)
    if solver.start < 1.0:
        guess = jnp.full((b,), solver.start)
        x = noised(reference, eps, guess, config.sigma)
    else:
        x = eps

    def field(x: Array, s_B: Array, evaluation: Array) -> Array:
        keys = jax.vmap(jax.random.fold_in, (0, None))(split_B[:, 1], evaluation)
        # 1 is the state before the newest, known - 1 the oldest.
        back_B = 1 + jnp.floor(jax.vmap(jax.random.uniform)(keys) * (known - 1)).astype(jnp.int32)
        context = history_BTHWC[jnp.arange(b), horizon - 1 - back_B]
        return config.regress(params, x, s_B, reference, context, 1 + back_B)

    return solve(field, solver, x)
