"""The networks of SVG-LP, VG-LeAP and Causal-LeAP as functions of their parameters."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from vgen_jax.config import nearest
from vgen_jax.learning.state import MODEL_STATE
from vgen_jax.models.svg_lp import SvgConfig, SvgNetworks
from vgen_jax.objectives.variational import MODELS, RecurrentNetworks, Sees
from vgen_jax.types import Array, Key, Params, VgenError


@dataclasses.dataclass(frozen=True)
class LeapConfig:
    """The definition of a model.

    Attributes:
        model: ``svg_lp``, ``vg_leap`` or ``causal_leap``.
        networks: their shape.
        actions: the action space that is predicted, ``continuous``, or ``none``.
        action_dim: A; 0 without actions.
    """

    model: str
    networks: SvgConfig
    actions: str
    action_dim: int

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise VgenError(
                f"leap.model is '{self.model}': {nearest(self.model, MODELS)}use one of {', '.join(MODELS)}"
            )
        if bool(self.sees.action) != (self.actions == "continuous") or bool(self.action_dim) != bool(self.sees.action):
            raise VgenError(
                f"{self.model} with actions '{self.actions}': svg_lp takes none, the others predict continuous ones"
            )

    @property
    def sees(self) -> Sees:
        """What its recurrent stacks are given."""
        return MODELS[self.model]


class LeapNetworks:
    """``init`` draws parameters and model state; ``functions`` is what the objective and the World call."""

    def __init__(self, config: LeapConfig):
        self._config = config
        self._module = SvgNetworks(config.networks, config.sees.stacks, config.action_dim)

    def init(self, rng: Key) -> Params:
        """Parameters, with the state of batch normalisation beside them (``learning.state.MODEL_STATE``)."""
        shape = self._config.networks
        widths = {"h": shape.code, "e": shape.action_code, "z": shape.latent, "alpha": shape.action_latent}
        widths |= {"next_h": shape.code, "next_e": shape.action_code, "prior_z": shape.latent}

        def everything(module: SvgNetworks) -> None:
            h, maps = module.encode(jnp.zeros((1, shape.size, shape.size, 3)), False)
            module.decode(h, maps, False)
            if self._config.action_dim:
                module.decode_action(module.encode_action(jnp.zeros((1, self._config.action_dim))))
            for stack in self._config.sees.stacks:
                given = jnp.zeros((1, sum(widths[name] for name in getattr(self._config.sees, stack))))
                module.advance(stack, shape.carry(stack, 1), given)

        variables = self._module.init(rng, method=everything)
        return {**variables["params"], MODEL_STATE: variables["batch_stats"]}

    @property
    def functions(self) -> RecurrentNetworks:
        """The networks."""
        shape = self._config.networks
        return RecurrentNetworks(
            self._encode, self._decode, self._encode_action, self._decode_action, self._advance, shape.carry,
            shape.latent, shape.action_latent, shape.skip_back,
        )  # fmt: skip

    def _apply(self, params: Params, stats: Any, train: bool, *arguments: Any, method: str) -> tuple[Any, Any]:
        """The output of a method, and the state of batch normalisation after it."""
        variables = {"params": params, "batch_stats": stats}
        if not train:
            return self._module.apply(variables, *arguments, False, method=method), stats
        out, after = self._module.apply(variables, *arguments, True, method=method, mutable=["batch_stats"])
        return out, after["batch_stats"]

    def _encode(self, params: Params, stats: Any, frames_FHWC: Array, train: bool) -> tuple[Array, Any, Any]:
        (h, maps), stats = self._apply(params, stats, train, frames_FHWC, method="encode")
        return h, maps, stats

    def _decode(self, params: Params, stats: Any, g_FD: Array, maps: Any, train: bool) -> tuple[Array, Any]:
        return self._apply(params, stats, train, g_FD, maps, method="decode")

    def _encode_action(self, params: Params, action: Array) -> Array:
        found: Any = self._module.apply({"params": params}, action, method="encode_action")
        return found

    def _decode_action(self, params: Params, code: Array) -> Array:
        found: Any = self._module.apply({"params": params}, code, method="decode_action")
        return found

    def _advance(self, params: Params, stack: str, carry: Any, x_BD: Array) -> tuple[Any, Any]:
        found: Any = self._module.apply({"params": params}, stack, carry, x_BD, method="advance")
        return found
