"""Folders of weights as diffusers and transformers lay them out.

Read, in this order: ``diffusion_pytorch_model`` or ``model`` as one ``.safetensors`` file, in shards with an index, or
the fp16 variant of either; then PyTorch's ``.bin``, through ``torch.load(weights_only=True)``, which runs no code from
the file. Tensors are read one by one when asked for, so a model never stands in memory twice.
"""

import functools
import json
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from vgen_jax.types import VgenError

CONFIG = "config.json"
STEMS = ("diffusion_pytorch_model", "model")
BIN_STEMS = ("diffusion_pytorch_model", "pytorch_model")
# What a download asks for until it has weights.
WEIGHTS = ((STEMS, ".safetensors"), (STEMS, ".fp16*.safetensors"), (BIN_STEMS, ".bin"))
INSTALL = "pip install 'vgen_jax[convert]'"
# The codes of the safetensors format.
DTYPES: dict[np.dtype, str] = {
    np.dtype(np.float64): "F64",
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(np.int64): "I64",
    np.dtype(np.int32): "I32",
}


class Stored(NamedTuple):
    """A tensor that is read when asked for."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


def locate(folder: str | Path, part: str) -> Path:
    """The local folder of one part of a model.

    Args:
        folder: a text-to-video model's folder that holds the folder ``part`` (``unet``, ``vae``, ...), or that part's
            own; or the name of either on the Hugging Face hub, ``owner/model`` or ``owner/model/part``, which is
            downloaded into the hub's cache.

    Raises:
        VgenError: if it is neither here nor to be had from the hub.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        path = _download(str(folder), part)
    return path / part if (path / part).is_dir() else path


def _download(name: str, part: str) -> Path:
    """A snapshot of a model on the hub, in the hub's cache, with the weights of ``part`` only."""
    pieces = name.split("/")
    if not 2 <= len(pieces) <= 3 or not all(pieces) or pieces[0] in (".", "..", "~"):
        raise VgenError(
            f"{name} is no folder: give one that has {CONFIG}, or a model of the Hugging Face hub, owner/model"
        )
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise VgenError(f"{name} is no folder, and the Hugging Face hub needs a package: {INSTALL}") from error
    repository = "/".join(pieces[:2])
    fetch = functools.partial(snapshot_download, repository)
    try:
        # Small files first: they tell whether the model is a whole one.
        root = Path(fetch(allow_patterns=["*.json", "*.txt"]))
        inside = pieces[2] if len(pieces) == 3 else part if (root / part).is_dir() else ""
        prefix = f"{inside}/" if inside else ""
        for stems, ending in WEIGHTS if (root / inside / CONFIG).is_file() else ():
            fetch(allow_patterns=[f"{prefix}{stem}{shard}{ending}" for stem in stems for shard in ("", "-*-of-*")])
            if _is_whole(root / inside):
                break
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise VgenError(
            f"{name} is neither a folder here nor to be had from the Hugging Face hub ({_first_line(error)}): put the "
            f"model's files into a folder and give that, or go online once so that the hub's cache holds it"
        ) from error
    return root / inside


