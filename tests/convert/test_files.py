"""Folders of weights: what is read, in which order, and what is refused."""

import fnmatch
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from vgen_jax.convert import files
from vgen_jax.convert.files import Stored
from vgen_jax.types import VgenError

A = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.ones(2, np.float32)}
B = {"b.weight": np.full((2, 2), 7, np.float32)}


def save(path: Path, tensors: dict[str, np.ndarray] = A) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".bin":
        torch.save({name: torch.tensor(array) for name, array in tensors.items()}, path)
    else:
        safetensors.numpy.save_file(tensors, path)


def save_shards(folder: Path, pattern: str, index: str) -> None:
    placed = {}
    for number, tensors in ((1, A), (2, B)):
        name = pattern.format(number)
        save(folder / name, tensors)
        placed |= dict.fromkeys(tensors, name)
    (folder / index).write_text(json.dumps({"metadata": {"total_size": 48}, "weight_map": placed}))


def read(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for name, tensor in files.read_weights(folder).items():
        found[name] = tensor.read()
        assert found[name].shape == tensor.shape
    return found


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors", "model.fp16.safetensors", "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.fp16.bin",
    ],
)  # fmt: skip
def test_a_single_file(tmp_path: Path, name: str) -> None:
    save(tmp_path / name)
    same(read(tmp_path), A)


@pytest.mark.parametrize(
    ("pattern", "index"),
    [
        ("model-{:05}-of-00002.safetensors", "model.safetensors.index.json"),
        (
            "diffusion_pytorch_model.fp16-{:05}-of-00002.safetensors",
            "diffusion_pytorch_model.safetensors.index.fp16.json",
        ),
        ("pytorch_model-{:05}-of-00002.bin", "pytorch_model.bin.index.json"),
    ],
)
def test_shards(tmp_path: Path, pattern: str, index: str) -> None:
    save_shards(tmp_path, pattern, index)
    same(read(tmp_path), {**A, **B})
    (tmp_path / pattern.format(2)).unlink()
    with pytest.raises(VgenError, match=rf"{pattern.format(2)} is missing"):
        files.read_weights(tmp_path)


def test_full_precision_before_fp16_before_pickles(tmp_path: Path) -> None:
    save(tmp_path / "pytorch_model.bin", {"from": np.full(1, 3.0)})
    assert read(tmp_path)["from"] == 3
    save(tmp_path / "model.fp16.safetensors", {"from": np.full(1, 2, np.float16)})
    assert read(tmp_path)["from"] == 2
    save(tmp_path / "model.safetensors", {"from": np.full(1, 1, np.float32)})
    assert read(tmp_path)["from"] == 1


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    tensors = {"a": torch.linspace(-3, 3, 12).reshape(3, 4).to(dtype)}
    if name.endswith(".bin"):
        torch.save(tensors, tmp_path / name)
    else:
        safetensors.torch.save_file(tensors, tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path)["a"].astype(np.float32), tensors["a"].float().numpy())


def test_the_old_pickle_format_is_read_too(tmp_path: Path) -> None:
    tensors = {name: torch.tensor(array) for name, array in A.items()}
    torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    same(read(tmp_path), A)


class Hostile:
    """Unpickled by a careless reader, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("plain", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, name: str, plain: bool) -> None:
    folder, made = tmp_path / "model", tmp_path / "made"
    folder.mkdir()
    content = {"a.weight": torch.ones(2), "b": Hostile(made)}
    if plain:
        (folder / name).write_bytes(pickle.dumps({"b": Hostile(made)}, protocol=2))
    else:
        torch.save(content, folder / name)
    with pytest.raises(VgenError, match=f"{name} is .*damaged") as caught:
        read(folder)
    assert not made.exists() and "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_truncated_files_are_refused(tmp_path: Path, name: str, keep: int) -> None:
    save(tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:keep])
    with pytest.raises(VgenError, match=f"{name} is .*damaged") as caught:
        files.read_weights(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("start", [0, 8, 20])
def test_corrupt_headers_are_refused(tmp_path: Path, start: int) -> None:
    save(tmp_path / "model.safetensors")
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[start : start + 8] = b"\xff" * 8
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(VgenError, match="truncated or damaged"):
        files.read_weights(tmp_path)


@pytest.mark.parametrize("content", [[1, 2], {"a": torch.ones(2), "step": 3}])
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(VgenError, match="no plain map from names to tensors"):
        files.read_weights(tmp_path)


@pytest.mark.parametrize("weight_map", [None, {}, {"a": "../model.safetensors"}, {"a": "/etc/x"}, {"a": 3}, ["x"]])
def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path, weight_map: object) -> None:
    save(tmp_path / "model.safetensors")
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(VgenError, match="weight_map"):
        files.read_weights(folder)


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(VgenError, match="holds no weights .diffusion_pytorch_model.safetensors"):
        files.read_weights(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_is_written_is_what_others_read(tmp_path: Path, dtype: str) -> None:
    tensors = {name: array.astype(dtype) for name, array in {**A, **B, "empty": np.zeros((0, 3))}.items()}
    stored = {name: Stored(array.shape, array.dtype, lambda a=array: a) for name, array in tensors.items()}
    files.write_folder(tmp_path / "new" / "model", {"b": 1}, stored, "model")
    folder = tmp_path / "new" / "model"
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    for name, tensor in safetensors.torch.load_file(folder / "model.safetensors").items():
        assert str(tensor.dtype) == f"torch.{dtype}"
        np.testing.assert_array_equal(tensor.float().numpy(), tensors[name].astype(np.float32))
    same(read(folder), tensors)
    assert files.read_json(folder / "config.json") == {"b": 1}
    safetensors.numpy.save_file(tensors, tmp_path / "reference", metadata={"format": "pt"})
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "reference").read_bytes()


def test_old_shards_are_not_left_beside_new_weights(tmp_path: Path) -> None:
    save_shards(tmp_path, "model-{:05}-of-00002.safetensors", "model.safetensors.index.json")
    with pytest.raises(VgenError, match="holds sharded weights"):
        files.write_folder(tmp_path, {}, {}, "model")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(VgenError, match="could not write .*model.safetensors"):
        files.write_folder(tmp_path / "file" / "model", {}, {}, "model")


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_damaged_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(VgenError, match="config.json"):
        files.read_json(tmp_path / "config.json")


def test_a_part_of_a_model_or_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    assert files.locate(tmp_path, "unet") == files.locate(tmp_path / "unet", "unet") == tmp_path / "unet"
    assert files.locate(str(tmp_path), "vae") == tmp_path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hugging Face hub as a folder, and a download as copying what its patterns name."""
    remote, cache = tmp_path / "remote", tmp_path / "cache"

    def snapshot_download(repository: str, *, allow_patterns: list[str]) -> str:
        source = remote / repository
        if not source.is_dir():
            raise LocalEntryNotFoundError("cannot find it\nin the cache")
        for path in source.rglob("*.*"):
            name = str(path.relative_to(source))
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (cache / repository / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, cache / repository / name)
        return str(cache / repository)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return remote


