"""Adapters against the ``peft`` library itself."""

import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vgen_jax.convert.lora import CONFIG, WEIGHTS, load_peft, save_peft
from vgen_jax.convert.rules import CONV, LINEAR, TEMPORAL_CONV, Rule
from vgen_jax.nn.lora import Lora, LoraConfig, init_lora, merge
from vgen_jax.types import Array, VgenError

torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[convert]'")
peft = pytest.importorskip("peft", reason="peft is not installed: pip install peft")

RULES = (
    Rule("block.spatial", "conv", CONV),
    Rule("block.time", "temporal", TEMPORAL_CONV),
    Rule("out", "dense", LINEAR),
)
X = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype(np.float32)


class Ours(nn.Module):
    """A strided 3×3 convolution, a temporal one and a matrix."""

    @nn.compact
    def __call__(self, x_TNC: Array) -> Array:
        x = nn.Conv(6, (3, 3), (2, 2), ((1, 1), (1, 1)), name="conv")(x_TNC)
        x = x.reshape(1, x.shape[0], -1, 6)
        x = nn.Conv(6, (3, 1), padding=((1, 1), (0, 0)), name="temporal")(x)
        return nn.Dense(4, name="dense")(x)


class Theirs(torch.nn.Module):
    """The same, as its original would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.block = torch.nn.ModuleDict(
            {
                "spatial": torch.nn.Conv2d(3, 6, 3, 2, 1),
                "time": torch.nn.Conv3d(6, 6, (3, 1, 1), padding=(1, 0, 0)),
            }
        )
        self.out = torch.nn.Linear(6, 4)

    def forward(self, x: Any) -> Any:
        x = self.block["spatial"](x)  # (T, C, H, W)
        x = self.block["time"](x.movedim(0, 1)[None])[0]  # (C, T, H, W)
        return self.out(x.movedim(0, -1).flatten(1, 2))[None]


@pytest.fixture(scope="module")
def theirs() -> Any:
    torch.manual_seed(0)
    return Theirs()


@pytest.fixture(scope="module")
def params(theirs: Any) -> Any:
    """Their weights as ours."""
    w = {name: value.detach().numpy() for name, value in theirs.named_parameters()}
    return {
        "conv": {"kernel": w["block.spatial.weight"].transpose(2, 3, 1, 0), "bias": w["block.spatial.bias"]},
        "temporal": {"kernel": w["block.time.weight"][..., 0].transpose(2, 3, 1, 0), "bias": w["block.time.bias"]},
        "dense": {"kernel": w["out.weight"].T, "bias": w["out.bias"]},
    }


def random_lora(params: Any, targets: str = "") -> Lora:
    rng = np.random.default_rng(1)
    lora = init_lora(params, LoraConfig(2, 6.0, targets), jax.random.key(0))
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), lora)


def run_ours(params: Any) -> np.ndarray:
    return np.asarray(Ours().apply({"params": params}, X))


def run_theirs(module: Any) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(X).movedim(-1, 1)).numpy()


@pytest.mark.parametrize("targets", ["", "temporal", "conv|dense"])
def test_peft_computes_the_same_with_our_file(theirs: Any, params: Any, tmp_path: Path, targets: str) -> None:
    np.testing.assert_allclose(run_ours(params), run_theirs(theirs), atol=1e-5)
    lora = random_lora(params, targets)
    save_peft(tmp_path, lora, RULES)
    module = Theirs()
    module.load_state_dict(theirs.state_dict())
    adapted = peft.PeftModel.from_pretrained(module, str(tmp_path))
    np.testing.assert_allclose(run_theirs(adapted), run_ours(merge(params, lora)), rtol=1e-4, atol=1e-4)
    again = load_peft(tmp_path, params, RULES)
    assert again.scale == lora.scale == 3.0
    jax.tree.map(np.testing.assert_array_equal, again, lora)


def test_we_compute_the_same_with_their_file(theirs: Any, params: Any, tmp_path: Path) -> None:
    module = Theirs()
    module.load_state_dict(theirs.state_dict())
    config = peft.LoraConfig(r=3, lora_alpha=12, target_modules=["block.spatial", "block.time", "out"])
    adapted = peft.get_peft_model(module, config)
    for name, value in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(value)
    adapted.save_pretrained(str(tmp_path))
    lora = load_peft(tmp_path, params, RULES)
    assert lora.scale == 4.0 and set(lora.weights) == {"conv", "temporal", "dense"}
    np.testing.assert_allclose(run_ours(merge(params, lora)), run_theirs(adapted), rtol=1e-4, atol=1e-4)


def test_a_network_of_ours_keeps_its_names(params: Any, tmp_path: Path) -> None:
    deep = {"level": params}
    lora = random_lora(deep)
    save_peft(tmp_path, lora)
    jax.tree.map(np.testing.assert_array_equal, load_peft(tmp_path, deep), lora)
    assert json.loads((tmp_path / CONFIG).read_text())["target_modules"] == [
        "level.conv",
        "level.dense",
        "level.temporal",
    ]


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("config", "adapter_config.json is missing"),
        ("damaged", "is damaged"),
        ("dora", "has use_dora = True: only plain LoRA"),
        ("network", "has conv as .* wrong network"),
        ("layer", "which fits no layer of the network"),
        ("rules", "no layer for the adapter's temporal"),
    ],
)
def test_what_does_not_fit_is_named(params: Any, tmp_path: Path, fault: str, named: str) -> None:
    save_peft(tmp_path, random_lora(params))
    changed = dict(params)
    if fault == "config":
        (tmp_path / CONFIG).unlink()
    elif fault == "damaged":
        (tmp_path / WEIGHTS).write_bytes(b"no")
    elif fault == "dora":
        raw = json.loads((tmp_path / CONFIG).read_text())
        (tmp_path / CONFIG).write_text(json.dumps({**raw, "use_dora": True}))
    elif fault == "network":
        changed["conv"] = {"kernel": np.zeros((3, 3, 4, 6))}
    elif fault == "layer":
        del changed["conv"]
    with pytest.raises(VgenError, match=named) as error:
        if fault == "rules":
            save_peft(tmp_path, random_lora(params), RULES[::2])
        load_peft(tmp_path, changed)
    assert "\n" not in str(error.value)