def _is_whole(folder: Path) -> bool:
    """Whether the weights that would be read are there, all shards if an index names some."""
    path = _find(folder)
    if path is None or path.suffix != ".json":
        return path is not None
    return all((folder / name).is_file() for name in _shards(path))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        VgenError: if the file is missing or holds something else.
    """
    if not path.is_file():
        raise VgenError(f"{path} is missing: give the folder of a model as diffusers or transformers saves it")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise VgenError(f"{path} is damaged ({_first_line(error)}): download or save it again") from error
    if not isinstance(found, dict):
        raise VgenError(f"{path} holds no JSON object: download or save it again")
    return found


def read_config(
    folder: Path, class_name: str, defaults: Mapping[str, Any], only: Mapping[str, tuple[Any, ...]]
) -> dict[str, Any]:
    """A diffusers model's ``config.json``, with the defaults of its class where it is silent.

    Args:
        class_name: the class it has to be of.
        defaults: every key of that class with its default.
        only: the values that the network here can express, for keys where it cannot express all.

    Raises:
        VgenError: for another class, an unknown key, or a value that the network cannot express.
    """
    path = folder / CONFIG
    raw = read_json(path)
    found = raw["_class_name"] if "_class_name" in raw else class_name
    if found != class_name:
        raise VgenError(f"{path} is of a {found}: give the folder of a {class_name}")
    values = {**defaults, **{key: value for key, value in raw.items() if not key.startswith("_")}}
    for key, value in values.items():
        if key not in defaults:
            raise VgenError(f"{path} has '{key}', which no {class_name} has: remove it if it means nothing")
        if key in only and value not in only[key]:
            raise VgenError(f"{path} has {key} {value!r}: only {' or '.join(map(repr, only[key]))} can be converted")
    return values


def read_weights(folder: Path) -> dict[str, Stored]:
    """The tensors of a model's folder by name; nothing is read before a tensor's ``read``.

    Raises:
        VgenError: if there are no weights, or a file is truncated, damaged, or a pickle that holds code.
    """
    path = _find(folder)
    if path is None:
        tried = ", ".join(f"{stem}.safetensors" for stem in STEMS)
        raise VgenError(f"{folder} holds no weights ({tried}, their shards or fp16 variants): put them there")
    if path.suffix != ".json":
        return read_file(path)
    tensors: dict[str, Stored] = {}
    for name in _shards(path):
        if not (folder / name).is_file():
            raise VgenError(f"{folder / name} is missing, and {path.name} names it: download or save it again")
        tensors |= read_file(folder / name)
    return tensors


def read_file(path: Path) -> dict[str, Stored]:
    """The tensors of one file by name: ``.safetensors``, PyTorch's ``.bin``, ``.pth`` or ``.pt``, TorchScript archives.

    Raises:
        VgenError: if it is truncated, damaged, or a pickle that holds code.
    """
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_bin(path)


def _find(folder: Path) -> Path | None:
    """The file of weights or the index of its shards; safetensors before pickles, full precision before fp16."""
    names = []
    for variant in ("", ".fp16"):
        names += [f"{stem}{variant}.safetensors" for stem in STEMS]
        names += [f"{stem}.safetensors.index{variant}.json" for stem in STEMS]
    for variant in ("", ".fp16"):
        names += [f"{stem}{variant}.bin" for stem in BIN_STEMS]
        names += [f"{stem}.bin.index{variant}.json" for stem in BIN_STEMS]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _shards(index: Path) -> list[str]:
    """The files that an index names; plain names only, so that it cannot lead out of its folder."""
    found = read_json(index)
    names = found["weight_map"].values() if isinstance(found.get("weight_map"), dict) else ()
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise VgenError(f"{index} is damaged (its weight_map is no map to file names): download or save it again")
    return sorted(set(names))


def _read_safetensors(path: Path) -> dict[str, Stored]:
    dtypes = {code: dtype for dtype, code in DTYPES.items()}
    try:
        opened = safetensors.safe_open(path, framework="numpy")
        tensors = {}
        for name in opened.keys():
            part = opened.get_slice(name)
            code = part.get_dtype()
            if code not in dtypes:
                raise VgenError(f"{path} holds {name} as {code}: use weights in float32, float16 or bfloat16")
            read = functools.partial(opened.get_tensor, name)
            tensors[name] = Stored(tuple(part.get_shape()), dtypes[code], read)
    except (safetensors.SafetensorError, OSError) as error:
        raise VgenError(f"{path} is truncated or damaged ({_first_line(error)}): download or save it again") from error
    return tensors


def _read_bin(path: Path) -> dict[str, Stored]:
    try:
        import torch
    except ImportError as error:
        raise VgenError(f"{path} is a PyTorch pickle: {INSTALL}, or use weights saved as safetensors") from error
    try:
        if _is_torchscript(path):
            found = torch.jit.load(path, map_location="cpu").state_dict()
        else:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except Exception as error:  # whatever a damaged or hostile pickle makes of the unpickler
        raise VgenError(
            f"{path} is damaged, or a pickle that holds more than tensors, which is not loaded "
            f"({_first_line(error)}): use weights saved as safetensors"
        ) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]  # beside what Lightning keeps of a training
    if not isinstance(found, Mapping) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise VgenError(f"{path} holds no plain map from names to tensors: use weights saved as safetensors")

    def read(tensor: Any) -> np.ndarray:
        # NumPy has no bfloat16 of its own; float32 holds every value of it.
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()

    def stored(tensor: Any) -> Stored:
        dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
        return Stored(tuple(tensor.shape), dtype, functools.partial(read, tensor))

    return {str(name): stored(tensor) for name, tensor in found.items()}


def _is_zip(path: Path) -> bool:
    """Whether a pickle is of PyTorch's present format, the one that can be mapped instead of read."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _is_torchscript(path: Path) -> bool:
    """Whether a file is a module with its program in TorchScript, which ``weights_only`` refuses."""
    if not _is_zip(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.partition("/")[2].startswith("code/") for name in archive.namelist())


def write_folder(folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Stored], stem: str) -> None:
    """Writes ``<stem>.safetensors`` and ``config.json``; the tensors pass through memory one by one.

    Args:
        stem: ``diffusion_pytorch_model`` for diffusers, ``model`` for transformers.

    Raises:
        VgenError: if the folder cannot be written, or holds an index of shards, which readers would follow instead.
    """
    folder = Path(folder)
    path = folder / f"{stem}.safetensors"
    partial = folder / f"{path.name}.partial"
    stale = [file.name for file in sorted(folder.glob("*.index*.json"))]
    if stale:
        raise VgenError(f"{folder} holds sharded weights ({stale[0]}), which readers prefer: give an empty folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_safetensors(partial, tensors)
        text = json.dumps(dict(config), indent=2, sort_keys=True) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise VgenError(f"could not write {path} ({_first_line(error)}): mend that and convert again") from error


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object.

    Raises:
        VgenError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dict(values), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise VgenError(f"could not write {path} ({_first_line(error)}): mend that and convert again") from error


def _write_safetensors(path: Path, tensors: Mapping[str, Stored]) -> None:
    """Byte for byte what the safetensors package writes, which would want all tensors in memory at once."""
    tensors = dict(sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers refuses files that do not say so
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + int(np.prod(tensor.shape, dtype=np.int64)) * tensor.dtype.itemsize
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            array = np.ascontiguousarray(tensor.read(), dtype=tensor.dtype)
            file.write(array.reshape(-1).view(np.uint8).data)


def _first_line(error: BaseException) -> str:
    lines: Iterable[str] = str(error).strip().splitlines()
    return next(iter(lines), type(error).__name__)
