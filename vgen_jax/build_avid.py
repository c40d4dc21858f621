"""AVID's models from their configuration: base models, adapters and every baseline, as Predictors with parameters.

A *world* says what all of them share: the noise schedule, what is predicted, the actions, how many clean frames open a
clip. A *method* is what is trained in it: a video diffusion model of its own (``diffusion``: the base, the
action-conditioned baseline, full fine-tuning), AVID's adapter (``avid``) or a ControlNet (``controlnet``). Whatever is
frozen is an argument of the compiled programs and never part of a method's parameters.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vgen_jax.build import dtype_of
from vgen_jax.checkpoint import check_matches, digest, load_export
from vgen_jax.compose.avid import Parts, parts
from vgen_jax.compose.control import controlled
from vgen_jax.diffusion.prediction import check_kind
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.models.action_classifier import ActionClassifier
from vgen_jax.models.adapter import Adapted, AdapterHead
from vgen_jax.models.controlnet import ControlNet
from vgen_jax.models.unet_pixel import ActionKind, PixelUNet, with_past
from vgen_jax.objectives.noisy_actions import log_probability_B
from vgen_jax.sections import section
from vgen_jax.types import Array, Condition, Key, Params, Prediction, PredictionKind, Predictor, VgenError

CHANNELS = 3  # of a frame
Form = Literal["diffusion", "avid", "controlnet"]
FORMS: tuple[Form, ...] = ("diffusion", "avid", "controlnet")


@dataclasses.dataclass(frozen=True)
class PixelConfig:
    """The shape of a pixel UNet, or of its way down; see ``models.unet_pixel.PixelUNet``."""

    dim: int
    mults: tuple[int, ...]
    heads: int
    head_dim: int
    patch: int
    remat: str
    dtype: str


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """What the models of one experiment share.

    Attributes:
        kind: what is predicted.
        actions: the action space, ``discrete`` or ``continuous``.
        action_dim: its width.
        past: clean frames that open a clip.
    """

    schedule: Schedule
    kind: PredictionKind
    actions: ActionKind
    action_dim: int
    past: int

    def __post_init__(self) -> None:
        check_kind(self.kind)
        if self.actions not in ("discrete", "continuous"):
            raise VgenError(f"world.actions '{self.actions}' is unknown: use discrete or continuous")
        if self.past < 1:
            raise VgenError(f"world.past is {self.past}: use 1 frame or more")


@dataclasses.dataclass(frozen=True)
class MethodConfig:
    """What is trained.

    Attributes:
        form: see the module's docstring.
        unet: of the trained network.
        mask: ``avid``: mix by a mask; False adds the adapter's output (No Mask).
        conditioned: ``avid``: the adapter sees the base's output; False hides it (No Conditioning).
    """

    form: Form
    unet: PixelConfig
    mask: bool
    conditioned: bool

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise VgenError(f"method.form '{self.form}' is unknown: use one of {', '.join(FORMS)}")


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """The action classifier of noisy frames; see ``models.action_classifier``."""

    unet: PixelConfig
    mlp_width: int


class Base(NamedTuple):
    """A trained diffusion model whose parameters are at hand; ``sha256`` of its export."""

    config: MethodConfig
    world: WorldConfig
    params: Params
    sha256: str


class Method(NamedTuple):
    """A method as functions of its trainable parameters.

    Attributes:
        init: (rng) -> params.
        predict: (params, x_t, t, condition) -> Prediction; a pytree that holds what is frozen.
        start: fresh params -> those that training begins with; ``None`` to begin with the fresh ones.
        parts: the same for AVID's mixture (``compose.avid.Parts``); ``None`` for other forms.
    """

    init: Callable[[Key], Params]
    predict: Partial
    start: Callable[[Params], Params] | None = None
    parts: Partial | None = None

    def predictor(self, params: Params) -> Predictor:
        """The method with these parameters."""
        return Partial(_applied, self.predict, params)


def _applied(predict: Partial, params: Params, x: Array, t_B: Array, condition: Condition) -> Prediction:
    return predict(params, x, t_B, condition)


def network_fields(config: PixelConfig) -> dict[str, Any]:
    """The fields that a network takes from its configuration."""
    return {**dataclasses.asdict(config), "dtype": dtype_of(config.dtype)}


def actions_of(condition: Condition, x_BTHWC: Array, width: int) -> tuple[Array, Array]:
    """The condition's actions and where they are known; without any, the null action everywhere."""
    shape = x_BTHWC.shape[:2]
    if condition.action_BTA is None:
        return jnp.zeros((*shape, width)), jnp.zeros(shape, bool)
    known = condition.action_valid_BT
    return condition.action_BTA, jnp.ones(shape, bool) if known is None else known


