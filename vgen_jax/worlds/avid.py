"""AVID's models from their configuration: base models, adapters and every baseline, as Predictors with parameters.

A *world* says what all of them share: frames or latents, the noise schedule, what is predicted, the actions, how many
clean frames open a clip (``worlds.avid_networks``, which has the networks too). A *method* is what is trained in it: a
video diffusion model of its own (``diffusion``: the base, the action-conditioned baseline, full fine-tuning, by actions
or by language), AVID's adapter (``avid``) or a ControlNet (``controlnet``, in worlds of frames). Whatever is frozen is
an argument of the compiled programs and never part of a method_of's parameters.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vgen_jax.black_box.ask import Ask, from_ask
from vgen_jax.compose.avid import Parts, parts
from vgen_jax.compose.control import controlled
from vgen_jax.config import section
from vgen_jax.files.exports import check_matches, digest, load_export
from vgen_jax.models.action_classifier import ActionClassifier
from vgen_jax.models.adapter import Adapted, AdapterHead
from vgen_jax.models.controlnet import ControlNet
from vgen_jax.models.unet_pixel import with_past
from vgen_jax.objectives.noisy_actions import log_probability_B
from vgen_jax.types import Array, Condition, Key, Params, Prediction, Predictor, VgenError
from vgen_jax.worlds.avid_networks import (
    CHANNELS,
    LatentConfig,
    PixelConfig,
    WorldConfig,
    actions_of,
    example,
    may_begin_with,
    net,
    network_fields,
    pixel_output,
    pixel_unet,
)

Form = Literal["diffusion", "avid", "controlnet"]
FORMS: tuple[Form, ...] = ("diffusion", "avid", "controlnet")


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
    unet: PixelConfig | LatentConfig
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
    """A method_of as functions of its trainable parameters.

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
        """The method_of with these parameters."""
        return Partial(_applied, self.predict, params)


def _applied(predict: Partial, params: Params, x: Array, t_B: Array, condition: Condition) -> Prediction:
    return predict(params, x, t_B, condition)


def diffusion(config: MethodConfig, world: WorldConfig, start: Base | None = None) -> Method:
    """A diffusion model of its own; ``start`` gives it another one's parameters (full fine-tuning).

    What the other one lacks, the actions of a latent network, begins fresh.
    """
    network = net(config.unet, world)

    def predict(params: Params, x: Array, t_B: Array, condition: Condition) -> Prediction:
        return Prediction(network.apply(params, x, None, t_B, condition), world.kind)

    if start is None:
        return Method(network.init, Partial(predict))
    if start.world != world or not may_begin_with(config.unet, start.config.unet):
        raise VgenError("method.unet or world differs from that of start_dir: fine-tuning trains the same network")
    return Method(network.init, Partial(predict), lambda params: overlaid(params, start.params))


def base_predictor(base: Base) -> Predictor:
    """The base as a Predictor that carries its parameters."""
    return diffusion(base.config, base.world).predictor(base.params)


def avid_adapter(config: MethodConfig, world: WorldConfig, base: Predictor) -> Method:
    """AVID's adapter over any base, a black box included."""
    network, head = net(config.unet, world, config.mask, config.conditioned), AdapterHead(config.mask)

    def init(rng: Key) -> Params:
        k_network, k_head = jax.random.split(rng)
        out = jnp.zeros((1, 1, 1, 1, network.outputs))
        return {"network": network.init(k_network), "head": head.init(k_head, out)["params"]}

    def adapt(params: Params, x: Array, base_BTHWC: Array | None, t_B: Array, condition: Condition) -> Adapted:
        out = network.apply(params["network"], x, base_BTHWC, t_B, condition)
        mixed: Any = head.apply({"params": params["head"]}, out)
        return mixed

    def mixture(base: Predictor, params: Params, x: Array, t_B: Array, condition: Condition) -> Parts:
        return parts(base, Partial(adapt, params), config.conditioned, x, t_B, condition)

    def predict(base: Predictor, params: Params, x: Array, t_B: Array, condition: Condition) -> Prediction:
        return mixture(base, params, x, t_B, condition).final

    return Method(init, Partial(predict, base), parts=Partial(mixture, base))


