"""ModelScopeT2V's UNet equals diffusers' in both directions."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from diffusers import UNet3DConditionModel

from tests import tiny
from tests.convert import originals
from tests.convert.originals import normal
from vgen_jax.convert.files import Stored, read_weights, write_folder
from vgen_jax.convert.modelscope import PART, load_unet, save_unet, unet_rules
from vgen_jax.convert.rules import entries, flat_shapes
from vgen_jax.models.unet_latent import UNet3D
from vgen_jax.types import Params, VgenError

TEXT = 6


@dataclasses.dataclass(frozen=True)
class Case:
    """An original and an input for it: batch, frames, height, width."""

    down: tuple[bool, ...]
    up: tuple[bool, ...]
    shape: tuple[int, int, int, int]
    fields: dict[str, Any]


# fmt: off
CASES = {
    "narrow": Case((True, True, True, False), (False, True, True, True), (2, 5, 8, 16), {
        "block_out_channels": (8, 16, 16, 16), "layers_per_block": 2, "norm_num_groups": 4, "attention_head_dim": 4,
    }),
    # 2 and 4 heads: to take ``attention_head_dim`` for a number of heads gives another result.
    "modelscope": Case((True, False), (False, True), (2, 16, 4, 6), {
        "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4,
    }),
    # A head that divides no width, transformers on other levels up than down, odd sizes, another epsilon.
    "odd": Case((True, False), (True, False), (2, 1, 5, 7), {
        "block_out_channels": (8, 12), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 5,
        "norm_eps": 1e-2,
    }),
    "one level, no text": Case((False,), (False,), (1, 16, 3, 2), {
        "block_out_channels": (8,), "layers_per_block": 3, "norm_num_groups": 2, "attention_head_dim": 8,
        "cross_attention_dim": None, "in_channels": 3, "out_channels": 5,
    }),
}
# fmt: on
QUICK = "one level, no text"


def mark(name: str) -> pytest.MarkDecorator:
    """Four levels take several times as long as two."""
    return pytest.mark.long if len(CASES[name].down) > 2 else pytest.mark.slow


def original(case: Case) -> UNet3DConditionModel:
    return originals.unet(case.down, case.up, **{"cross_attention_dim": TEXT, **case.fields})


def inputs(case: Case, channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    batch = case.shape[0]
    return normal(*case.shape, channels), np.asarray([999, 3][:batch]), normal(batch, 7, TEXT, seed=1)


def predict(config: dict[str, Any], params: Params, *args: np.ndarray) -> np.ndarray:
    """The network's output; text only where it takes any."""
    taken = args if config["cross_attention_dim"] else args[:2]
    return np.asarray(tiny.jit(UNet3D(**config).apply)({"params": params}, *taken))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[UNet3DConditionModel, Path]:
    """The quick original and its folder."""
    folder = tmp_path_factory.mktemp("unet")
    model = original(CASES[QUICK])
    model.save_pretrained(folder)
    return model, folder


