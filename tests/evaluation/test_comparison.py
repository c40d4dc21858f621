"""Results side by side: only what is comparable, with intervals that hold what they promise."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.eval import compare as configs
from vgen_jax.evaluation import comparison
from vgen_jax.runs import compare_results
from vgen_jax.types import VgenError

CONTRACT = {"frames": "16", "resolution": "64x64", "generated": "a"}


def written(folder: Path, values: np.ndarray, contract: dict[str, Any] | None = None, **scalars: float) -> Path:
    """A run's folder with PSNRs of its videos."""
    folder.mkdir()
    results = {"psnr": float(values.mean()), "psnr_ci95": 1.0, "psnr_count": len(values), **scalars}
    (folder / "results.json").write_text(json.dumps({**results, "contract": {**CONTRACT, **(contract or {})}}))
    np.savez(folder / "scores.npz", psnr=values)
    return folder


def run(workdir: Path, *folders: Path, **changes: Any) -> dict[str, Any]:
    config = configs.get_config()
    config.compare.update({"results": tuple(map(str, folders)), "draws": 200, **changes})
    compare_results.run(config, workdir)
    return json.loads((workdir / "results.json").read_text())


def test_the_table_has_a_row_for_each_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    a = written(tmp_path / "a", rng.normal(20, 2, 50), fid_inception=40.0, lpips_vgg=0.5, lpips_vgg_ci95=0.1)
    b = written(
        tmp_path / "b", rng.normal(25, 2, 50), {"generated": "b", "commit": "1"},
        fid_inception=30.0, lpips_vgg=0.4, lpips_vgg_ci95=0.1, extra=1.0,
    )  # fmt: skip
    found = run(tmp_path / "out", a, b, names=("A|1", "B"))
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert lines[0] == "| result | psnr | fid_inception | lpips_vgg |"
    assert lines[2].startswith("| A\\|1 | ") and lines[3].startswith("| B | ") and "30 | 0.4 [0.3, 0.5]" in lines[3]
    assert capsys.readouterr().out.splitlines() == lines
    assert found["psnr/B_low"] < found["psnr/B"] < found["psnr/B_high"]
    assert found["fid_inception/B_low"] is None and found["contract"] == {"frames": "16", "resolution": "64x64"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "A|1" in page and "Where they come from" in page


@pytest.mark.parametrize("change", [{"frames": "8"}, {"fvd_i3d.sha256": "1"}])
def test_other_contracts_are_refused(change: dict[str, str], tmp_path: Path) -> None:
    a, b = written(tmp_path / "a", np.ones(3)), written(tmp_path / "b", np.ones(3), change)
    (key,) = change
    with pytest.raises(VgenError, match=f"a and .*b cannot be compared: {key} is") as caught:
        run(tmp_path / "out", a, b)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    a = written(tmp_path / "a", np.ones(3))
    with pytest.raises(VgenError, match="b/results.json is missing"):
        run(tmp_path / "out", a, tmp_path / "b")
    (tmp_path / "c").mkdir()
    for text, named in (("{", "is damaged"), ('{"psnr": 1}', "holds no contract")):
        (tmp_path / "c" / "results.json").write_text(text)
        with pytest.raises(VgenError, match=f"c/results.json {named}"):
            run(tmp_path / "out", a, tmp_path / "c")
    (a / "scores.npz").write_bytes(b"damaged")
    with pytest.raises(VgenError, match="a/scores.npz is damaged"):
        run(tmp_path / "out", a, a)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"results": ("a",)}, "fewer than two folders"),
        ({"names": ("x",)}, "1 names for 2 folders"),
        ({"draws": 10}, "compare.draws is 10"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(VgenError, match=named):
        run(tmp_path / "out", tmp_path / "a", tmp_path / "b", **changes)


def test_the_interval_of_a_mean_holds_it_about_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(200):
        low, high = comparison.bootstrap_mean(rng.gamma(2.0, 1.0, 40), 200, seed)
        inside += low < 2.0 < high
    assert 176 <= inside <= 198


def test_the_interval_of_a_distance_shrinks_with_the_number_of_videos() -> None:
    """And holds the distance itself, which the draws alone would not: drawing twice makes it larger."""
    rng = np.random.default_rng(0)
    widths = []
    for count in (30, 480):
        rows = {"fd.real": rng.normal(size=(count, 6)), "fd.generated": 0.5 + rng.normal(size=(count, 6))}
        low, high = comparison.bootstrap_distance(1.5, rows, "fd", 400, 0)
        assert low < 1.5 < high
        widths.append(high - low)
    assert widths[1] < 0.6 * widths[0]


def test_the_normalised_score_is_avids(tmp_path: Path) -> None:
    """Between the worst and the best of the results; a metric that AVID's tables have no bounds for is left out."""
    a = written(tmp_path / "a", np.full(3, 20.0), action_error_ratio_x=1.5, action_error_ratio_x_mae_real=1.0, scuts=1)
    b = written(tmp_path / "b", np.full(3, 30.0), action_error_ratio_x=3.5, action_error_ratio_x_mae_real=1.0, scuts=0)
    c = written(tmp_path / "c", np.full(3, 25.0), action_error_ratio_x=1.5, action_error_ratio_x_mae_real=1.0, scuts=0)
    found = run(tmp_path / "out", a, b, c, normalise="compared")
    scores = [found[f"normalised_score/{name}"] for name in "abc"]
    assert scores == pytest.approx([(0 + 1) / 2, (1 + 0) / 2, (0.5 + 1) / 2])
    with pytest.raises(VgenError, match="normalised score lacks fid, fvd, lpips, ssim"):
        run(tmp_path / "rt1", a, b, normalise="rt1")
    with pytest.raises(VgenError, match="compare.normalise is 'best'"):
        run(tmp_path / "best", a, b, normalise="best")


def test_the_normalised_score_takes_stand_ins_among_the_compared_only(tmp_path: Path) -> None:
    """What was measured goes before what stands for it, and bounds of AVID's tables are not for stand-ins."""
    a = written(tmp_path / "a", np.full(3, 20.0), fd_action_x=8.0, fd_frames_x=1.0, lpips_vgg=0.2, lpips_action_x=0.9)
    b = written(tmp_path / "b", np.full(3, 30.0), fd_action_x=2.0, fd_frames_x=3.0, lpips_vgg=0.1, lpips_action_x=1.8)
    found = run(tmp_path / "out", a, b, normalise="compared")
    assert found["normalised_score/a"] == pytest.approx((0 + 0 + 1 + 0) / 4)  # psnr, fvd, fid, lpips
    assert found["normalised_score/b"] == pytest.approx((1 + 1 + 0 + 1) / 4)
    with pytest.raises(VgenError, match="normalised score lacks action_error_ratio, fid, fvd, ssim"):
        run(tmp_path / "coinrun", a, b, normalise="coinrun")


def test_a_ratio_is_drawn_in_pairs(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).uniform(1, 5, 50)
    folders = [written(tmp_path / name, np.ones(50), action_error_ratio_x=2.0) for name in "ab"]
    for folder in folders:
        np.savez(folder / "scores.npz", **{"action_error_ratio_x.over": 2 * rows, "action_error_ratio_x.under": rows})
    found = run(tmp_path / "out", *folders)
    ends = [found[f"action_error_ratio_x/a_{end}"] for end in ("low", "high")]
    assert ends == pytest.approx([2, 2])