@pytest.mark.parametrize(
    ("stored", "fetched"),
    [
        (["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors", "pytorch_model.bin"], 0),
        (["diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin"], 0),
        (["diffusion_pytorch_model.bin", "other.ckpt"], 0),
    ],
)
@pytest.mark.parametrize("inside", ["unet/", ""])
def test_from_the_hub_come_only_the_weights_that_are_read(
    hub: Path, stored: list[str], fetched: int, inside: str
) -> None:
    source = hub / "owner" / "model"
    for name in stored:
        save(source / f"{inside}{name}")
    (source / f"{inside}config.json").write_text("{}")
    if inside:
        save(source / "vae" / "diffusion_pytorch_model.safetensors")
    found = files.locate("owner/model", "unet")
    assert sorted(p.name for p in found.iterdir()) == sorted(["config.json", stored[fetched]])
    same(read(found), A)
    assert not (found.parent / "vae").exists()
    if inside:
        assert files.locate("owner/model/unet", "unet") == found


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_from_the_hub(hub: Path, kind: str) -> None:
    source, stem = hub / "owner" / "model", "model" if kind == "safetensors" else "pytorch_model"
    save_shards(source, f"{stem}-{{:05}}-of-00002.{kind}", f"{stem}.{kind}.index.json")
    (source / "config.json").write_text("{}")
    same(read(files.locate("owner/model", "text_encoder")), {**A, **B})


def test_parts_without_weights_from_the_hub(hub: Path) -> None:
    save(hub / "owner" / "model" / "model.safetensors")
    (hub / "owner" / "model" / "scheduler").mkdir()
    (hub / "owner" / "model" / "scheduler" / "scheduler_config.json").write_text("{}")
    found = files.locate("owner/model", "scheduler")
    assert files.read_json(found / "scheduler_config.json") == {}
    assert [p.name for p in found.parent.iterdir()] == ["scheduler"]


@pytest.mark.parametrize("name", ["owner/absent", "owner/absent/unet"])
def test_offline_it_says_where_to_put_the_files(hub: Path, name: str) -> None:
    with pytest.raises(VgenError, match=f"^{name} is neither .*cannot find it.*into a folder") as caught:
        files.locate(name, "unet")
    assert "\n" not in str(caught.value)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's own cache as a download leaves it, with ``owner/model`` in it, on a machine that is offline."""
    root, commit = tmp_path / "hub" / "models--owner--model", "0" * 40
    snapshot = root / "snapshots" / commit
    save(snapshot / "unet" / "diffusion_pytorch_model.safetensors")
    (snapshot / "unet" / "config.json").write_text('{"a": 1}')
    (snapshot / "model_index.json").write_text("{}")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return snapshot


def test_offline_a_model_comes_from_the_cache_of_the_hub(cache: Path) -> None:
    found = files.locate("owner/model", "unet")
    assert found.samefile(cache / "unet") and files.read_json(found / "config.json") == {"a": 1}
    same(read(found), A)


def test_offline_a_model_that_is_not_in_the_cache_is_one_line(cache: Path) -> None:
    with pytest.raises(VgenError, match="^owner/other is neither a folder here .*go online once") as caught:
        files.locate("owner/other", "unet")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["absent", "/absent/folder", "./absent", "a/b/c/d"])
def test_what_can_be_no_name_on_the_hub_is_not_asked_for(name: str) -> None:
    with pytest.raises(VgenError, match=f"^{name} is no folder"):
        files.locate(name, "unet")
