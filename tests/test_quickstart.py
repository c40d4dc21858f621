"""The quickstart's stages are runs with configs that these accept, and follow a path that comes back."""

import dataclasses

import pytest
from ml_collections import ConfigDict

from configs import quickstart
from tests import tiny
from vgen_jax import runs
from vgen_jax.config import section
from vgen_jax.data.batches import BatchesConfig
from vgen_jax.data.revisits import revisits
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.learning.slow import TrainConfig
from vgen_jax.learning.state import OptimizerConfig
from vgen_jax.runs.compare import CompareConfig
from vgen_jax.runs.evaluate import EvaluateConfig
from vgen_jax.simulators.commands import walker_commands, walker_space
from vgen_jax.tasks.registry import TASKS
from vgen_jax.worlds.actions import commanded_pose
from vgen_jax.worlds.memories import MemoryConfig
from vgen_jax.worlds.rollout import GenerateConfig
from vgen_jax.worlds.start import StartConfig

SECTIONS = {
    "generate": GenerateConfig, "start": StartConfig, "memory": MemoryConfig, "compare": CompareConfig,
    "evaluate": EvaluateConfig, "sampler": Sampler, "data": BatchesConfig, "optimizer": OptimizerConfig,
    "train": TrainConfig,
}  # fmt: skip


@pytest.mark.parametrize("variant", ["bundled", "train"])
def test_every_stage_is_a_run_with_a_valid_config(variant: str) -> None:
    config = quickstart.get_config(variant)
    for name in config.order:
        stage = quickstart.get_config(f"{variant}.{name}").to_dict()
        assert stage["run"] in runs.RUNS
        for key in SECTIONS.keys() & stage.keys():
            section(SECTIONS[key], stage[key], key)
        if stage["run"] == "train":
            assert stage["objective"]["kind"] in TASKS


def test_both_videos_differ_in_their_memory_alone() -> None:
    stages: ConfigDict = quickstart.get_config().stages
    without, with_memory = (stages[name].to_dict() for name in ("without", "temp_lora"))
    assert (without.pop("memory")["kind"], with_memory.pop("memory")["kind"]) == ("none", "temp_lora")
    assert without == with_memory and without["generate"]["frames"] >= 200


def test_the_path_comes_back_many_times() -> None:
    space = {"continuous": walker_space(4)}
    info = dataclasses.replace(tiny.info(), chunk=4, action_spaces=space, commands=walker_commands(4))
    texts = [(1 + 4 * n, quickstart.PATH[n % len(quickstart.PATH)]) for n in range(50)]
    pose = commanded_pose(info, texts, 66.0)
    assert len(pose) == 201 and len(revisits(pose)) > 60
