"""CLIP's text tower and its tokenizer: transformers' ``CLIPTextModel`` to and from ``models.text.ClipTextEncoder``."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vgen_jax.convert import exports, files
from vgen_jax.convert.rules import EMBEDDING, LINEAR, NORM, TABLE, Rule, nest, to_original, to_ours
from vgen_jax.models.text import ACTIVATIONS, ClipTextEncoder
from vgen_jax.types import Params, VgenError

PART, TOKENIZER_PART = "text_encoder", "tokenizer"  # their folders in a text-to-video model
TOKENIZER_FILES = (
    "tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
CLASS, MODEL_TYPE = "CLIPTextModel", "clip_text_model"

Tokenizer = Callable[[Sequence[str]], np.ndarray]  # texts -> int32 tokens (B, L)

# transformers' name -> (field of ClipTextEncoder, the value where a config.json is silent)
FIELDS: dict[str, tuple[str, Any]] = {
    "vocab_size": ("vocabulary", 49408),
    "hidden_size": ("width", 512),
    "num_hidden_layers": ("layers", 12),
    "num_attention_heads": ("heads", 8),
    "intermediate_size": ("feed_forward", 2048),
    "max_position_embeddings": ("max_length", 77),
    "hidden_act": ("activation", "quick_gelu"),
    "layer_norm_eps": ("eps", 1e-5),
    "eos_token_id": ("end_token", 49407),
}
LAYER = (
    *(Rule(f"self_attn.{part}_proj", f"to_{part}", LINEAR) for part in ("q", "k", "v", "out")),
    *(Rule(f"layer_norm{n}", f"norm{n}", NORM) for n in (1, 2)),
    *(Rule(f"mlp.fc{n}", f"fc{n}", LINEAR) for n in (1, 2)),
)
TEXT_RULES = (
    Rule("text_model.embeddings.token_embedding", "token", EMBEDDING),
    Rule("text_model.embeddings.position_embedding", "position", TABLE),
    *nest("text_model.encoder.layers.{i}", "layer_{i}", LAYER),
    Rule("text_model.final_layer_norm", "norm", NORM),
)
# transformers 5 writes the names without the prefix and reads both; published checkpoints have it.
BARE_NAMES = {r"^(?=embeddings\.|encoder\.|final_layer_norm\.)": "text_model."}
NO_PARAMETERS = (r"text_model\.embeddings\.position_ids",)  # 0, 1, 2, ...: stored until transformers 4.31


def load_text(folder: str | Path, *, dtype: Any = np.float32) -> tuple[dict[str, Any], Params]:
    """A text tower from transformers: ``ClipTextEncoder(**config).apply({"params": params}, token_BL)``.

    Args:
        folder: the text tower's, its whole model's, or a model of the Hugging Face hub (``files.locate``); also what
            the run ``convert`` made of one.
        dtype: of the parameters, NumPy arrays in host memory.

    Raises:
        VgenError: if a file is missing or damaged, or does not fit the network.
    """
    path = files.locate(folder, PART)
    if exports.is_export(path, exports.TEXT):
        return exports.load(path, exports.TEXT, ClipTextEncoder, _expected, dtype)
    config = _from_original(files.read_json(path / files.CONFIG), path / files.CONFIG)
    params = to_ours(
        files.read_weights(path), TEXT_RULES, _expected(ClipTextEncoder(**config)), path,
        dtype=dtype, old_names=BARE_NAMES, ignored=NO_PARAMETERS,
    )  # fmt: skip
    return config, params


def save_text(config: Mapping[str, Any], params: Params, folder: str | Path) -> None:
    """Writes a text tower for ``transformers.CLIPTextModel.from_pretrained(folder)``.

    Args:
        config: fields of ``ClipTextEncoder``.

    Raises:
        VgenError: for parameters that are not the configuration's, or a folder that cannot be written.
    """
    module = ClipTextEncoder(**config)
    values = {name: getattr(module, field) for name, (field, _) in FIELDS.items()}
    # The special tokens are the tokenizer's business; transformers' defaults lie outside of a smaller vocabulary.
    special = {} if module.vocabulary > 49406 else {"bos_token_id": None, "pad_token_id": None}
    raw = {**values, **special, "architectures": [CLASS], "model_type": MODEL_TYPE, "projection_dim": module.width}
    files.write_folder(folder, raw, to_original(params, TEXT_RULES, _expected(module)), "model")


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer that belongs to a text tower, a function: texts -> int32 tokens (B, L).

    Texts are cut or padded to the tokenizer's length (77), as diffusers does.

    Args:
        folder: the tokenizer's, its whole model's, or a model of the Hugging Face hub (``files.locate``).

    Raises:
        VgenError: if transformers is not installed, or the folder holds no such tokenizer.
    """
    try:
        from transformers import CLIPTokenizer
    except ImportError as error:
        raise VgenError(f"CLIP's tokenizer needs the package transformers: {files.INSTALL}") from error
    path = tokenizer_folder(folder)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # transformers and its tokenizers raise what they please over a damaged file
        raise VgenError(f"{path} holds a damaged tokenizer ({error!r:.80}): download it again") from error

    def tokenize(texts: Sequence[str]) -> np.ndarray:
        return tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="np").input_ids.astype(
            np.int32
        )

    return tokenize