def pixel_unet(config: PixelConfig, world: WorldConfig, mask: bool = False) -> PixelUNet:
    """The network, with a channel more for a mask."""
    return PixelUNet(CHANNELS + mask, actions=world.actions, **network_fields(config))


def example(config: PixelConfig, world: WorldConfig, shown: int) -> tuple[Array, ...]:
    """Inputs of the smallest shape, ``shown`` frames side by side on the channels."""
    side = config.patch * 2 ** len(config.mults)
    x = jnp.zeros((1, 2, side, side, CHANNELS * shown))
    return x, jnp.zeros((1,), jnp.int32), jnp.zeros((1, 2, world.action_dim)), jnp.ones((1, 2), bool)


def diffusion(config: MethodConfig, world: WorldConfig, start: Base | None = None) -> Method:
    """A diffusion model of its own; ``start`` gives it another one's parameters (full fine-tuning)."""
    network = pixel_unet(config.unet, world)

    def init(rng: Key) -> Params:
        return network.init(rng, *example(config.unet, world, world.past + 1))["params"]

    def predict(params: Params, x: Array, t_B: Array, condition: Condition) -> Prediction:
        value: Any = _seen(network, world, params, x, t_B, condition)
        return Prediction(value, world.kind)

    if start is None:
        return Method(init, Partial(predict))
    if start.config != config:
        raise VgenError("method.unet differs from that of start_dir: fine-tuning trains the same network")
    return Method(init, Partial(predict), lambda params: start.params)


def _seen(
    network: PixelUNet,
    world: WorldConfig,
    params: Params,
    x: Array,
    t_B: Array,
    condition: Condition,
    control: tuple[Array, ...] = (),
) -> Any:
    """A network's output beside the past frames."""
    action, known = actions_of(condition, x, world.action_dim)
    return network.apply({"params": params}, with_past(x, condition.past_BTHWC), t_B, action, known, control)


def base_predictor(base: Base) -> Predictor:
    """The base as a Predictor that carries its parameters."""
    return diffusion(base.config, base.world).predictor(base.params)


def avid_adapter(config: MethodConfig, world: WorldConfig, base: Predictor) -> Method:
    """AVID's adapter over any base, a black box included."""
    network, head = pixel_unet(config.unet, world, config.mask), AdapterHead(config.mask)
    shown = world.past + 1 + config.conditioned

    def init(rng: Key) -> Params:
        k_network, k_head = jax.random.split(rng)
        x, t_B, *actions = example(config.unet, world, shown)
        out = jnp.zeros((*x.shape[:-1], CHANNELS + config.mask))
        return {
            "network": network.init(k_network, x, t_B, *actions)["params"], "head": head.init(k_head, out)["params"]
        }  # fmt: skip

    def adapt(params: Params, x: Array, base_BTHWC: Array | None, t_B: Array, condition: Condition) -> Adapted:
        seen = x if base_BTHWC is None else jnp.concatenate([x, base_BTHWC], axis=-1)
        out: Any = _seen(network, world, params["network"], seen, t_B, condition)
        mixed: Any = head.apply({"params": params["head"]}, out)
        return mixed

    def mixture(base: Predictor, params: Params, x: Array, t_B: Array, condition: Condition) -> Parts:
        return parts(base, Partial(adapt, params), config.conditioned, x, t_B, condition)

    def predict(base: Predictor, params: Params, x: Array, t_B: Array, condition: Condition) -> Prediction:
        return mixture(base, params, x, t_B, condition).final

    return Method(init, Partial(predict, base), parts=Partial(mixture, base))


