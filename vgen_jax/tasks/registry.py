"""What can be trained, by ``config.objective.kind``."""

from collections.abc import Callable

from ml_collections import ConfigDict

from vgen_jax.learning.slow import Task
from vgen_jax.tasks.action import action_task
from vgen_jax.tasks.adapter import adapter_task
from vgen_jax.tasks.autoencoder import autoencoder_task
from vgen_jax.tasks.black_box import remote_task
from vgen_jax.tasks.finetune import finetune_task
from vgen_jax.tasks.inputs import Finish
from vgen_jax.tasks.masked_diffusion import diffusion_task
from vgen_jax.tasks.noisy_actions import classifier_task
from vgen_jax.tasks.place import place_task
from vgen_jax.tasks.warm_start import warm_start_task

TASKS: dict[str, Callable[[ConfigDict], tuple[Task, Finish]]] = {
    "autoencoder": autoencoder_task,
    "masked_diffusion": diffusion_task,
    "continued": warm_start_task,
    "finetune": finetune_task,
    "place": place_task,
    "action": action_task,
    "adapter": adapter_task,
    "black_box": remote_task,
    "noisy_actions": classifier_task,
}
