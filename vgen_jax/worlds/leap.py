"""SVG-LP, VG-LeAP and Causal-LeAP as a World: a frame after the other, with the user's actions or with its own.

The context is watched: real frames and actions go through the networks. From its last frame on the model is given its
own frames. Each step also says which action comes next; a step without a command does what the step before has said, a
step with one does that instead. z and alpha come from the priors, of SVG-LP in the context from the posterior
(``objectives.variational``). Batch normalisation uses its running averages.
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

from vgen_jax.config import section
from vgen_jax.data.schema import DatasetInfo
from vgen_jax.diffusion.samplers import normal_like
from vgen_jax.files.exports import DATASET_FILE, check_matches, load_export
from vgen_jax.learning.state import divided
from vgen_jax.nn.pixels import from_unit, to_unit
from vgen_jax.objectives.variational import first_carry, model_action, model_step, noise_widths, unit_action
from vgen_jax.types import Array, Command, Key, Params, Step, VgenError
from vgen_jax.worlds.actions import ActionCodec, CommandedWorld
from vgen_jax.worlds.autoencoder import required
from vgen_jax.worlds.chunks import NOISE_STREAM, fitting_frames, identities, video_keys
from vgen_jax.worlds.leap_networks import LeapConfig, LeapNetworks

LEAP = "leap"  # in an export's config.json: the definition of such a model
WATCHED_STREAM = 3  # random numbers of the context; those of new frames are of NOISE_STREAM


class LeapModel(NamedTuple):
    """A trained model.

    Attributes:
        config: its definition.
        params, stats: its parameters, and the running averages of batch normalisation.
        data: what the training data said of actions, commands and frame rate.
        past: frames of the context it was trained with.
    """

    config: LeapConfig
    params: Params
    stats: Any
    data: DatasetInfo
    past: int


@flax.struct.dataclass
class LeapState:
    """Where videos stand.

    Attributes:
        frames: generated so far.
        carry: of the recurrent stacks.
        last_BHWC: the last frame, in [-1, 1].
        maps: the encoder's, that every new frame is decoded with.
        own_BA: the action that the model would take at the last frame, model units; of width 0 without actions.
        key, id_B: what all that is random depends on, besides the number of the frame.
    """

    frames: int
    carry: Any
    last_BHWC: Array
    maps: Any
    own_BA: Array
    key: Key
    id_B: np.ndarray


def load_leap_model(folder: Path) -> LeapModel:
    """A model from the ``export`` folder of its training.

    Raises:
        VgenError: if a file is missing or does not fit.
    """
    params, raw = load_export(folder)
    config = section(LeapConfig, required(raw, LEAP, folder), LEAP)
    check_matches(params, jax.eval_shape(LeapNetworks(config).init, jax.random.key(0)), folder)
    params, stats = divided(params)
    return LeapModel(config, jax.device_put(params), jax.device_put(stats), dataset_of(folder), raw["past"])


def dataset_of(folder: Path) -> DatasetInfo:
    """What an export says of the data that it was trained on.

    Raises:
        VgenError: if it does not.
    """
    path = folder / DATASET_FILE
    if not path.is_file():
        raise VgenError(f"{path} is missing: export the model again")
    return DatasetInfo.from_json(path.read_text(), str(path))


@dataclasses.dataclass(frozen=True)
class LeapWorld(CommandedWorld):
    """See the module's docstring; ``leap_world`` builds it.

    Attributes:
        watch: (context frames (B, T, H, W, 3) uint8, (B, T - 1, A) actions between them, keys) -> what a state holds.
        go: (what a state holds, number of the first frame, key, ids, actions of the step or ``None`` for its own).
        codec: how it wants its actions.
        past: frames of the context.
        size: (height, width) of a frame.
        compilations: how often ``watch`` and ``go`` have been compiled.
    """

    watch: Callable[..., Any]
    go: Callable[..., Any]
    codec: ActionCodec
    past: int
    size: tuple[int, int]
    compilations: Callable[[], tuple[int, int]]

    def start(
        self,
        frames: np.ndarray,
        actions: np.ndarray | None = None,
        key: Key | None = None,
        id_B: np.ndarray | None = None,
    ) -> LeapState:
        """See ``World``. A single frame is held still for ``past`` frames; of more than ``past`` the last count.

        Args:
            actions: see ``World``; or one more, (B, T, A): what is done at the last frame, if it is known already.

        Raises:
            VgenError: for frames of another size, or too few of them.
        """
        given = 1 if np.ndim(frames) == 3 else np.shape(frames)[1]
        frames_BTHWC = fitting_frames(np.asarray(frames), self.size, self.past)
        if frames_BTHWC.shape[1] < self.past:
            frames_BTHWC = frames_BTHWC.repeat(self.past, axis=1)
        b = len(frames_BTHWC)
        key, id_B = identities(b, key, id_B)
        taken_BTA, known = self.codec.taken_actions(b, self.past, given, actions)
        held: Any = self.watch(frames_BTHWC, taken_BTA[:, :-1], video_keys(key, WATCHED_STREAM, 0, id_B))
        if known:
            held = (*held[:3], jnp.asarray(taken_BTA[:, -1]))
        return _state(0, held, key, id_B)

    def step(self, state: LeapState, command: Command | None = None) -> tuple[LeapState, Step]:
        """See ``World``. Without a command the model does what it expects."""
        text, given = "", None
        if command is not None:
            action = self.codec.chunk(command)
            text, given = action.text, action.action_TA
        held = (state.carry, state.last_BHWC, state.maps, state.own_BA)
        held, frames, action_BTA = self.go(held, state.frames, state.key, state.id_B, given)
        shown = None if self.codec.space == "none" else self.codec.raw(action_BTA)
        return _state(state.frames + self.future, held, state.key, state.id_B), Step(frames, shown, text)


def _state(frames: int, held: tuple[Any, Array, Any, Array], key: Key, id_B: np.ndarray) -> LeapState:
    carry, last_BHWC, maps, own_BA = held
    return LeapState(frames, carry, last_BHWC, maps, own_BA, key, id_B)


def leap_world(model: LeapModel, past: int = 0, future: int = 0) -> LeapWorld:
    """A model that can be stepped.

    Args:
        past: frames of the context; 0 for those that it was trained with.
        future: frames of a step; 0 for the data's commands.
    """
    past, future = past or model.past, future or model.data.chunk
    watch: Any = jax.jit(partial(watched, model.config))
    go: Any = jax.jit(partial(gone, model.config), static_argnames=("future",))
    codec = ActionCodec(model.data, model.config.actions, 0, future)

    def step(held: Any, number: int, key: Key, id_B: np.ndarray, given: np.ndarray | None) -> Any:
        shape = (len(id_B), future, model.config.action_dim)
        commanded = np.zeros(shape, np.float32) if given is None else np.broadcast_to(given, shape)
        return go(
            model.params, model.stats, held, jnp.asarray(number), key, jnp.asarray(id_B), commanded, given is not None,
            future=future,
        )  # fmt: skip

    size = model.config.networks.size
    return LeapWorld(
        lambda *inputs: watch(model.params, model.stats, *inputs), step, codec, past, (size, size),
        lambda: (watch._cache_size(), go._cache_size()),
    )  # fmt: skip


def noise_of(config: LeapConfig, key_B: Key) -> dict[str, Array]:
    """A step's standard normal numbers, a key per video."""
    widths = noise_widths(LeapNetworks(config).functions, config.sees)
    keys = {name: jax.vmap(jax.random.fold_in, (0, None))(key_B, n) for n, name in enumerate(widths)}
    return {name: normal_like(keys[name], (len(key_B), width)) for name, width in widths.items()}