@pytest.mark.parametrize("name", [pytest.param(name, marks=mark(name)) for name in CASES])
def test_parity_in_both_directions(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model = original(case)
    folder = tmp_path / "theirs" / PART
    model.save_pretrained(folder)
    x, t, text = inputs(case, model.config.in_channels)
    run = lambda model: originals.run(lambda *args: model(*args).sample, x, t, text)  # noqa: E731
    config, params = load_unet(tmp_path / "theirs")
    assert originals.error(predict(config, params, x, t, text), run(model)) < originals.TOLERANCE

    save_unet(config, params, tmp_path / "ours", sample_size=24)
    assert originals.weights_of(tmp_path / "ours").read_bytes() == originals.weights_of(folder).read_bytes()
    ours, theirs = (UNet3DConditionModel.from_pretrained(path) for path in (tmp_path / "ours", folder))
    changed = {key for key, value in theirs.config.items() if not key.startswith("_") and ours.config[key] != value}
    assert changed == {"sample_size"} and ours.config.sample_size == 24
    np.testing.assert_array_equal(run(ours), run(theirs))


@pytest.mark.slow
def test_the_default_is_the_original_name_for_name() -> None:
    with torch.device("meta"):
        model = UNet3DConditionModel()
    module = UNet3D()
    arguments = (np.zeros((1, 1, 8, 8, 4)), np.zeros(1, int), np.zeros((1, 1, 1024)))
    shapes = flat_shapes(jax.eval_shape(module.init, jax.random.key(0), *arguments)["params"])
    found, uncovered = entries(unet_rules(4), shapes)
    assert {name: entry.shape for name, entry in found.items()} == {
        n: tuple(p.shape) for n, p in model.state_dict().items()
    }
    assert not uncovered and sum(int(np.prod(entry.shape)) for entry in found.values()) == 1_411_233_860


@pytest.mark.parametrize("form", ["fp16", "shards", "bin"])
def test_other_forms_of_the_same_weights(saved: tuple[UNet3DConditionModel, Path], form: str, tmp_path: Path) -> None:
    model, folder = saved
    want: Any = load_unet(folder)[1]
    if form == "shards":
        model.save_pretrained(tmp_path, max_shard_size="100KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
    elif form == "bin":
        model.save_pretrained(tmp_path, safe_serialization=False)
    else:
        original(CASES[QUICK]).half().save_pretrained(tmp_path, variant="fp16")
        want = jax.tree.map(lambda p: p.astype(np.float16).astype(np.float32), want)
    jax.tree.map(np.testing.assert_array_equal, load_unet(tmp_path)[1], want)


def damage(folder: Path, into: Path, change: Callable[[dict[str, Stored]], dict[str, Stored]]) -> Path:
    write_folder(into, json.loads((folder / "config.json").read_text()), change(read_weights(folder)), "model")
    return into


def test_wrong_weights_are_refused_in_one_line(saved: tuple[UNet3DConditionModel, Path], tmp_path: Path) -> None:
    name = "down_blocks.0.resnets.0.conv1.bias"
    short = Stored((7,), np.dtype(np.float32), lambda: np.zeros(7, np.float32))
    changes: dict[str, Callable[[dict[str, Stored]], dict[str, Stored]]] = {
        f"1 missing: {name}; 1 unexpected: renamed": lambda t: {k if k != name else "renamed": v for k, v in t.items()},
        f"1 of another shape: {name} is .7,., not .8,.": lambda t: {**t, name: short},
        f"1 missing: {name}.:": lambda t: {k: v for k, v in t.items() if k != name},
    }
    for i, (named, change) in enumerate(changes.items()):
        with pytest.raises(VgenError, match=named) as caught:
            load_unet(damage(saved[1], tmp_path / str(i), change))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [100, -5])
def test_truncated_weights_are_refused(saved: tuple[UNet3DConditionModel, Path], keep: int, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((saved[1] / "config.json").read_bytes())
    originals.weights_of(tmp_path).write_bytes(originals.weights_of(saved[1]).read_bytes()[:keep])
    with pytest.raises(VgenError, match="diffusion_pytorch_model.safetensors is truncated or damaged"):
        load_unet(tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "is of a UNet2DConditionModel"),
        ({"strange": 1}, "has 'strange'"),
        ({"act_fn": "mish"}, "has act_fn 'mish': only 'silu' or 'swish'"),
        ({"downsample_padding": 0}, "downsample_padding 0: only 1"),
        ({"attention_head_dim": [4, 8]}, "attention_head_dim .4, 8.: only one number"),
        ({"norm_num_groups": None}, "norm_num_groups None"),
        ({"down_block_types": ["DownBlock3D", "DownBlockMotion"]}, "has down_block_types"),
        ({"up_block_types": ["UpBlock3D", "UpBlock3D"]}, "has up_block_types"),
    ],
)
def test_what_cannot_be_expressed_is_named(changes: dict[str, Any], named: str, saved: Any, tmp_path: Path) -> None:
    config = json.loads((saved[1] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(VgenError, match=named) as caught:
        load_unet(tmp_path)
    assert "\n" not in str(caught.value) and "config.json" in str(caught.value)


@pytest.mark.parametrize("changes", [{"action_dim": 2}, {"scale_shift": True}, {"transformer_in_heads": 4}])
def test_what_diffusers_lacks_is_not_saved(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(VgenError, match=f"a UNet with {next(iter(changes))} "):
        save_unet(changes, {}, tmp_path / "new")
    assert not (tmp_path / "new").exists()
