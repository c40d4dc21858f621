"""The benchmark against PyTorch: that both sides are the same network, and what is made of the times."""

import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import traverse_util

from configs.bench import peers as configs
from tests import tiny
from vgen_jax.bench.peers import timing
from vgen_jax.bench.peers.pixel_unet import PixelUNet
from vgen_jax.bench.peers.settings import PeerConfig, TimedCall
from vgen_jax.bench.peers.timing import CallCost, interleaved, named, table_lines
from vgen_jax.devices.chips import Chip
from vgen_jax.models import unet_pixel
from vgen_jax.runs import peer_benchmark
from vgen_jax.types import VgenError

SHAPE = {"out_channels": 3, "dim": 8, "mults": (1, 2), "heads": 2, "head_dim": 8}
B, T, SIDE, CHANNELS = 2, 3, 8, 9


def torch_name(path: str) -> str:
    """A parameter of the JAX network by its name in PyTorch's."""
    name = path.removeprefix("path/").replace("step/mlp/", "step/").replace("time_bias/embedding", "time_bias")
    for way in ("down", "up"):
        for i in range(len(SHAPE["mults"])):
            # The first level has nothing to double; PyTorch's list begins with the second.
            name = name.replace(f"{way}_{i}_sample/conv", f"{way}_sample/{i}").replace(
                f"{way}_{i}_sample", f"{way}_sample/{i - 1}"
            )
            name = name.replace(f"{way}_{i}/", f"{way}/{i}/")
    return name.replace("/kernel", "/weight").replace("norm/scale", "norm/weight").replace("/", ".")


def test_the_pixel_twin_is_the_same_network() -> None:
    network = unet_pixel.PixelUNet(**SHAPE, actions="none")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(B, T, SIDE, SIDE, CHANNELS)).astype(np.float32)
    t = np.asarray([3, 170], np.int32)
    params = tiny.random_params(network.init, x, t)["params"]
    twin = PixelUNet(CHANNELS, T, **SHAPE)
    theirs = dict(twin.named_parameters())
    flat = {torch_name(k): v for k, v in traverse_util.flatten_dict(params, sep="/").items()}
    assert flat.keys() == theirs.keys()
    for name, value in flat.items():
        if value.ndim == 4:
            # A transposed convolution of PyTorch has its input channels first.
            value = value.transpose((2, 3, 0, 1) if name.startswith("up_sample") else (3, 2, 0, 1))
        elif value.ndim == 2 and name != "time_bias":
            value = value.T
        with torch.no_grad():
            theirs[name].copy_(torch.from_numpy(np.array(value)).reshape(theirs[name].shape))
    ours = tiny.jit(network.apply)({"params": params}, x, t)
    folded = torch.from_numpy(x).flatten(0, 1).permute(0, 3, 1, 2)
    with torch.no_grad():
        out = twin(folded, torch.from_numpy(t)).permute(0, 2, 3, 1).unflatten(0, (B, T)).numpy()
    np.testing.assert_allclose(out, ours, atol=1e-4 * np.abs(out).max())


@pytest.mark.long
@pytest.mark.parametrize("variant", ["modelscope_small", "pixel_small"])
def test_a_run_times_both_sides(variant: str, tmp_path: Path) -> None:
    config = configs.get_config(variant)
    config.unet.update({"mults": (1, 2)} if variant == "pixel_small" else {})
    config.peer.update({"batch": 1, "rounds": 1, "height": 8, "width": 8, "steps": 2})
    config.mesh.data = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: jax.local_devices()[:1])
        peer_benchmark.run(config.lock(), tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["parameters"] == found["parameters_of_peer"]
    for what in config.peer.what:
        assert found[f"{what}/PyTorch/seconds"] > 0 and found[f"{what}/vgen_jax/seconds"] > 0
    assert 2.5 < found["train/flops"] / found["forward/flops"] < 3.1
    rows = (tmp_path / peer_benchmark.TABLE_FILE).read_text().splitlines()
    assert len([row for row in rows if row.startswith("| train |")]) == 2


def test_sides_take_turns_after_their_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], []
    seconds = {"vgen_jax": iter([60.0, 9.0, 1.0, 2.0, 50.0]), "PyTorch": iter([30.0, 9.0, 3.0, 4.0, 5.0])}

    def lane(name: str) -> TimedCall:
        def call() -> None:
            now[0] += next(seconds[name])
            calls.append(name[0])

        return TimedCall(call, lambda: None)

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    costs = interleaved({name: lane(name) for name in seconds}, 3)
    assert costs == {"vgen_jax": CallCost(60.0, 2.0, None), "PyTorch": CallCost(30.0, 4.0, None)}
    assert "".join(calls) == "vPvPPvvPPv"


def test_ratios_and_mfu() -> None:
    costs = {"vgen_jax": CallCost(5.0, 0.5, 100.0), "PyTorch": CallCost(1.0, 1.0, None)}
    chip = Chip(flops=8e12, memory=1)
    found = named("train", costs, int(4e12), chip, 2)
    assert found["train/speed_over_pytorch"] == 2.0 and math.isclose(found["train/vgen_jax/mfu"], 0.5)
    ours, theirs = table_lines("train", costs, int(4e12), chip, 2)
    assert "| 500.0 | 2.00 | 5.0 | 8 | 50.0% | 100 |" in ours and "| 1.00 |" in theirs


@pytest.mark.parametrize(
    "changes", [{"network": "audio"}, {"what": ("sample",)}, {"rounds": 0}, {"network": "pixel", "what": ("generate",)}]
)
def test_what_cannot_be_timed_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(VgenError, match="peer\\."):
        PeerConfig(**{**configs.VARIANTS["modelscope_small"][0], **changes})


def test_every_variant_asks_for_what_it_names() -> None:
    for settings, _ in configs.VARIANTS.values():
        PeerConfig(**settings)
    cpu = configs.VARIANTS["vizdoom"][0]
    assert (cpu["frames"], cpu["height"], cpu["channels"]) == (6, 8, 64)
    assert jnp.dtype(configs.VARIANTS["pixel"][0]["dtype"]) == jnp.bfloat16
