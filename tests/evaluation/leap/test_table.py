"""The table of predictions: samples never mixed, and no verdict before anything has been learnt."""

from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from vgen_jax.diffusion.solvers import Solver
from vgen_jax.evaluation.leap import predictions, table
from vgen_jax.evaluation.leap.predictions import Scored
from vgen_jax.evaluation.sources import WindowsConfig, recorded
from vgen_jax.types import VgenError

CLIPS, SAMPLES, FRAMES = 40, 3, 4
DRAWS = 200


def scores(psnr: float, action_error: float | None = None, spread: float = 1.0, seed: int = 0) -> Scored:
    """PSNRs about a mean, and action errors."""
    rng = np.random.default_rng(seed)
    rows = {"psnr": psnr + spread * rng.normal(size=(CLIPS, SAMPLES, FRAMES))}
    if action_error is not None:
        rows["action_error"] = action_error + 0.05 * rng.uniform(size=(CLIPS, SAMPLES, FRAMES - 1, 2))
    return Scored(rows, {}, np.zeros(0), np.zeros(0))


CONSTANT = np.full((CLIPS, 1, FRAMES - 1, 2), 0.5)


def methods(**changes: Scored) -> dict[str, Scored]:
    base = {
        "repeat": scores(15.0, seed=1), "svg_lp": scores(18.0, seed=2), "vg_leap": scores(20.0, 0.2, seed=3),
        "causal_leap": scores(18.0, 0.2, spread=0.1, seed=4), "river": scores(21.0, seed=5),
        "rafi": scores(19.0, 0.3, seed=6),
    }  # fmt: skip
    return {**base, **changes}


def judged(found: list[table.Verdict]) -> dict[tuple[str, str], str]:
    return {(one.better, one.worse): one.verdict for one in found}


def test_claims_are_judged_by_their_intervals() -> None:
    assert not table.reasons_to_wait(methods(), CONSTANT, DRAWS, 0)
    found = judged(table.verdicts(methods(), CONSTANT, DRAWS, 0))
    assert found["vg_leap", "svg_lp"] == "holds" and found["rafi", "river"] == "fails"
    assert found["rafi", "repeat"] == "holds" and ("svg_lp", "repeat") in found
    same = methods(causal_leap=methods()["svg_lp"])
    assert judged(table.verdicts(same, CONSTANT, DRAWS, 0))["causal_leap", "svg_lp"] == "undecided"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"svg_lp": scores(15.0, seed=1)}, "svg_lp does not beat the repeated last frame"),
        ({"vg_leap": scores(20.0, 0.6)}, "the actions of vg_leap do not beat the mean action"),
    ],
)
def test_nothing_is_decided_before_anything_is_learnt(changes: dict, reason: str) -> None:
    assert reason in table.reasons_to_wait(methods(**changes), CONSTANT, DRAWS, 0)[0]
    assert {one.verdict for one in table.verdicts(methods(**changes), CONSTANT, DRAWS, 0)} == {"undecided"}


def only(rows: dict, features: dict) -> Scored:
    return Scored(rows, features, np.zeros(0), np.zeros(0))


def test_means_of_samples_and_the_best_of_them_are_columns_of_their_own() -> None:
    psnr = np.array([[[1.0, 3.0], [5.0, 5.0]], [[2.0, 2.0], [0.0, 0.0]]])
    cells = table.cells({"m": only({"psnr": psnr, "lpips_x": np.array([[[1.0], [3.0]]] * 2)}, {})}, {}, DRAWS, 0)
    assert cells["psnr"]["m"].value == 2.25 and cells["psnr_best_of_2"]["m"].value == 3.5
    assert cells["lpips_x"]["m"].value == 2.0 and cells["lpips_x_best_of_2"]["m"].value == 1.0
    np.testing.assert_array_equal(table.curve(psnr), [2.0, 2.5])
    text = table.markdown({"m": "M", "n": "N"}, {"psnr": cells["psnr"]})
    assert text.splitlines()[0] == "| method | psnr |" and text.splitlines()[3] == "| N |  |"


def test_distances_are_of_first_samples() -> None:
    rng = np.random.default_rng(0)
    real = {"fd_x": rng.normal(size=(60, 3))}
    near, far = (only({}, {"fd_x": rng.normal(size=(60, 3)) + shift}) for shift in (0.0, 2.0))
    cells = table.cells({"near": near, "far": far}, real, DRAWS, 0)["fd_x"]
    assert cells["near"].value < 1 < 8 < cells["far"].value < 18 and cells["far"].low < cells["far"].value


class Exact:
    """Knows the future, and says actions that are wrong by a known amount."""

    own_actions = True

    def __init__(self, data: predictions.Recorded):
        self._data = data

    def __call__(
        self, past: np.ndarray, actions: np.ndarray, sample: int, seed: int, id_B: np.ndarray
    ) -> predictions.Predicted:
        videos, _ = predictions.clips_of(self._data, id_B.tolist())
        frames, first = videos[:, past.shape[1] :], past.shape[1] - 1
        dark = np.clip(frames.astype(int) - 10 * sample, 0, 255).astype(np.uint8)
        return predictions.Predicted(dark, actions[:, first:] + np.float32([0.5, 0.05]))


def test_clips_are_scored_frame_by_frame(tmp_path: Path) -> None:
    folder = str(tiny.write_dataset(tmp_path / "data"))
    data = recorded(folder, WindowsConfig("validation", 5, 3, 4, "continuous", 0))
    config = predictions.PredictionConfig(2, 2, 0, 100, ("psnr", "ssim"))
    found = predictions.scored(data, Exact(data), config, {}, 3, "exact")
    assert found.rows["psnr"].shape == (5, 2, 4) and (found.rows["psnr"][:, 0] == 100.0).all()
    assert (found.rows["psnr"][:, 1] < 60).all() and found.shown.shape == (3, 4, 16, 16, 3)
    # Scales are 10 and 0.5; the action at the last real frame was given and does not count.
    np.testing.assert_allclose(found.rows["action_error"], np.broadcast_to((0.05, 0.1), (5, 2, 3, 2)), rtol=1e-4)
    predictions.save_scored(tmp_path / "x.npz", found, "these weights")
    again = predictions.load_scored(tmp_path / "x.npz", "these weights")
    assert predictions.load_scored(tmp_path / "x.npz", "other weights") is None
    assert again is not None
    assert again.rows.keys() == found.rows.keys() and again.actions.shape == (3, 4, 2)
    entry = predictions.PredictorConfig("", "last", False, 0)
    repeat = predictions.ClipPredictor("repeat", entry, 3, 4, Solver("euler", 1, 1.0))
    still = predictions.scored(data, repeat, config, {}, 3, "repeat")
    videos, _ = predictions.clips_of(data, [0])
    np.testing.assert_array_equal(still.shown[0], np.repeat(videos[0, 2:3], 4, axis=0))
    assert "action_error" not in still.rows and (still.rows["psnr"][:, 0] == still.rows["psnr"][:, 1]).all()
    mean = predictions.mean_action(tmp_path / "data", "train")
    assert mean.shape == (2,) and predictions.constant_error(data, mean).shape == (5, 1, 3, 2)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(VgenError, match="lacks psnr"):
        predictions.PredictionConfig(1, 1, 0, 100, ("ssim",))
    with pytest.raises(VgenError, match="predict.metrics has 'fid_inception'"):
        predictions.PredictionConfig(1, 1, 0, 100, ("psnr", "fid_inception"))
    with pytest.raises(VgenError, match="100 draws or more"):
        predictions.PredictionConfig(1, 1, 0, 10, ("psnr",))
