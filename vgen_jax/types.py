"""Axis legend, array aliases and the protocols that carry the library.

Axes, one letter each, suffixed to array names (``x_BTHWC``):

====  =====================================  ====  ===============================
B     batch                                  F     frames folded into the batch, B·T
T     frames                                 N     pixels folded, H·W
H, W  height, width                          K     attention heads
C     channels (always last)                 D     width of a token or a head
L     text tokens                            A     action dimensions
====  =====================================  ====  ===============================

Five seams (every method of the library is an instance of one of them):

* ``Predictor``: ``(x_t, t, condition) -> Prediction``. Guidance, adapters and black-box models are functions
  from Predictor to Predictor.
* ``Objective``: ``(params, batch, rng) -> (loss, aux)``. Everything that is trained is trained through one loop. It may
  carry model state (``StatefulObjective``).
* the LoRA collection: models do not know that adapters exist.
* ``Memory``: what a rollout carries from chunk to chunk.
* ``World``: a trained model, or a simulator, as its users meet it: something that is started and stepped.

Predictors and Objectives that hold frozen arrays are ``jax.tree_util.Partial`` objects: pytrees, so that the arrays
travel through ``jit`` as arguments and are never baked into a compiled program as constants.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

# Batches come from NumPy; under ``jit`` and from networks they are JAX's. Library functions take either.
Array = jax.Array | np.ndarray
Key = jax.Array
Params = Mapping[str, Any]
PredictionKind = Literal["eps", "x0", "v", "velocity"]


@flax.struct.dataclass
class Condition:
    """What a generated window of T frames is conditioned on. Every field may be absent (``None``).

    Attributes:
        text_BLD: text embeddings, one sequence per window.
        text_mask_BL: True where a text token is real; ``None`` attends to all of them.
        action_BTA: the action that led to each frame, in model units (divided by the action space's scale):
            entry t is the action taken at frame t-1.
        action_valid_BT: False where that action is unknown (the window's first frame) or dropped for guidance; the
            network then uses its learned null action.
        past_BTHWC: clean frames that come before those that are generated, for models that are given them apart from
            ``x_t`` (AVID's). Actions then belong to the generated frames alone. ``None`` where past frames are part of
            the window (``diffusion.masking``).
        motion_BTA: the sum of the actions from the last past frame to each frame (negative before it), model units, for
            models that move that frame (``models.warp``). Known wherever ``action_valid_BT`` says so of the action.
        reference_BTHWC: frames that such a model is to move instead, one for each frame of the window; ``motion_BTA``
            is then counted from these. ``None`` for the last past frame.
        token_BL: the text as ``VideoBatch.token_BL``, for models that embed it themselves (AVID's).
        motion_text_BTD: what a model that moves a frame has to go by where ``action_valid_BT`` says that the motion is
            unknown: one embedding of the whole text, then the frames since the reference (in eights).
    """

    text_BLD: Array | None = None
    text_mask_BL: Array | None = None
    action_BTA: Array | None = None
    action_valid_BT: Array | None = None
    past_BTHWC: Array | None = None
    motion_BTA: Array | None = None
    reference_BTHWC: Array | None = None
    token_BL: Array | None = None
    motion_text_BTD: Array | None = None


@flax.struct.dataclass
class VideoBatch:
    """One batch of windows as ``data.batches`` gives it.

    Attributes:
        video_BTHWC: uint8 frames in [0, 255], or float latents.
        past_BT: True for the f_p clean conditioning frames that open the window, False for the f_g frames to generate.
        token_BL: text token ids, 0 is padding; ``None`` for data without text.
        action_BTA: see ``Condition.action_BTA``; ``None`` for data without actions.
        action_valid_BT: see ``Condition.action_valid_BT``.
        sample_id_B: int32 number of the sample in the epoch-free global order.
        pose_BTP: ground truth x, y, z (map units) and heading (degrees), only where it was asked for.
    """

    video_BTHWC: Array
    past_BT: Array
    token_BL: Array | None = None
    action_BTA: Array | None = None
    action_valid_BT: Array | None = None
    sample_id_B: Array | None = None
    pose_BTP: Array | None = None


class Moved(NamedTuple):
    """What a model that moves a reference frame (``models.warp``) made of it.

    Attributes:
        frames_BTHWC: the reference as each frame would see it.
        inside_BTHW1: the share of each pixel that the reference shows, in [0, 1].
    """

    frames_BTHWC: Array
    inside_BTHW1: Array


@flax.struct.dataclass
class Prediction:
    """A network's output and what it means.

    Attributes:
        value: the shape of ``x_t``.
        kind: ``eps``, ``x0``, ``v`` or ``velocity`` (see ``diffusion.prediction``).
        moved: of a model that moves a reference, for losses on the movement itself; else ``None``.
    """

    value: Array
    kind: PredictionKind = flax.struct.field(pytree_node=False, default="eps")
    moved: Moved | None = None


@runtime_checkable
class Predictor(Protocol):
    """A denoiser. ``x_t_BTHWC`` is noisy, ``t_B`` an int32 diffusion step in [0, steps)."""

    def __call__(self, x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction: ...


@runtime_checkable
class Objective(Protocol):
    """A training loss: the mean over the batch, fp32, and scalars worth logging."""

    def __call__(self, params: Params, batch: Any, rng: Key) -> tuple[Array, dict[str, Array]]: ...


@runtime_checkable
class StatefulObjective(Protocol):
    """An Objective of a network that carries what no gradient changes; also gives that, as it is after the batch."""

    def __call__(
        self, params: Params, model_state: Any, batch: Any, rng: Key
    ) -> tuple[Array, dict[str, Array], Any]: ...


@flax.struct.dataclass
class Past:
    """Clean frames that open a window, with the actions that led to them.

    Attributes:
        frames_BTHWC: latents.
        action_BTA: entry t led to frame t, model units; ``None`` without actions.
        action_valid_BT: False where that action is not known. A window's first entry is never read.
    """

    frames_BTHWC: Array
    action_BTA: Array | None = None
    action_valid_BT: Array | None = None

    def last(self, frames: int) -> "Past":
        """Its last ``frames`` frames."""
        return jax.tree.map(lambda x: x[:, x.shape[1] - frames :], self)

    def then(self, later: "Past") -> "Past":
        """These frames and, after them, those of ``later``. Actions stay on the host if they are there."""
        frames = jnp.concatenate([self.frames_BTHWC, later.frames_BTHWC], axis=1)
        if self.action_BTA is None or later.action_BTA is None:
            return Past(frames)
        action = np.concatenate([self.action_BTA, later.action_BTA], axis=1)
        return Past(frames, action, np.concatenate([self.action_valid_BT, later.action_valid_BT], axis=1))


class Reference(NamedTuple):
    """Frames that are to be seen again: ``Condition.reference_BTHWC`` and ``Condition.motion_BTA`` of a window."""

    frames_BTHWC: Array
    motion_BTA: Array


class Recalled(NamedTuple):
    """What a Memory hands to the sampler.

    Attributes:
        past: opens the window.
        adapter: ``nn.lora`` adapters, one per video; ``None`` for none.
        reference: for models that move frames (``models.warp``); ``None`` for their last past frame.
        hidden: for recurrent models: their hidden state after ``past``, a pytree, one per video; ``None`` for others.
    """

    past: Past
    adapter: Any = None
    reference: Reference | None = None
    hidden: Any = None


@runtime_checkable
class Memory(Protocol):
    """What a rollout carries from one chunk to the next beyond its last f_p frames. ``m`` is any pytree of arrays.

    ``init`` begins a memory of the videos that open with ``past``: to forget everything is to begin again. ``recall``
    is asked before each chunk and told of the actions that lead to its frames (``None`` without actions); the past it
    hands out has as many frames each time. ``remember`` is told of each chunk after it: the rollout's own f_p frames
    before it, its new frames, and its text. ``m`` stays as it is, so that one can go back to it; whether it grows with
    the video each memory says. There is one key per video.
    """

    def init(self, past: Past, key_B: Key) -> Any: ...

    def recall(self, m: Any, past: Past, coming_BTA: Array | None) -> Recalled: ...

    def remember(self, m: Any, past: Past, new: Past, token_BL: Array | None, key_B: Key) -> Any: ...


class Autoencoder(Protocol):
    """Frames in and out, latents (or codes) between.

    ``encode`` maps uint8 frames (..., H, W, 3) in [0, 255] to latents (..., H / factor, W / factor, channels), and
    ``decode`` latents to uint8 frames. Both are pytrees (``jax.tree_util.Partial``), arguments of compiled programs.
    """

    @property
    def encode(self) -> Partial: ...

    @property
    def decode(self) -> Partial: ...

    @property
    def channels(self) -> int: ...

    @property
    def factor(self) -> int: ...

    @property
    def folder(self) -> Path:
        """Where it comes from."""
        ...


class ChunkAction(NamedTuple):
    """What is done during one generated chunk: the same in all videos, or on a leading axis B in each of them.

    Attributes:
        text: the command.
        token_L: its tokens; ``None`` for a model without text.
        action_TA: (f_g, A) model units, row t leads to the chunk's frame t; ``None`` for a model without actions.
    """

    text: str
    token_L: np.ndarray | None
    action_TA: np.ndarray | None


# A text, several of them one after another, an id, or actions in raw units: a row (A,) for every frame of the step,
# rows (T, A), or rows for each video (B, T, A); for a discrete space ids in the place of rows. Or a ``ChunkAction``.
Command = str | int | Sequence[str] | Array | ChunkAction


class Step(NamedTuple):
    """What a World shows after a step.

    Attributes:
        frames_BTHWC: the new frames, uint8. They may still be on their way: whoever reads them waits.
        actions: those that led to them, raw units (B, T, A) or ids (B, T); ``None`` for a world without actions.
        text: what was commanded; empty where nothing was said.
    """

    frames_BTHWC: Array
    actions: np.ndarray | None
    text: str


@runtime_checkable
class World(Protocol):
    """Something that is stepped: a trained model or a simulator.

    Pure: ``step`` changes nothing in the state that it is given, which is a pytree and can be forked, saved
    (``worlds.resume``) and gone back to. Steps have the same shapes each time, and nothing is compiled after the first.
    """

    def start(self, frames: np.ndarray, actions: np.ndarray | None, key: Key, id_B: np.ndarray | None = None) -> Any:
        """The state after some real frames.

        Args:
            frames: uint8: one picture (H, W, 3) or videos (B, T, H, W, 3).
            actions: those between the frames, raw units (B, T - 1, A) or ids (B, T - 1); ``None``: nothing was done.
            key: all that is random depends on it,
            id_B: and on a number per video, not on the video's place in the batch; ``None`` for 0, 1, 2, …
        """
        ...

    def step(self, state: Any, command: Command | None = None) -> tuple[Any, Step]:
        """The state after one more step, and what is seen.

        Raises:
            VgenError: without a command, for a world that does not predict its own actions; for an unknown command.
        """
        ...


def wrapped(degrees: Any) -> Any:
    """An angle, or angles of NumPy or JAX, in [-180, 180). Headings are in degrees, counter-clockwise."""
    return (degrees + 180.0) % 360.0 - 180.0


class VgenError(Exception):
    """A fault that the user can mend. ``main`` prints its message as one line and exits with status 2.

    The message names the culprit (file, record, key, value) and the remedy.
    """
