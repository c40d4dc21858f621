"""A run's folder and its config."""

import json
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import yours
from configs.avid import black_box, serve
from configs.eval import revisit
from configs.slow import modelscope
from tests import tiny
from vgen_jax.files.run_folder import CHANGEABLE, keep_config, resolved, write_results
from vgen_jax.types import VgenError


def config(**changes: object) -> ConfigDict:
    return tiny.config("slow", {key.replace("__", "."): value for key, value in changes.items()})


def test_siblings_are_resolved_and_the_config_is_locked(tmp_path: Path) -> None:
    raw = ConfigDict({"data": {"data_dir": "@data"}, "stages": {"one": {"model_dir": "@slow/export"}}, "n": 1})
    found = resolved(raw, tmp_path / "out" / "run")
    assert found.data.data_dir == str(tmp_path / "out" / "data")
    assert found.stages.one.model_dir == "@slow/export", "a stage's siblings are not its pipeline's"
    assert raw.data.data_dir == "@data"
    with pytest.raises((AttributeError, KeyError)):
        found.m = 2


def test_the_same_config_is_kept(tmp_path: Path) -> None:
    for _ in range(2):
        keep_config(config(), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == json.loads(json.dumps(config().to_dict()))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    "changes",
    [{"train__seed": 5}, {"slow__unet__norm_groups": 2}, {"data__windows": ((1, 2),)}, {"optimizer__kind": "adamw"}],
)
def test_another_config_is_refused_by_key(tmp_path: Path, changes: dict[str, object]) -> None:
    keep_config(config(), tmp_path)
    (key,) = changes
    with pytest.raises(VgenError, match=f"{tmp_path}/config.json says {key.replace('__', '.')} = .*another --workdir"):
        keep_config(config(**changes), tmp_path)


def test_a_key_that_appears_or_vanishes_is_refused(tmp_path: Path) -> None:
    keep_config(ConfigDict({"a": 1, "b": {"c": 2}}), tmp_path)
    for other in ({"a": 1, "b": {}}, {"a": 1, "b": {"c": 2, "d": 3}}):
        with pytest.raises(VgenError, match="b"):
            keep_config(ConfigDict(other), tmp_path)


def test_what_changes_no_result_may_change(tmp_path: Path) -> None:
    keep_config(config(), tmp_path)
    changed = config(train__steps=99, train__log_every=1, mesh__fsdp=4, data__workers=2, slow__unet__remat="full")
    keep_config(changed, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == 99


def test_every_changeable_key_exists() -> None:
    """In some run's config."""
    runs = [config(), tiny.config("data", {}), tiny.config("generate", {}), revisit.get_config("smoke")]
    runs += [black_box.get_config("tiny"), serve.get_config(), yours.get_config("tiny.slow")]
    runs += modelscope.get_config("finetune").stages.values()
    known = {path for run in runs for path in paths(run.to_dict())}
    for name in CHANGEABLE:
        assert name.rstrip(".") in known, name


def paths(section: dict, prefix: str = "") -> set[str]:
    """Of all keys, dots between their parts."""
    found = set()
    for key, value in section.items():
        found |= {prefix + key} | (paths(value, f"{prefix}{key}.") if isinstance(value, dict) else set())
    return found


def test_results_are_json_that_every_reader_accepts(tmp_path: Path) -> None:
    write_results(tmp_path, {"psnr": 21.5, "ratio": float("nan"), "best": float("inf"), "split": "validation"})
    text = (tmp_path / "results.json").read_text()
    refuse = lambda name: pytest.fail(name)  # noqa: E731
    found = json.loads(text, parse_constant=refuse)
    assert found == {"psnr": 21.5, "ratio": None, "best": None, "split": "validation"}
    assert np.isfinite(found["psnr"])