def controlnet(config: MethodConfig, world: WorldConfig, base: Base) -> Method:
    """ControlNet, which begins as a copy of the base's way down; one of another width begins afresh."""
    unet, frozen_unet = pixel_config(config), pixel_config(base.config)
    small = unet.dim != frozen_unet.dim
    if (unet.mults, unet.patch) != (frozen_unet.mults, frozen_unet.patch):
        raise VgenError("method.unet.mults and method_of.unet.patch must be the base's: its skips take the control")
    width = frozen_unet.dim if small else 0
    network = ControlNet(**network_fields(unet), actions=world.actions, project_to=width)
    frozen = pixel_unet(frozen_unet, world)

    def init(rng: Key) -> Params:
        return network.init(rng, *example(unet, world, world.past + 1))["params"]

    def predict(base_params: Params, params: Params, x: Array, t_B: Array, condition: Condition) -> Prediction:
        def steered(x_t_BTHWC: Array, t_B: Array, condition: Condition, control: tuple[Array, ...]) -> Prediction:
            return Prediction(pixel_output(frozen, world, base_params, x_t_BTHWC, t_B, condition, control), world.kind)

        def control(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Any:
            action, known = actions_of(condition, x_t_BTHWC, world.action_dim)
            return network.apply({"params": params}, with_past(x_t_BTHWC, condition.past_BTHWC), t_B, action, known)

        return controlled(steered, control)(x, t_B, condition)

    def start(params: Params) -> Params:
        return {**params, "path": overlaid(params["path"], base.params["path"])}

    return Method(init, Partial(predict, base.params), None if small else start)


def pixel_config(config: MethodConfig) -> PixelConfig:
    """The network of a method_of in a world of frames.

    Raises:
        VgenError: for a latent one.
    """
    if not isinstance(config.unet, PixelConfig):
        raise VgenError(
            "method.unet is a latent one: ControlNet is there for worlds of frames, use the form 'avid' or 'diffusion'"
        )
    return config.unet


def controlnet_shape(config: MethodConfig, world: WorldConfig, project_to: int) -> Params:
    """The shapes of a ControlNet's parameters."""
    unet = pixel_config(config)
    network = ControlNet(**network_fields(unet), actions=world.actions, project_to=project_to)
    found = jax.eval_shape(network.init, jax.random.key(0), *example(unet, world, world.past + 1))
    return found["params"]


def overlaid(params: Params, other: Params) -> Params:
    """``params`` with those of ``other`` in the place of those of the same name."""
    merged = dict(params)
    for name, value in other.items():
        merged[name] = overlaid(merged.get(name, {}), value) if isinstance(value, Mapping) else value
    return merged


def method_of(config: MethodConfig, world: WorldConfig, base: Base | None, start: Base | None = None) -> Method:
    """A method_of over a base whose parameters are at hand.

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
        raise VgenError(
            f"{folder} holds a method_of of form '{config.form}', which is no base: give one of 'diffusion'"
        )
    check_matches(params, jax.eval_shape(diffusion(config, world).init, jax.random.key(0)), folder)
    return Base(config, world, params, digest(folder))


def load_method(folder: Path, base: Base) -> tuple[MethodConfig, Method, Params]:
    """A trained method_of and its parameters, over the base that it was trained with.

    Raises:
        VgenError: if a file is missing or does not fit, or the base is another one.
    """
    params, config, world, raw = _load(folder, "method", MethodConfig)
    if raw["base_sha256"] not in ("", base.sha256):
        raise VgenError(f"{folder} was trained over another base than base_dir: give that one, or train it again")
    found = method_of(config, world, base)
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
    return params, section(cls, raw[name], name), world_of(raw), raw


def world_of(raw: Mapping[str, Any]) -> WorldConfig:
    """The world of an export; one from before there were latent worlds is of frames."""
    return section(WorldConfig, {"channels": CHANNELS, "autoencoder": "", **raw["world"]}, "world")


def load_adapted(folder: Path, ask: Ask) -> tuple[Predictor, WorldConfig]:
    """A trained adapter over its black box, to be sampled, and its world.

    Raises:
        VgenError: if a file is missing or does not fit.
    """
    params, raw = load_export(folder)
    for name in ("method", "world"):
        if name not in raw:
            raise VgenError(f"{folder} holds no adapter (its config.json has no '{name}'): give the export of one")
    settings = section(MethodConfig, raw["method"], "method")
    world = world_of(raw)
    method = avid_adapter(settings, world, from_ask(ask, world.kind))
    check_matches(params, jax.eval_shape(method.init, jax.random.key(0)), folder)
    return method.predictor(params), world
