"""What is compared with what, on rollouts that take as long as the test says."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.bench import fast_learning
from configs.slow import modelscope
from vgen_jax.bench import fast_learning as bench
from vgen_jax.bench.fast_learning import (
    FastBenchmarkConfig,
    MemoryCost,
    TimedRollout,
    interleaved,
    largest_program_mib,
    markdown,
    model_of,
    named,
    play,
    timed_rollout,
)
from vgen_jax.config import section
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.models.unet_latent import UNet3D
from vgen_jax.nn.lora import LoraConfig, init_lora
from vgen_jax.runs import fast_benchmark
from vgen_jax.types import VgenError
from vgen_jax.worlds.memories import MemoryConfig


class Clock:
    """Stands still but for ``advance``."""

    def __init__(self) -> None:
        self.now, self.cpu = 0.0, 0.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.cpu


class Files:
    """Takes a second per chunk to write."""

    def __init__(self, clock: Clock):
        self.clock, self.closed = clock, False

    def add(self, view: object, text: str) -> None:
        self.clock.now += 1.0

    def close(self) -> None:
        self.closed = True


def lane(clock: Clock, name: str, times: Iterator[float], order: list[str]) -> TimedRollout:
    def chunks() -> Iterator[SimpleNamespace]:
        for seconds in times:
            order.append(name)
            clock.now += seconds
            clock.cpu += 2 * seconds
            yield SimpleNamespace(step=SimpleNamespace(frames_BTHWC=None, text="go"), state=())

    return TimedRollout(chunks(), Files(clock), lambda: (1, 1))


def test_the_median_of_chunks_that_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = Clock(), []
    monkeypatch.setattr(bench, "time", clock)
    compile_first = [100.0] * 2
    lanes = {
        "none": lane(clock, "none", itertools.chain(compile_first, [1.0, 50.0, 2.0, 3.0, 2.0]), order),
        "temp_lora": lane(clock, "temp_lora", itertools.chain(compile_first, [4.0] * 5), order),
    }
    times = interleaved(lanes, 5, 2)
    assert times == {"none": (3.0, 4.0), "temp_lora": (5.0, 8.0)}
    assert order[4:] == ["temp_lora", "none", "none", "temp_lora"] * 2 + ["temp_lora", "none"]
    assert all(x.videos.closed for x in lanes.values())


def test_what_a_program_needs_beside_its_arguments_is_counted() -> None:
    """A sorted table, which neither argument nor result shows."""
    side = 2048
    program = jax.jit(lambda x: jnp.sort(jnp.sin(x[:, None] * x[None]), axis=0)[5].sum())
    program(jnp.arange(float(side)))
    assert largest_program_mib() >= side**2 * 4 / 2**20


def test_ratios_are_to_none() -> None:
    costs = {
        "none": MemoryCost(2.0, 4.0, 100.0, 200.0, 10.0, 20.0),
        "temp_lora": MemoryCost(3.0, 5.0, 110.0, 300.0, 40.0, 50.0),
    }
    results = named(costs)
    assert results["seconds_ratio/temp_lora"] == 1.5 and results["peak_mib_ratio/temp_lora"] == 1.1
    assert results["held_mib_ratio/temp_lora"] == 4.0 and "seconds_ratio/none" not in results
    told = {
        "peak_is_of": "the process", "sampler": "ddim 25 steps", "videos": 1, "chunks": 5, "device": "cpu", "cores": 2,
        "load_average_before": 0.5,
    }  # fmt: skip
    text = markdown(costs, told)
    assert "| temp_lora | 3.000 | 1.500 | 5.000 | 1.250 | 110.000 | 1.100 | 300.000 | 1.500 | 40.000 | 4.000 |" in text
    assert "| 50.000 | 2.500 |\n" in text


@pytest.mark.parametrize("variant", fast_learning.VARIANTS)
def test_what_has_nothing_to_be_compared_with_is_refused(tmp_path: Path, variant: str) -> None:
    config = ConfigDict(fast_learning.get_config(variant).to_dict())
    del config.memories["none"]
    with pytest.raises(VgenError, match="memories lacks 'none'"):
        fast_benchmark.run(config, tmp_path)


@pytest.mark.parametrize(
    ("variant", "layers"), [("plain", 1), ("modelscope", modelscope.FULL[0]["unet"]["layers_per_block"])]
)
def test_the_last_layer_is_that_of_the_network(variant: str, layers: int) -> None:
    """The way up has a layer more than the way down; the text of a target says nothing of that."""
    targets = fast_learning.get_config(variant).memories.temp_lora_last.temp_lora.lora.targets
    small = {"head_dim": 4, "norm_groups": 2, "transformer_in_heads": 1}
    unet = UNet3D(4, 4, (8, 8), (False, False), layers_per_block=layers, cross_attention_dim=None, **small)
    params = jax.eval_shape(unet.init, jax.random.key(0), np.zeros((1, 2, 4, 4, 4)), np.zeros(1, int))["params"]
    layer = f"up_0_layer_{layers}"
    assert f"up_0_layer_{layers + 1}" not in params
    adapted = init_lora(params, LoraConfig(2, 0.0, targets), jax.random.key(0)).weights
    assert set(adapted) == {f"{layer}/temp_conv/conv{n}" for n in range(1, 5)}


def test_a_made_model_of_modelscopes_kind_plays(tmp_path: Path) -> None:
    """The full network's sections, on a small one."""
    config = fast_learning.get_config("modelscope_attention").to_dict()
    slow, autoencoder = modelscope.TINY
    slow = {**slow, "unet": {**slow["unet"], "dtype": "float32"}}
    raw = {**config, "made": {**config["made"], "slow": slow, "autoencoder": autoencoder, "height": 16, "width": 16}}
    model = model_of(raw)
    kernels = [leaf for leaf in jax.tree.leaves(model.params["unet"]) if leaf.ndim > 1]
    assert all(0.5 < float(leaf.std()) * np.sqrt(np.prod(leaf.shape[:-1])) < 2.0 for leaf in kernels if leaf.size > 99)
    settings = FastBenchmarkConfig(**{**raw["benchmark"], "guidance": 1.0})
    assert set(raw["memories"]) == {"none", "temp_lora_attention"}
    for name in ("none", "temp_lora_attention"):
        memory = section(MemoryConfig, raw["memories"][name], name)
        lane = timed_rollout(model, settings, Sampler("ddim", 1), memory, tmp_path / name)
        seconds, _ = play(lane)
        chunk = next(lane.chunks)
        lane.videos.close()
        assert seconds > 0 and np.isfinite(chunk.state.past.frames_BTHWC).all()
        assert lane.compilations() == (1, 0 if name == "none" else 1)
        if name != "none":
            layers = set(chunk.state.memory.lora.weights)
            assert layers and all("attn" in layer for layer in layers)
            assert any(np.abs(weights["b"]).max() > 0 for weights in chunk.state.memory.lora.weights.values())
