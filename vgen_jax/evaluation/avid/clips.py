"""Clips of AVID's methods: what continues the recorded ones, each method as one Predictor, one sampler for all.

In a world of latents the past frame is encoded and the sampled latents are decoded, so that clips are frames anywhere.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vgen_jax.compose.avid import alone
from vgen_jax.compose.classifier_guidance import classifier_guided
from vgen_jax.compose.mixing import action_guidance, product_of_experts
from vgen_jax.data.schema import ActionSpace
from vgen_jax.devices import sharding as sh
from vgen_jax.diffusion.samplers import Sampler, normal_like, sample
from vgen_jax.evaluation.clips import write_clip
from vgen_jax.files.exports import digest
from vgen_jax.files.media import read_video
from vgen_jax.files.progress import progress
from vgen_jax.nn.pixels import from_unit, to_unit
from vgen_jax.types import Array, Condition, Key, Predictor, VgenError
from vgen_jax.worlds.autoencoder import load_autoencoder
from vgen_jax.worlds.avid import Base, Method, base_predictor, classifier_log_probability, load_method
from vgen_jax.worlds.avid_networks import WorldConfig
from vgen_jax.worlds.chunks import video_keys

Via = Literal["method", "base", "product_of_experts", "action_guidance", "classifier_guidance"]
VIAS: tuple[Via, ...] = ("method", "base", "product_of_experts", "action_guidance", "classifier_guidance")


@dataclasses.dataclass(frozen=True)
class TableEntryConfig:
    """A row of the table.

    Attributes:
        label: its name in the table.
        via: how its prediction is made: ``method`` (a trained one, alone), ``base``, or a mixture of the base with
            what is in ``dir``.
        dir: an export; unused by ``base``.
        weights: of the mixture, the best of which is chosen on training clips; empty for none.
    """

    label: str
    via: Via
    dir: str
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.via not in VIAS:
            raise VgenError(f"methods: via '{self.via}' is unknown: use one of {', '.join(VIAS)}")
        if bool(self.weights) != (self.via not in ("method", "base")):
            raise VgenError(
                f"methods: '{self.label}' goes via {self.via} with weights {self.weights}: mixtures have some"
            )


@dataclasses.dataclass(frozen=True)
class ClipsConfig:
    """Attributes:
    batch_size: clips at a time, over all devices; changes memory and speed only.
    seed: of the noise.
    """

    batch_size: int
    seed: int


class TableEntry(NamedTuple):
    """An entry ready to sample.

    Attributes:
        parts: Predictors and functions, pytrees that hold all parameters.
        mix: (parts, weight) -> Predictor.
        trained: parameters that its training changed.
    """

    config: TableEntryConfig
    parts: tuple[Any, ...]
    mix: Callable[[tuple[Any, ...], Array], Predictor]
    trained: int


def load_entry(config: TableEntryConfig, base: Base, frame_shape: tuple[int, ...]) -> tuple[TableEntry, Method | None]:
    """An entry, and the method itself where it has a mixture to look at."""
    prior, schedule = base_predictor(base), base.world.schedule
    if config.via == "base":
        return TableEntry(config, (prior,), lambda parts, weight: alone(parts[0]), 0), None
    if config.via == "classifier_guidance":
        guide, world = classifier_log_probability(Path(config.dir), frame_shape)
        if world != base.world:
            raise VgenError(f"{config.dir} knows another world than base_dir: train it again")
        mix = lambda parts, weight: classifier_guided(parts[0], parts[1], weight, schedule)  # noqa: E731
        return TableEntry(config, (prior, guide), mix, _size(guide)), None
    _, method, params = load_method(Path(config.dir), base)
    own = method.predictor(params)
    if config.via == "method":
        return TableEntry(config, (own,), lambda parts, weight: parts[0], _size(params)), method
    combine = {"product_of_experts": product_of_experts, "action_guidance": action_guidance}[config.via]
    return TableEntry(
        config, (prior, own), lambda parts, weight: combine(parts[0], parts[1], weight, schedule), _size(params)
    ), None


def _size(tree: Any) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


class Inputs(NamedTuple):
    """What a batch of clips is continued from: past frames as models take them, actions of the future frames, keys.

    Attributes:
        key_B: of each clip's noise.
        token_BL: texts; ``None`` without.
    """

    past_BTHWC: Array
    action_BTA: Array
    key_B: Key
    token_BL: Array | None

    @property
    def condition(self) -> Condition:
        """As models take it."""
        known = jnp.ones(self.action_BTA.shape[:2], bool)
        return Condition(
            action_BTA=self.action_BTA, action_valid_BT=known, past_BTHWC=self.past_BTHWC, token_BL=self.token_BL
        )

    def noise(self) -> tuple[Array, Key]:
        """x_T of every clip and the keys of its sampler; they depend on its id and the seed alone."""
        split_B = jax.vmap(jax.random.split)(self.key_B)
        shape = (*self.action_BTA.shape[:2], *self.past_BTHWC.shape[2:])
        return normal_like(split_B[:, 0], shape), split_B[:, 1]


class Codec(NamedTuple):
    """Between uint8 frames (B, T, H, W, 3) and what a world's models denoise; pytrees, to be jitted."""

    encode: Partial
    decode: Partial