def text_embeddings(folder: str, texts: Sequence[str]) -> np.ndarray:
    """Embeddings of texts, float32 (N, L, D); the text tower is in memory during the call only.

    Raises:
        VgenError: if the folder's text tower or tokenizer cannot be loaded, or they do not belong together.
    """
    token_NL = load_tokenizer(folder)(texts)
    config, params = load_text(folder)
    if token_NL.max() >= config["vocabulary"]:
        raise VgenError(
            f"the tokenizer in {folder} has token {token_NL.max()}, its text tower only {config['vocabulary']}: "
            "use a tokenizer and a text tower that belong together"
        )
    embed = jax.jit(ClipTextEncoder(**config).apply)
    return np.concatenate([np.asarray(embed({"params": params}, token_L[None])) for token_L in token_NL])


def tokenizer_folder(folder: str | Path) -> Path:
    """Where the files of a text-to-video model's tokenizer lie.

    Raises:
        VgenError: if there are none.
    """
    path = files.locate(folder, TOKENIZER_PART)
    # transformers would make a tokenizer of no words from a folder without files.
    if not any((path / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise VgenError(f"{path} holds no tokenizer (tokenizer.json, or vocab.json and merges.txt): put it there")
    return path


def copy_tokenizer(folder: str | Path, target: str | Path) -> None:
    """Copies the files of a tokenizer, which are the same on both sides.

    Raises:
        VgenError: if there are none, or they cannot be written.
    """
    path, target = tokenizer_folder(folder), Path(target)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER_FILES:
            if (path / name).is_file():
                shutil.copyfile(path / name, target / name)
    except OSError as error:
        raise VgenError(f"could not copy {path} to {target} ({error.strerror}): mend that and convert again") from error


def _from_original(raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Fields of ``ClipTextEncoder`` from a config.json; keys that do not change the network are many and let be."""
    kind = raw["model_type"] if "model_type" in raw else MODEL_TYPE
    if kind != MODEL_TYPE:
        raise VgenError(f"{path} has model_type {kind!r}: give the folder of a {CLASS} ({MODEL_TYPE})")
    config = {}
    for name, (field, default) in FIELDS.items():
        value = raw[name] if name in raw else default
        if isinstance(value, bool) or not isinstance(value, type(default)):
            raise VgenError(f"{path} has {name} {value!r}: only a {type(default).__name__} can be converted")
        config[field] = value
    if config["activation"] not in ACTIVATIONS:
        raise VgenError(
            f"{path} has hidden_act {config['activation']!r}: only {' or '.join(ACTIVATIONS)} can be converted"
        )
    return config


def _expected(module: ClipTextEncoder) -> Any:
    token = jax.ShapeDtypeStruct((1, module.max_length), np.int32)
    return jax.eval_shape(module.init, jax.random.key(0), token)["params"]
