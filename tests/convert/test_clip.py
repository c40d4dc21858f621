"""CLIP's text tower is transformers', in both directions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from tests import tiny
from tests.convert.originals import write_tokenizer
from vgen_jax.convert.clip import load_text, load_tokenizer, save_text
from vgen_jax.models.text import ClipTextEncoder
from vgen_jax.types import VgenError

TOLERANCE = 1e-5  # ‖a − b‖ / ‖b‖
END = 39
COMMON = {"vocab_size": 40, "max_position_embeddings": 12, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "modelscope": {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128,
        "hidden_act": "gelu", "projection_dim": 512,
    },
    "stable_diffusion": {
        "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 96,
        "hidden_act": "quick_gelu", "eos_token_id": END,
    },
    "odd": {
        "hidden_size": 7, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 5,
        "hidden_act": "quick_gelu", "layer_norm_eps": 0.01, "max_position_embeddings": 9, "vocab_size": 61,
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def original(name: str) -> CLIPTextModel:
    """Random in every entry, norms and biases included, large enough that nothing is lost in the residual."""
    model = CLIPTextModel(CLIPTextConfig(**{**COMMON, **CONFIGS[name]})).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        scale = parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.5
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale + (parameter.ndim == 1)
    return model


def texts(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Three texts of different lengths behind their end mark, padded, and where they are not padding."""
    token = np.random.default_rng(0).integers(3, END, (3, length))
    ends = np.asarray([length - 1, length // 2, 1])
    mask = np.arange(length) <= ends[:, None]
    token = np.where(np.arange(length) == ends[:, None], END, np.where(mask, token, 1))
    return token.astype(np.int32), mask


def outputs(model: CLIPTextModel, token: np.ndarray, mask: np.ndarray | None) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        out = model(torch.tensor(token).long(), attention_mask=None if mask is None else torch.tensor(mask).long())
    return out.last_hidden_state, out.pooler_output


def relative(a: Any, b: torch.Tensor) -> float:
    return float(np.linalg.norm(np.asarray(a) - b.numpy()) / np.linalg.norm(b.numpy()))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_embeddings_are_those_of_the_original(name: str, tmp_path: Path) -> None:
    model = original(name)
    model.save_pretrained(tmp_path)
    config, params = load_text(tmp_path)
    encoder = ClipTextEncoder(**config)
    full, mask = texts(config["max_length"])
    for token, shown in ((full, None), (full, mask), (full[:, -6:], None)):
        hidden, pooled = outputs(model, token, shown)
        found = tiny.jit(encoder.apply)({"params": params}, token, shown)
        assert relative(found, hidden) <= TOLERANCE
        assert relative(encoder.pool(found, token), pooled) <= TOLERANCE


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_saved_is_the_original(name: str, tmp_path: Path) -> None:
    model = original(name)
    model.save_pretrained(tmp_path / "a")
    save_text(*load_text(tmp_path / "a"), tmp_path / "b")
    again, report = CLIPTextModel.from_pretrained(tmp_path / "b", output_loading_info=True)
    assert not any(report.values()), report
    token, mask = texts(model.config.max_position_embeddings)
    for shown in (None, mask):
        for a, b in zip(outputs(again.eval(), token, shown), outputs(model, token, shown), strict=True):
            torch.testing.assert_close(a, b, rtol=0.0, atol=0.0)


def test_published_checkpoints_name_tensors_with_a_prefix_and_hold_the_positions(tmp_path: Path) -> None:
    model = original("odd")
    model.save_pretrained(tmp_path / "new")
    model.config.save_pretrained(tmp_path / "pipeline" / "text_encoder")
    old = {f"text_model.{name}": value for name, value in load_file(tmp_path / "new" / "model.safetensors").items()}
    old["text_model.embeddings.position_ids"] = torch.arange(9)[None]
    save_file(old, tmp_path / "pipeline" / "text_encoder" / "model.safetensors", {"format": "pt"})
    (config, params), (config_new, params_new) = load_text(tmp_path / "pipeline"), load_text(tmp_path / "new")
    assert config == config_new
    token, _ = texts(9)
    a, b = (tiny.jit(ClipTextEncoder(**config).apply)({"params": p}, token) for p in (params, params_new))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"model_type": "t5"}, "model_type 't5'"),
        ({"hidden_size": "wide"}, "hidden_size 'wide'"),
        ({"num_hidden_layers": 2}, "16 missing: text_model.encoder.layers.1"),
        ({"vocab_size": 62}, "token_embedding.weight is \\(61, 7\\), not \\(62, 7\\)"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    original("odd").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(VgenError, match=named) as caught:
        load_text(tmp_path)
    assert "\n" not in str(caught.value)


def test_texts_are_padded_and_cut_by_the_tokenizer_of_the_folder(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer", 6)
    tokens = load_tokenizer(tmp_path)(["Go a", "", "a b c d e f g h"])
    assert tokens.dtype == np.int32 and tokens.shape == (3, 6)
    a = 3 + 26
    np.testing.assert_array_equal(tokens[0], [0, 3 + 52, a, 1, 2, 2])
    np.testing.assert_array_equal(tokens[1], [0, 1, 2, 2, 2, 2])
    np.testing.assert_array_equal(tokens[2], [0, a, a + 1, a + 2, a + 3, 1])


def test_a_missing_or_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(VgenError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    write_tokenizer(tmp_path / "tokenizer", 6)
    (tmp_path / "tokenizer" / "vocab.json").write_text("{")
    with pytest.raises(VgenError, match="holds a damaged tokenizer") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