def codec(world: WorldConfig, autoencoder_dir: str) -> Codec:
    """The codec of a world.

    Args:
        autoencoder_dir: the export of the autoencoder of a world of latents, empty for frames.

    Raises:
        VgenError: for another autoencoder than that of the world.
    """
    found = digest(Path(autoencoder_dir)) if autoencoder_dir else ""
    if found != world.autoencoder:
        remedy = "latents: give the export of the autoencoder that encoded them"
        wanted = remedy if world.autoencoder else "frames: leave it empty"
        raise VgenError(f"config key autoencoder_dir is '{autoencoder_dir}' but base_dir denoises {wanted}")
    if not autoencoder_dir:
        return Codec(Partial(to_unit), Partial(from_unit))
    autoencoder = load_autoencoder(Path(autoencoder_dir))
    return Codec(autoencoder.encode, Partial(_frame_by_frame, autoencoder.decode))


def _frame_by_frame(decode: Partial, latents_BTHWC: Array) -> Array:
    """Decoded one frame of each clip at a time, as frames take many times the memory of their latents."""
    return jnp.swapaxes(jax.lax.map(decode, jnp.swapaxes(latents_BTHWC, 0, 1)), 0, 1)


class Source:
    """Recorded clips with their actions, as a folder of ``.npz`` files, read as Inputs.

    Args:
        folder: see ``evaluation.sources.write_recorded``.
        past: frames that a method is given.
        codec: of the world.
        token_NL: the clips' texts; ``None`` without.
    """

    def __init__(
        self, folder: Path, past: int, space: ActionSpace, seed: int, codec: Codec, token_NL: np.ndarray | None = None
    ):
        self.paths = sorted(folder.glob("*.npz"))
        self.codec = codec
        self._past, self._space, self._rng, self._token_NL = past, space, jax.random.key(seed), token_NL
        self._encode = jax.jit(lambda encode, frames: encode(frames))

    def video(self, number: int) -> np.ndarray:
        """A whole clip, uint8 (T, H, W, 3)."""
        return read_video(self.paths[number])

    def inputs(self, numbers: list[int]) -> Inputs:
        """Those clips' inputs."""
        past = np.stack([self.video(number)[: self._past] for number in numbers])
        actions = [self._space.to_model(self._actions(number)) for number in numbers]
        key_B = video_keys(self._rng, 0, 0, np.asarray(numbers, np.int32))
        token_BL = None if self._token_NL is None else self._token_NL[numbers]
        return Inputs(np.asarray(self._encode(self.codec.encode, past)), np.stack(actions), key_B, token_BL)

    def _actions(self, number: int) -> np.ndarray:
        with np.load(self.paths[number], allow_pickle=False) as stored:
            return stored["actions"][self._past - 1 :]


def write_clips(
    entry: TableEntry,
    weight: float,
    source: Source,
    sampler: Sampler,
    schedule: Any,
    settings: ClipsConfig,
    folder: Path,
) -> Path:
    """Continues every clip of ``source`` and writes it, its past frames before it; those that are there stay."""
    waiting = [n for n, path in enumerate(source.paths) if not (folder / path.name).is_file()]
    mesh = sh.make_mesh(sh.MeshConfig())
    whole, split = sh.replicated(mesh), sh.batch_sharding(mesh)

    @jax.jit
    def generate(parts: tuple[Any, ...], decode: Partial, weight: Array, inputs: Inputs) -> Array:
        noise, key_B = inputs.noise()
        return decode(sample(entry.mix(parts, weight), schedule, sampler, noise, inputs.condition, key_B))

    frozen = jax.device_put((entry.parts, source.codec.decode, jnp.asarray(weight, jnp.float32)), whole)
    batches = [waiting[at : at + settings.batch_size] for at in range(0, len(waiting), settings.batch_size)]
    for batch in progress(batches, total=len(batches), desc=f"{folder.parent.name}/{folder.name}", unit="batch"):
        rows = batch + batch[-1:] * (settings.batch_size - len(batch))  # one shape, one program
        made = np.asarray(generate(*frozen, jax.device_put(source.inputs(rows), split)))
        for number, future in zip(batch, made, strict=False):
            past = source.video(number)[: -future.shape[0]]
            write_clip(folder / source.paths[number].name, np.concatenate([past, future]), None, None)
    return folder
