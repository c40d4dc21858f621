"""Stable Diffusion's autoencoder equals diffusers' in both directions."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
from diffusers import AutoencoderKL as Original

from tests import tiny
from tests.convert import originals
from tests.convert.originals import normal
from vgen_jax.convert import kl_vae
from vgen_jax.convert.rules import entries, flat_shapes
from vgen_jax.models.autoencoder_kl import AutoencoderKL
from vgen_jax.types import VgenError

# (fields, frames, height, width); the first is the real layout, narrowed.
CASES: list[tuple[dict[str, Any], tuple[int, int, int]]] = [
    ({"block_out_channels": (8, 16, 16, 16), "layers_per_block": 2, "norm_num_groups": 4}, (2, 16, 24)),
    ({"block_out_channels": (12, 6), "norm_num_groups": 3, "latent_channels": 7}, (5, 4, 2)),
    (
        {"block_out_channels": (6,), "layers_per_block": 3, "norm_num_groups": 2, "in_channels": 1, "out_channels": 1},
        (1, 3, 5),
    ),
]
QUICK: dict[str, Any] = {"block_out_channels": (4, 8), "norm_num_groups": 2, "scaling_factor": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize(("fields", "shape"), CASES)
def test_parity_in_both_directions(fields: dict[str, Any], shape: tuple[int, int, int], tmp_path: Path) -> None:
    model = originals.vae(**fields)
    model.save_pretrained(tmp_path / "theirs" / "vae")
    config, params = kl_vae.load(tmp_path / "theirs")
    module = AutoencoderKL(**config)
    encode, decode = (tiny.jit(partial(module.apply, method=name)) for name in ("encode", "decode"))
    x = normal(*shape, model.config.in_channels)
    z = normal(shape[0], shape[1] // module.factor, shape[2] // module.factor, model.config.latent_channels)

    def compare(params: Any, model: Original) -> None:
        mean, log_variance = encode({"params": params}, x)
        for ours, theirs in (
            (mean, originals.run(lambda x: model.encode(x).latent_dist.mean, x)),
            (log_variance, originals.run(lambda x: model.encode(x).latent_dist.logvar, x)),
            (decode({"params": params}, z), originals.run(lambda z: model.decode(z).sample, z)),
        ):
            assert originals.error(ours, theirs) < originals.TOLERANCE

    compare(params, model)
    kl_vae.save(config, params, tmp_path / "back", scaling_factor=0.3, sample_size=64)
    theirs = originals.weights_of(tmp_path / "theirs" / "vae")
    assert originals.weights_of(tmp_path / "back").read_bytes() == theirs.read_bytes()
    back = Original.from_pretrained(tmp_path / "back")
    assert (back.config.scaling_factor, back.config.sample_size) == (0.3, 64)
    rng = np.random.default_rng(3)
    ours = jax.tree.map(lambda p: (p + 0.1 * rng.normal(size=p.shape)).astype(np.float32), params)
    kl_vae.save(config, ours, tmp_path / "ours")
    compare(ours, Original.from_pretrained(tmp_path / "ours").eval())


def test_the_default_is_the_original_name_for_name() -> None:
    with torch.device("meta"):
        model = Original(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=[kl_vae.DOWN_BLOCK] * 4,
            up_block_types=[kl_vae.UP_BLOCK] * 4,
        )
    shapes = jax.eval_shape(AutoencoderKL().init, jax.random.key(0), np.zeros((1, 8, 8, 3)))["params"]
    found, uncovered = entries(kl_vae.vae_rules(4), flat_shapes(shapes))
    assert {name: entry.shape for name, entry in found.items()} == {
        n: tuple(p.shape) for n, p in model.state_dict().items()
    }
    assert not uncovered and sum(int(np.prod(entry.shape)) for entry in found.values()) == 83_653_863


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    originals.vae(**QUICK).save_pretrained(folder)
    return folder


def rewritten(folder: Path, into: Path, config: dict[str, Any], names: dict[str, str]) -> Path:
    """A copy with keys of the config changed and parts of the tensors' names replaced."""
    raw = json.loads((folder / "config.json").read_text())
    (into / "config.json").write_text(json.dumps({**raw, **config}))
    tensors = safetensors.numpy.load_file(originals.weights_of(folder))
    for old, new in names.items():
        tensors = {name.replace(old, new): array for name, array in tensors.items()}
    safetensors.numpy.save_file(tensors, originals.weights_of(into))
    return into


def test_published_checkpoints_call_the_attention_by_other_names(saved: Path, tmp_path: Path) -> None:
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    folder = rewritten(saved, tmp_path, {}, old)
    jax.tree.map(np.testing.assert_array_equal, kl_vae.load(folder)[1], kl_vae.load(saved)[1])


def test_a_renamed_key_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = rewritten(saved, tmp_path, {}, {"encoder.conv_in.bias": "encoder.conv.bias"})
    with pytest.raises(VgenError, match="1 missing: encoder.conv_in.bias; 1 unexpected: encoder.conv.bias"):
        kl_vae.load(folder)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"out_channels": 4}, "in_channels 3: only out_channels 4"),
        ({"use_quant_conv": False}, "use_quant_conv False"),
        ({"mid_block_add_attention": False}, "mid_block_add_attention False"),
        ({"up_block_types": ["AttnUpDecoderBlock2D"] * 2}, "up_block_types .*only 2 times UpDecoderBlock2D"),
        ({"_class_name": "VQModel"}, "is of a VQModel"),
        ({"latent_channels": 5}, "of another shape: "),
    ],
)
def test_what_does_not_fit_is_named(config: dict[str, Any], named: str, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(VgenError, match=named) as caught:
        kl_vae.load(rewritten(saved, tmp_path, config, {}))
    assert "\n" not in str(caught.value)


def test_the_scale_of_the_latents(saved: Path, tmp_path: Path) -> None:
    assert kl_vae.scaling_factor(saved) == 0.5
    raw = json.loads((saved / "config.json").read_text())
    del raw["scaling_factor"]  # as Stable Diffusion's first checkpoints
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert kl_vae.scaling_factor(tmp_path) == 0.18215


@pytest.mark.parametrize("changes", [{"patch": 2}, {"linear_path": True}])
def test_what_diffusers_lacks_is_not_saved(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(VgenError, match="cannot be saved for diffusers"):
        kl_vae.save(changes, {}, tmp_path / "new")
