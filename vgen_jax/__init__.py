"""World models that are driven by actions, in JAX. The names below are the public API; see docs/api.md.

They are imported when they are first used: to import the package alone loads neither JAX nor a model.
"""

import importlib
import typing

__version__ = "0.1.0"

_HOMES = {
    "load_world": "worlds.assembly",
    "rollout": "worlds.rollout",
    "show": "files.clip",
    "read_image": "files.pictures",
    **dict.fromkeys(
        (
            "World", "Step", "Command", "ChunkAction", "Predictor", "Prediction", "Condition", "Objective", "Memory",
            "Past", "Recalled", "Autoencoder", "VgenError",
        ),
        "types",
    ),
}  # fmt: skip
__all__ = ["__version__", *_HOMES]

if typing.TYPE_CHECKING:
    from vgen_jax.files.clip import show as show
    from vgen_jax.files.pictures import read_image as read_image
    from vgen_jax.types import Autoencoder as Autoencoder
    from vgen_jax.types import ChunkAction as ChunkAction
    from vgen_jax.types import Command as Command
    from vgen_jax.types import Condition as Condition
    from vgen_jax.types import Memory as Memory
    from vgen_jax.types import Objective as Objective
    from vgen_jax.types import Past as Past
    from vgen_jax.types import Prediction as Prediction
    from vgen_jax.types import Predictor as Predictor
    from vgen_jax.types import Recalled as Recalled
    from vgen_jax.types import Step as Step
    from vgen_jax.types import VgenError as VgenError
    from vgen_jax.types import World as World
    from vgen_jax.worlds.assembly import load_world as load_world
    from vgen_jax.worlds.rollout import rollout as rollout


def __getattr__(name: str) -> typing.Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vgen_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"vgen_jax.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
