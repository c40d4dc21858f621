"""What can be trained, by ``config.objective.kind``."""

from collections.abc import Callable

from ml_collections import ConfigDict

from vgen_jax.config import nearest
from vgen_jax.learning.slow import Task
from vgen_jax.objectives.variational import MODELS as LEAP_MODELS
from vgen_jax.tasks.action import action_task
from vgen_jax.tasks.adapter import adapter_task
from vgen_jax.tasks.autoencoder import autoencoder_task
from vgen_jax.tasks.black_box import remote_task
from vgen_jax.tasks.inputs import Finish
from vgen_jax.tasks.leap import leap_task
from vgen_jax.tasks.noisy_actions import classifier_task
from vgen_jax.tasks.place import place_task
from vgen_jax.tasks.rafi import KINDS as FLOW_MODELS
from vgen_jax.tasks.rafi import rafi_task
from vgen_jax.tasks.slow import ORIGINS, slow_task
from vgen_jax.tasks.vqgan import vqgan_task
from vgen_jax.types import VgenError

Maker = Callable[[ConfigDict], tuple[Task, Finish]]

TASKS: dict[str, Maker] = {
    "autoencoder": autoencoder_task,
    **dict.fromkeys(ORIGINS, slow_task),
    "place": place_task,
    "action": action_task,
    "adapter": adapter_task,
    "black_box": remote_task,
    "noisy_actions": classifier_task,
    **dict.fromkeys(LEAP_MODELS, leap_task),
    **dict.fromkeys(FLOW_MODELS, rafi_task),
    "vqgan": vqgan_task,
}


def task_of(kind: str) -> Maker:
    """What makes the task of ``objective.kind``.

    Raises:
        VgenError: if there is none of that kind.
    """
    if kind not in TASKS:
        raise VgenError(f"config key objective.kind is '{kind}': {nearest(kind, TASKS)}use one of {', '.join(TASKS)}")
    return TASKS[kind]
