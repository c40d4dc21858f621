"""A text-to-video model, converted or fine-tuned, as a slow model: what ``worlds.slow.load_slow_model`` reads of it.

The folder is that of ``convert.exports``: ``unet``, ``vae``, ``text_encoder``, ``tokenizer`` and ``scheduler``. A
fine-tuned one has beside them the model's definition (``config.json``), what its data were like (``dataset.json``) and
its texts' embeddings. Of one that was only converted the definition follows from its parts: it is a slow model that
goes by text alone.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from vgen_jax.convert import clip, exports, files, kl_vae, modelscope, schedulers
from vgen_jax.data.records import INFO_FILE
from vgen_jax.data.schema import DatasetInfo
from vgen_jax.types import Params, VgenError
from vgen_jax.worlds.slow_networks import NO_WARP

TEXTS_FILE = "texts.safetensors"
WINDOW = (8, 8)  # of a model that was never shown a past: together as many frames as ModelScopeT2V's clips
FPS = 8.0  # of ModelScopeT2V's clips
TEXT_BYTES = 256  # longest text
CLIP_TOKENS = 77  # of a text, as CLIP reads it
# Fields of the UNet that a slow model's definition has; the others must be the network's defaults.
SHAPE = ("block_channels", "attention_levels", "layers_per_block", "head_dim", "norm_groups", "transformer_in_heads")
FIXED: dict[str, Any] = {"up_attention_levels": None, "norm_eps": 1e-5}


def is_pretrained(folder: Path) -> bool:
    """Whether a folder is that of a whole text-to-video model in this library's form."""
    return exports.is_export(folder / modelscope.PART, exports.UNET)


def load(folder: Path) -> tuple[Params, dict[str, Any], DatasetInfo]:
    """Parameters, definition (``slow`` and ``windows``) and data of a text-to-video model's folder.

    The parameters are as they are stored, NumPy arrays; ``text`` is the table of a fine-tuned model's texts.

    Raises:
        VgenError: if a file is missing or damaged, or the network is not one that a slow model can have.
    """
    _, unet = exports.read(folder / modelscope.PART, (exports.UNET,))
    params: dict[str, Any] = {"unet": unet}
    if (folder / TEXTS_FILE).is_file():
        params["text"] = read_texts(folder)
    if (folder / files.CONFIG).is_file():
        raw = exports.read_config(folder, ("slow", "windows"))
        return params, raw, DatasetInfo.from_json(_text(folder / INFO_FILE), str(folder / INFO_FILE))
    dtype = unet["conv_in"]["kernel"].dtype.name
    raw = {"slow": definition(folder, dtype, "none"), "windows": [list(WINDOW)]}
    return params, raw, _data_of(folder)


def definition(folder: Path, dtype: str, remat: str) -> dict[str, Any]:
    """The fields of ``worlds.slow_networks.SlowConfig`` that follow from a text-to-video model's parts, for a model
    that goes by text alone.

    Args:
        folder: in this library's form.
        dtype, remat: of the UNet.

    Raises:
        VgenError: if it is no such folder, or its UNet is not one that a slow model can have.
    """
    path = folder / modelscope.PART
    if not is_pretrained(folder):
        raise VgenError(
            f"{folder} is no converted model: run --config=configs/convert.py:modelscope on it first, and name the "
            "folder 'export' that this writes"
        )
    unet = exports.read_config(path, (exports.UNET,))[exports.UNET]
    for field, only in FIXED.items():
        if field in unet and unet[field] != only:
            raise VgenError(f"{path} has {field} {unet[field]}: a slow model can only have {only}")
    if unet["in_channels"] != unet["out_channels"]:
        raise VgenError(f"{path} has in_channels {unet['in_channels']}: only as many as out_channels can be")
    if unet["cross_attention_dim"] is None:
        raise VgenError(f"{path} has no cross_attention_dim: only a network that reads text can be used here")
    scheduler = schedulers.load_scheduler(folder)
    return {
        "unet": {**{key: unet[key] for key in SHAPE}, "scale_shift": False, "remat": remat, "dtype": dtype},
        "text": {"width": unet["cross_attention_dim"], "layers": 0, "heads": 0, "max_length": TEXT_BYTES},
        "schedule": scheduler.schedule,
        "masking": {"past_t": "shared", "augment_past": 0.0, "reference": False},
        "warp": dataclasses.asdict(NO_WARP),
        "kind": scheduler.kind,
        "actions": "none",
        "action_dim": 0,
        "latent_channels": unet["in_channels"],
    }


def _data_of(folder: Path) -> DatasetInfo:
    """What stands for the data of a model that was trained elsewhere."""
    raw = exports.read_config(folder / kl_vae.PART, (exports.AUTOENCODER,))[exports.AUTOENCODER]
    side = modelscope.sample_size(folder) * raw["patch"] * 2 ** (len(raw["block_channels"]) - 1)
    return DatasetInfo(
        source="pretrained", simulator="none", simulator_version="", fps=FPS, frame_shape=(side, side, 3),
        content="frames", chunk=WINDOW[1], action_spaces={}, commands=(), splits={},
    )  # fmt: skip


def _text(path: Path) -> str:
    if not path.is_file():
        raise VgenError(f"{path} is missing: export the model again")
    return path.read_text()


def write_texts(folder: Path, table: Mapping[str, np.ndarray]) -> None:
    """Writes a table of texts (``models.text.looked_up``)."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{TEXTS_FILE}.partial"
    safetensors.numpy.save_file(dict(table), partial)
    partial.replace(folder / TEXTS_FILE)


def read_texts(folder: Path) -> dict[str, np.ndarray]:
    """The table that ``write_texts`` wrote.

    Raises:
        VgenError: if it is missing or damaged.
    """
    path = folder / TEXTS_FILE
    if not path.is_file():
        raise VgenError(f"{path} is missing: run embed_texts first")
    try:
        table = safetensors.numpy.load_file(path)
        return {"token": table["token"], "embedding": table["embedding"]}
    except (safetensors.SafetensorError, KeyError) as error:
        raise VgenError(f"{path} is damaged ({str(error):.80}): run embed_texts again") from error


PARTS_KEPT = (kl_vae.PART, clip.PART, clip.TOKENIZER_PART, schedulers.PART)  # by a fine-tuning, as they are