def watched(
    config: LeapConfig, params: Params, stats: Any, frames_BTHWC: Array, taken_BTA: Array, key_B: Key
) -> tuple[Any, Array, Any, Array]:
    """What a state holds after real frames: the stacks' states, the last frame, maps, and the model's own action.

    Args:
        taken_BTA: the actions between the frames, model units, (B, T - 1, A).
    """
    networks, sees = LeapNetworks(config).functions, config.sees
    x = to_unit(frames_BTHWC)
    b, frames = x.shape[:2]
    h_FD, maps, _ = networks.encode(params, stats, x.reshape(b * frames, *x.shape[2:]), False)
    skip = max(0, frames - networks.skip_back)
    maps = jax.tree.map(lambda m: m.reshape(b, frames, *m.shape[1:])[:, skip], maps)
    codes = {"h": h_FD.reshape(b, frames, -1)}
    if config.action_dim:
        # The action at the last frame is not known, and no step here looks at it.
        padded = jnp.concatenate([taken_BTA, jnp.zeros((b, 1, config.action_dim))], axis=1)
        codes["e"] = networks.encode_action(params, unit_action(padded))
    first = {name: jnp.swapaxes(code, 0, 1) for name, code in codes.items()}
    seen = {name: code[:-1] for name, code in first.items()} | {f"next_{n}": code[1:] for n, code in first.items()}

    def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
        seen, number = inputs
        keys = jax.vmap(jax.random.fold_in, (0, None))(key_B, number)
        carry, out = model_step(
            networks, sees, params, carry, seen, noise_of(config, keys), informed=sees.posterior_in_context
        )  # fmt: skip
        return carry, out.action

    carry, actions = jax.lax.scan(step, first_carry(networks, sees, b), (seen, jnp.arange(frames - 1)))
    own_BA: Array = jnp.zeros((b, config.action_dim))
    if config.action_dim and frames > 1:
        own_BA = model_action(networks.decode_action(params, actions[-1]))
    return carry, x[:, -1], maps, own_BA


def gone(
    config: LeapConfig, params: Params, stats: Any, held: Any, number: Array, key: Key, id_B: Array,
    commanded_BTA: Array, given: bool | Array, future: int,
) -> tuple[Any, Array, Array]:  # fmt: skip
    """``future`` frames further: what a state holds, the frames (uint8), and the actions that were done (B, T, A).

    Args:
        number: of the first new frame.
        commanded_BTA: model units; they count where ``given``.
    """
    networks, sees = LeapNetworks(config).functions, config.sees
    maps = held[2]

    def step(carry: Any, inputs: tuple[Array, Array]) -> tuple[Any, tuple[Array, Array]]:
        (stacks, last, own_BA), (offset, command_BA) = carry, inputs
        action_BA = jnp.where(given, command_BA, own_BA)
        h, _, _ = networks.encode(params, stats, last, False)
        seen = {"h": h, "e": networks.encode_action(params, unit_action(action_BA))} if config.action_dim else {"h": h}
        noise = noise_of(config, video_keys(key, NOISE_STREAM, number + offset, id_B))
        stacks, out = model_step(networks, sees, params, stacks, seen, noise, informed=False)
        frame, _ = networks.decode(params, stats, out.frame, maps, False)
        if out.action is not None:
            own_BA = model_action(networks.decode_action(params, out.action))
        return (stacks, frame, own_BA), (frame, action_BA)

    inputs = jnp.arange(future), jnp.swapaxes(commanded_BTA, 0, 1)
    (stacks, last, own_BA), (frames, actions) = jax.lax.scan(step, (held[0], held[1], held[3]), inputs)
    return (stacks, last, maps, own_BA), from_unit(jnp.swapaxes(frames, 0, 1)), jnp.swapaxes(actions, 0, 1)