def controlnet(config: MethodConfig, world: WorldConfig, base: Base) -> Method:
    """ControlNet, which begins as a copy of the base's way down; one of another width begins afresh."""
    small = config.unet.dim != base.config.unet.dim
    fields = network_fields(config.unet)
    if (config.unet.mults, config.unet.patch) != (base.config.unet.mults, base.config.unet.patch):
        raise VgenError("method.unet.mults and method.unet.patch must be the base's: its skips take the control")
    network = ControlNet(**fields, actions=world.actions, project_to=base.config.unet.dim if small else 0)
    frozen = pixel_unet(base.config.unet, world)

    def init(rng: Key) -> Params:
        return network.init(rng, *example(config.unet, world, world.past + 1))["params"]

    def predict(base_params: Params, params: Params, x: Array, t_B: Array, condition: Condition) -> Prediction:
        def steered(x_t_BTHWC: Array, t_B: Array, condition: Condition, control: tuple[Array, ...]) -> Prediction:
            return Prediction(_seen(frozen, world, base_params, x_t_BTHWC, t_B, condition, control), world.kind)

        def control(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Any:
            action, known = actions_of(condition, x_t_BTHWC, world.action_dim)
            return network.apply({"params": params}, with_past(x_t_BTHWC, condition.past_BTHWC), t_B, action, known)

        return controlled(steered, control)(x, t_B, condition)

    def start(params: Params) -> Params:
        return {**params, "path": overlaid(params["path"], base.params["path"])}

    return Method(init, Partial(predict, base.params), None if small else start)


def controlnet_shape(config: MethodConfig, world: WorldConfig, project_to: int) -> Params:
    """The shapes of a ControlNet's parameters."""
    network = ControlNet(**network_fields(config.unet), actions=world.actions, project_to=project_to)
    found = jax.eval_shape(network.init, jax.random.key(0), *example(config.unet, world, world.past + 1))
    return found["params"]


def overlaid(params: Params, other: Params) -> Params:
    """``params`` with those of ``other`` in the place of those of the same name."""
    merged = dict(params)
    for name, value in other.items():
        merged[name] = overlaid(merged[name], value) if isinstance(value, Mapping) else value
    return merged


def method(config: MethodConfig, world: WorldConfig, base: Base | None, start: Base | None = None) -> Method:
    """A method over a base whose parameters are at hand.

    Raises:
        VgenError: for a form that lacks its base, or a base of another world.
    """
    if config.form == "diffusion":
        return diffusion(config, world, start)
    if base is None:
        raise VgenError(f"method.form '{config.form}' needs a base: set base_dir to the export of one")
    if base.world != world:
        raise VgenError("world differs from that of base_dir: adapters speak their base's schedule, kind and actions")
    return (
        avid_adapter(config, world, base_predictor(base)) if config.form == "avid" else controlnet(config, world, base)
    )


def load_base(folder: Path) -> Base:
    """A diffusion model from the export of its training.

    Raises:
        VgenError: if a file is missing or does not fit.
    """
    params, config, world, _ = _load(folder, "method", MethodConfig)
    if config.form != "diffusion":
        raise VgenError(f"{folder} holds a method of form '{config.form}', which is no base: give one of 'diffusion'")
    check_matches(params, jax.eval_shape(diffusion(config, world).init, jax.random.key(0)), folder)
    return Base(config, world, params, digest(folder))


def load_method(folder: Path, base: Base) -> tuple[MethodConfig, Method, Params]:
    """A trained method and its parameters, over the base that it was trained with.

    Raises:
        VgenError: if a file is missing or does not fit, or the base is another one.
    """
    params, config, world, raw = _load(folder, "method", MethodConfig)
    if raw["base_sha256"] not in ("", base.sha256):
        raise VgenError(f"{folder} was trained over another base than base_dir: give that one, or train it again")
    found = method(config, world, base)
    check_matches(params, jax.eval_shape(found.init, jax.random.key(0)), folder)
    return config, found, params


def classifier_network(config: ClassifierConfig, world: WorldConfig) -> ActionClassifier:
    """The action classifier of noisy frames.

    Raises:
        VgenError: for continuous actions, which have no classes.
    """
    if world.actions != "discrete":
        raise VgenError("an action classifier needs discrete actions: set world.actions to 'discrete'")
    fields = network_fields(config.unet)
    return ActionClassifier(**fields, num_actions=world.action_dim, mlp_width=config.mlp_width)


def classifier_log_probability(folder: Path, frame_shape: tuple[int, ...]) -> tuple[Partial, WorldConfig]:
    """log f(actions | noisy frames) of a trained classifier, and its world."""
    params, config, world, _ = _load(folder, "classifier", ClassifierConfig)
    network = classifier_network(config, world)
    frame = jnp.zeros((1, 1, *frame_shape))
    expected = jax.eval_shape(network.init, jax.random.key(0), frame, jnp.zeros((1,), jnp.int32), frame)["params"]
    check_matches(params, expected, folder)

    def log_probability(params: Params, x: Array, t_B: Array, condition: Condition) -> Array:
        if condition.action_BTA is None or condition.past_BTHWC is None:
            raise VgenError("classifier guidance needs a condition with actions and past frames")
        logits: Any = network.apply({"params": params}, x, t_B, condition.past_BTHWC)
        return log_probability_B(logits, condition.action_BTA)

    return Partial(log_probability, params), world


def _load(folder: Path, name: str, cls: Any) -> tuple[Params, Any, WorldConfig, dict[str, Any]]:
    params, raw = load_export(folder)
    if name not in raw or "world" not in raw:
        raise VgenError(f"{folder / 'config.json'} has no '{name}' and 'world': give an export of configs/avid/")
    return params, section(cls, raw[name], name), section(WorldConfig, raw["world"], "world"), raw
