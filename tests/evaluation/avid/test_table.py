"""AVID's experiment from recorded data to the table, and what it refuses, on the smallest networks."""

import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.avid import coinrun
from tests import tiny
from vgen_jax.devices import sharding as sh
from vgen_jax.evaluation.avid.claims import claims
from vgen_jax.evaluation.comparison import Result
from vgen_jax.files.run_folder import resolved
from vgen_jax.runs import avid_table, pipeline, train
from vgen_jax.types import VgenError

DATA = ("pretrain", "coinrun", "actions", "test")
METRICS = ("psnr", "ssim", "action_error_ratio_test", "fd_action_test", "fd_frames_test", "lpips_action_test")


@pytest.fixture(autouse=True)
def _one_device() -> Iterator[None]:
    """One device, as a program for eight takes several times as long to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sh.jax, "devices", lambda: jax.local_devices()[:1])
        yield


def experiment() -> ConfigDict:
    """The variant ``tiny`` on the tests' own data set, which has another name and other splits."""
    config = coinrun.get_config("tiny")
    config.order = tuple(name for name in config.order if name not in DATA)
    config.stages.table.windows.split = "validation"
    config.stages.table.score.metrics = METRICS
    config.stages.table.tune.metric = "fd_action_test"
    return config


@pytest.mark.long
def test_from_recorded_games_to_the_table(tmp_path: Path) -> None:
    methods = coinrun.VARIANTS["tiny"]["methods"]
    for name in DATA:
        tiny.write_dataset(tmp_path / name)
    config = experiment()
    pipeline.run(resolved(config, tmp_path), tmp_path)
    results = json.loads((tmp_path / "table" / "results.json").read_text())
    for method in methods:
        for metric in METRICS:
            low, value, high = (results[f"{metric}/{method}{end}"] for end in ("_low", "", "_high"))
            assert None in (low, value, high) or low <= value <= high
        found = results[f"normalised_score/{method}"]
        assert found is None or 0 <= found <= 1  # none where no action could be read off a method's clips
    assert results["parameters/avid"] > results["parameters/base"] == 0
    assert all(0 < results[key] < 1 for key in results if key.startswith("mask/step_"))
    table = (tmp_path / "table" / "table.md").read_text()
    assert table.count("\n") == len(methods) + 2 and "AVID" in table
    assert len(methods) == 11 and "Product of experts" in table
    assert results["weight/product_of_experts"] in coinrun.POE
    assert results["parameters/finetune"] > results["parameters/avid"]
    for name in ("masks.png", "mask_by_step.png", "methods.png"):
        assert (tmp_path / "table" / "samples" / name).is_file()
    real = np.load(tmp_path / "table" / "clips" / "real" / "000000.npz")["frames"]
    made = np.load(tmp_path / "table" / "clips" / "avid" / "000000.npz")["frames"]
    np.testing.assert_array_equal(made[: coinrun.PAST], real[: coinrun.PAST])
    assert (made[coinrun.PAST :] != real[coinrun.PAST :]).any()
    stored = json.loads((tmp_path / "avid" / "export" / "config.json").read_text())
    assert stored["base_sha256"] and set(stored) == {"method", "world", "base_sha256"}
    before = (tmp_path / "table" / "results.json").read_text()
    avid_table.run(resolved(config.stages.table, tmp_path / "table"), tmp_path / "table")
    assert (tmp_path / "table" / "results.json").read_text() == before


def test_every_stage_of_every_variant_can_be_had_alone() -> None:
    for variant, values in coinrun.VARIANTS.items():
        for stage in coinrun.stages(values):
            coinrun.get_config(f"{variant}.{stage}")
    with pytest.raises(ValueError, match="no stage 'nothing'"):
        coinrun.get_config("tiny.nothing")
    with pytest.raises(ValueError, match="no variant 'huge'"):
        coinrun.get_config("huge")


def test_windows_that_do_not_open_with_the_past_are_refused(tmp_path: Path) -> None:
    tiny.write_dataset(tmp_path / "coinrun")
    config = coinrun.get_config("tiny.diffusion")
    config.data.windows = ((1, 8),)
    with pytest.raises(VgenError, match="every window opens with world.past 2"):
        train.run(resolved(config, tmp_path / "diffusion"), tmp_path / "diffusion")


def result(psnr: list[float], accuracy: list[float]) -> Result:
    rows = {"psnr": np.asarray(psnr), "action_error_ratio_test.under": np.asarray(accuracy)}
    return Result(Path("."), {}, {}, rows)


def test_claims_hold_fail_or_stay_open_by_paired_intervals() -> None:
    noise = np.random.default_rng(0).normal(size=50)
    results = {
        "avid": result(list(20 + noise), [0.5] * 50),
        "diffusion": result(list(19.9 + noise), [0.4] * 50),  # always worse by 0.1: pairs show it, means alone do not
        "product_of_experts": result(list(20 + noise[::-1]), [0.4] * 50),
        "base": result(list(10 + noise), [0.6] * 50),
    }
    found = {(c.metric, c.better, c.worse): c.verdict for c in claims(results, 200, 0)}
    assert found["psnr", "avid", "diffusion"] == "holds"
    assert found["psnr", "avid", "product_of_experts"] == "undecided"
    assert found["action accuracy", "avid", "base"] == "fails"
    assert not any("finetune" in key for key in found)
