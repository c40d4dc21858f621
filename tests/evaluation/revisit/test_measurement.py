"""The revisit benchmark with a slow model whose network is two dense layers, on paths without a simulator."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from configs.eval import revisit as benchmark
from tests import tiny
from tests.worlds.test_memories import FAST, FUTURE, PAST, averages, model, squares  # noqa: F401
from vgen_jax.config import section
from vgen_jax.data.records import INFO_FILE, EpisodeSource, EpisodeWriter, shard_name, write_text
from vgen_jax.data.schema import Episode
from vgen_jax.evaluation.place_encoder import Place
from vgen_jax.evaluation.revisit import measurement
from vgen_jax.evaluation.revisit import paths as revisit_paths
from vgen_jax.evaluation.revisit import report as revisit_report
from vgen_jax.evaluation.revisit.cells import Cell, load_cell, save_cell
from vgen_jax.evaluation.revisit.measurement import RevisitConfig, contenders_of
from vgen_jax.evaluation.revisit.scores import WALLS, clearly_better, compared, metric_names, score
from vgen_jax.metrics.features import FeatureNet
from vgen_jax.runs import revisit
from vgen_jax.simulators import paths as scripts
from vgen_jax.simulators.maze_view import wall_shades
from vgen_jax.types import Array, Key, Past, Recalled, VgenError, VideoBatch
from vgen_jax.worlds.actions import ActionCodec
from vgen_jax.worlds.rollout import rollout
from vgen_jax.worlds.slow import SlowModel
from vgen_jax.worlds.slow_world import SlowWorld

LENGTH, PATHS = 12, 4
TURN = np.concatenate([np.arange(0, 91, 15), np.arange(75, -1, -15)])  # away for three chunks, and back


def path_episode(seed: int) -> Episode:
    """The view is the heading: a bright bar moves with it. Odd ones come back a chunk earlier."""
    heading = TURN if seed % 2 == 0 else np.concatenate([TURN[:5], TURN[3::-1], np.zeros(4)])
    script = scripts.Script("look", f"look {seed}", (), LENGTH // 2 if seed % 2 == 0 else 4, (LENGTH,))
    base = tiny.episode(seed, "revisit_12", LENGTH)
    columns = (np.arange(tiny.SIZE) * 6 - heading[:, None]) % 90
    frames = np.broadcast_to(255 * (columns[:, None, :, None] < 30), (LENGTH + 1, tiny.SIZE, tiny.SIZE, 3))
    pose = np.zeros((LENGTH + 1, 4), np.float32)
    pose[:, 3] = heading
    packed = np.frombuffer(json.dumps(script._asdict()).encode(), np.uint8)
    return dataclasses.replace(base, frames_THWC=frames.astype(np.uint8), extras={"pose": pose, scripts.SCRIPT: packed})


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paths")
    with EpisodeWriter(folder / shard_name("revisit_12", 0, 1)) as writer:
        for seed in range(PATHS):
            writer.write(path_episode(seed))
    write_text(folder / INFO_FILE, tiny.info({"revisit_12": (writer.info,)}).to_json())
    return folder


@pytest.fixture(scope="module")
def paths(model: SlowModel, data_dir: Path) -> list[revisit_paths.RecordedPath]:  # noqa: F811
    return revisit_paths.load_paths(model, EpisodeSource(data_dir, "revisit_12"), PATHS, LENGTH, FUTURE)


def embed(frames_NHWC: np.ndarray) -> np.ndarray:
    flat = frames_NHWC.reshape(len(frames_NHWC), -1) + 1.0
    return flat / np.linalg.norm(flat, axis=-1, keepdims=True)


PLACE = Place("place_test", embed, lambda frames: (frames + 1.0,))


def corners(videos_NTHWC: np.ndarray) -> np.ndarray:
    """Stands for a network of frames."""
    return videos_NTHWC[..., :4, :4, :].reshape(*videos_NTHWC.shape[:2], -1) + 1.0


def gaps(pairs_N12HWC: np.ndarray) -> np.ndarray:
    """Stands for a network of pairs of frames."""
    a, b = pairs_N12HWC[:, :, 0] * 1.0, pairs_N12HWC[:, :, 1] * 1.0
    return abs(a - b).mean((2, 3, 4))[..., None]


NETWORKS = {"src_resnet18": corners, "lpips_vgg": gaps}


class Notes:
    """A memory that remembers what it was told."""

    def init(self, past: Past, key_B: Key) -> Any:
        return []

    def recall(self, m: Any, past: Past, coming_BTA: object) -> Recalled:
        return Recalled(past)

    def remember(self, m: Any, past: Past, new: Past, token_BL: Array | None, key_B: Key) -> Any:
        return [*m, (np.asarray(new.frames_BTHWC), new.action_BTA, token_BL)]


def minus_one(recalled: Recalled, window: VideoBatch, key_B: Key) -> Array:
    """A sampler that generates black frames."""
    b, _, h, w, c = recalled.past.frames_BTHWC.shape
    return -jnp.ones((b, FUTURE, h, w, c))


def followed(model: SlowModel, paths: list[revisit_paths.RecordedPath], primed: bool) -> list[Any]:  # noqa: F811
    """What a memory was told along the paths, chunk by chunk, in a world that generates black frames."""
    codec = ActionCodec(model.data, "continuous", 8, FUTURE)
    world = SlowWorld(
        minus_one, Notes(), lambda m: m, averages, lambda x: [squares(x)], codec, PAST, (tiny.SIZE,) * 2, lambda: (1, 0)
    )
    state = world.start(np.stack([path.video_THWC[:1] for path in paths]))
    driven = revisit_paths.Watching(world, paths) if primed else world
    *_, last = rollout(driven, state, revisit_paths.actions_of(paths, FUTURE))
    return last.state.memory


def test_a_memory_watches_the_first_visit_and_the_way_back_is_generated(
    model: SlowModel,  # noqa: F811
    paths: list[revisit_paths.RecordedPath],
) -> None:
    """Each path of a batch for as long as it takes itself."""
    told = np.concatenate([frames for frames, _, _ in followed(model, paths, True)], axis=1)
    for b, path in enumerate(paths):
        seen = path.watched * FUTURE
        real = np.asarray(averages(path.video_THWC[1 : 1 + seen]))
        np.testing.assert_allclose(told[b, :seen], real, atol=1e-6)
        assert (told[b, seen:] == -1).all()
    assert {path.watched for path in paths} == {2, 3}


def test_every_path_has_its_own_actions_and_texts(
    model: SlowModel,  # noqa: F811
    paths: list[revisit_paths.RecordedPath],
) -> None:
    notes = followed(model, paths, False)
    actions = np.concatenate([actions for _, actions, _ in notes], axis=1)
    for b, path in enumerate(paths):
        np.testing.assert_array_equal(actions[b], path.action_TA)
        np.testing.assert_array_equal([tokens[b] for _, _, tokens in notes], path.token_CL)
    assert not np.array_equal(actions[0], actions[1])


@pytest.mark.parametrize("protocol", ["generated", "primed"])
def test_the_recording_scores_best(paths: list[revisit_paths.RecordedPath], protocol: Any) -> None:
    """A video that forgets the way back is worse in everything that tells likeness."""
    prefix = "primed_" if protocol == "primed" else ""
    path = paths[0]
    changed = path.video_THWC.copy()
    changed[-5:] = 255 - changed[-5:]
    best, worse = (score(PLACE, path, video, FUTURE, 8.0, protocol, NETWORKS) for video in (path.video_THWC, changed))
    assert set(best) == {*metric_names(protocol, "place_test", tuple(NETWORKS)), "similarity"}
    assert best[f"{prefix}revisit_psnr"] == 100 and best[f"{prefix}sharpness"] == 1
    for name in metric_names(protocol, "place_test", tuple(NETWORKS)):
        if "sharpness" not in name and "scuts" not in name:
            sign = -1 if "lpips" in name else 1
            assert sign * best[name] > sign * worse[name], name


@pytest.mark.parametrize("protocol", ["generated", "primed"])
def test_walls_are_scored_in_mazes(paths: list[revisit_paths.RecordedPath], protocol: Any) -> None:
    """Of the frames that are generated; without a network."""
    prefix, path = ("primed_", paths[0]) if protocol == "primed" else ("", paths[0])
    assert f"{prefix}walls_columns" not in score(PLACE, path, path.video_THWC, FUTURE, 8.0, protocol, {})
    walls = np.random.default_rng(0).integers(0, 12, (len(path.video_THWC), path.video_THWC.shape[2]))
    shown = np.broadcast_to(wall_shades()[walls, 0][:, None], path.video_THWC.shape)
    spoilt = shown.copy()
    spoilt[0] = 0
    path = path._replace(walls_TW=walls)
    for video in (shown, spoilt):
        found = score(PLACE, path, video, FUTURE, 8.0, protocol, {})
        assert found[f"{prefix}walls_columns"] == found[f"{prefix}walls_frames"] == 1
    assert set(found) == {*metric_names(protocol, "place_test", WALLS), "similarity"}
    assert score(PLACE, path, path.video_THWC, FUTURE, 8.0, protocol, {})[f"{prefix}walls_columns"] < 0.5


def test_what_was_watched_does_not_count(paths: list[revisit_paths.RecordedPath]) -> None:
    """All but the pairs' earlier visits, which are real in a primed video."""
    path = paths[0]._replace(pairs_N2=np.array([[4, 8]]))
    changed = path.video_THWC.copy()
    changed[2] = 255 - changed[2]
    same = [score(PLACE, path, video, FUTURE, 8.0, "primed", NETWORKS) for video in (path.video_THWC, changed)]
    assert {k: v for k, v in same[0].items() if k != "similarity"} == {
        k: v for k, v in same[1].items() if k != "similarity"
    }


def test_gains_are_paired() -> None:
    """Paths differ a lot, memories by exactly one: the gain is sure where the means' intervals overlap."""
    none = [10.0, 20.0, 30.0]
    results = compared("revisit_psnr", {"none": none, "m": [v + 1 for v in none], "truth": none}, 200)
    assert results["revisit_psnr/m/200"] == 21 and results["revisit_psnr_gain/m/200"] == 1
    assert results["revisit_psnr_gain/m/200_ci95"] == pytest.approx(0, abs=1e-9)
    assert "revisit_psnr_gain/truth/200" not in results
    assert not clearly_better("revisit_psnr", results, "m", "none", 200)
    sure = compared("lpips_place_vizdoom", {"none": [1.0, 1.1], "m": [0.1, 0.2]}, 200)
    assert clearly_better("lpips_place_vizdoom", sure, "m", "none", 200)
    assert not clearly_better("lpips_place_vizdoom", sure, "none", "m", 200)


def test_a_cell_comes_back_and_other_settings_are_refused(tmp_path: Path) -> None:
    cell = Cell(
        12, "primed", "none", [{"a": 1.0, "similarity": [1.0]}], [np.ones((2, 4, 4, 3), np.uint8)], ["p"], 0.5, 1.0, 2.0
    )
    place = tmp_path / "12-primed-none"
    assert load_cell(place, {"seed": 0}) is None
    save_cell(place, cell, {"seed": 0})
    found = load_cell(place, {"seed": 0})
    assert found is not None and found._replace(videos=[]) == cell._replace(videos=[])
    np.testing.assert_array_equal(found.videos[0], cell.videos[0])
    with pytest.raises(VgenError, match="seed = 0, now it is 1: delete"):
        load_cell(place, {"seed": 1})
    (tmp_path / "12-primed-none.npz").write_bytes(b"broken")
    with pytest.raises(VgenError, match="12-primed-none.json cannot be read"):
        load_cell(place, {"seed": 0})


def config(data_dir: Path) -> ConfigDict:
    contenders = {
        name: {"memory": common.memory(name, **FAST), "past": past}
        for name, past in (("none", PAST), ("temp_lora", PAST), ("anchor", 1))
    }
    settings = {
        "split": "revisit", "lengths": (LENGTH,), "paths": PATHS, "batch": 2, "protocols": ("generated", "primed"),
        "future": FUTURE, "guidance": 1.0, "seed": 0, "decode_frames": FUTURE, "shown_paths": 1,
        "shown_memories": ("none", "temp_lora"), "memories": (), "networks": (),
    }  # fmt: skip
    return ConfigDict(
        {
            "run": "revisit", "data_dir": str(data_dir), "model_dir": "m", "place_dir": "p", "weights_dir": "",
            "collect": {}, "revisit": settings,
            "memories": contenders, "sampler": common.sampler(2),
        },
        convert_dict=True,
    ).lock()  # fmt: skip


@pytest.fixture
def loaded(model: SlowModel, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A run finds its model and its place encoder without files."""
    monkeypatch.setattr(revisit, "load_slow_model", lambda folder: model)
    monkeypatch.setattr(revisit, "load_place", lambda folder: PLACE)
    monkeypatch.setattr(revisit, "digest", lambda folder: "0")


@pytest.mark.slow
def test_a_run_measures_everything_once(
    loaded: None, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every memory in every protocol; started again it measures nothing."""
    revisit.run(config(data_dir), tmp_path / "run")
    text = (tmp_path / "run" / "results.json").read_text()
    results = json.loads(text)
    for protocol in ("generated", "primed"):
        for metric in metric_names(protocol, "place_test"):
            for memory in ("none", "temp_lora", "anchor", "truth"):
                assert f"{metric}/{memory}/12" in results and f"{metric}/{memory}/12_ci95" in results
    assert results["primed_psnr/truth/12"] == 100 > results["primed_psnr/none/12"]
    assert results["primed_psnr/temp_lora/12"] != results["primed_psnr/none/12"]
    for cost in ("time_ratio", "held_ratio", "peak_ratio"):
        assert results[f"{cost}/none/12"] == 1 and results[f"primed_{cost}/temp_lora/12"] > 0
    assert results["peak_mib/temp_lora/12"] > results["held_mib/temp_lora/12"] > results["held_mib/none/12"]
    assert (tmp_path / "run" / "samples" / "12-primed-0.mp4").is_file()
    assert "similarity to the first frame" in (tmp_path / "run" / "report.html").read_text()
    with monkeypatch.context() as again:
        again.setattr(measurement, "played", None)
        revisit.run(config(data_dir), tmp_path / "run")
    assert (tmp_path / "run" / "results.json").read_text() == text
    more = config(data_dir)
    with more.unlocked():
        more.memories.anchor_two = more.memories.anchor
    with pytest.raises(TypeError, match="NoneType"), monkeypatch.context() as again:
        again.setattr(measurement, "played", None)  # a memory that was added is measured
        revisit.run(more, tmp_path / "run")


def test_published_networks_score_beside_the_place_encoder(
    loaded: None, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recording comes back as it was; without its weights a network is an error that names the file."""
    monkeypatch.delenv("VGEN_WEIGHTS", raising=False)
    wanted = config(data_dir)
    with wanted.unlocked():
        wanted.revisit.networks = tuple(NETWORKS)
        wanted.memories = {"none": wanted.memories.none}
        wanted.revisit.shown_memories = ("none",)
    with pytest.raises(VgenError, match="src_resnet18 needs resnet18-f37072fd.pth"):
        revisit.run(wanted, tmp_path / "out")

    def feature_net(name: str, weights_dir: str) -> FeatureNet:
        rows, apply = ("frame", corners) if name.startswith("src_") else ("pair", gaps)
        whole = lambda params, x: apply(x[None])[0] if rows == "frame" else apply(x[:, None])[:, 0]  # noqa: E731
        return FeatureNet(name, rows, 48 if rows == "frame" else 1, whole, {}, {"sha256": "1"})

    monkeypatch.setattr(revisit, "feature_net", feature_net)
    revisit.run(wanted, tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["src_resnet18/truth/12"] == pytest.approx(100) and results["src_resnet18/none/12"] < 99.9
    assert results["primed_lpips_vgg/truth/12"] == 0 < results["primed_lpips_vgg/none/12"]
    assert results["contract"]["src_resnet18"] == {"sha256": "1"}
    assert "lpips_vgg" in (tmp_path / "out" / "report.html").read_text()


def test_missing_paths_name_the_command(tmp_path: Path, data_dir: Path) -> None:
    for folder, length in ((tmp_path, LENGTH), (data_dir, 64)):
        wanted = config(folder)
        settings = section(RevisitConfig, {**wanted.revisit, "lengths": (length,)}, "revisit")
        with pytest.raises(VgenError, match=f"split revisit_{length}: .*configs/data/revisit.py --workdir={folder}"):
            revisit.open_paths(wanted, settings)


def test_missing_paths_are_recorded_where_the_config_says_how(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def collect(stage: ConfigDict, folder: Path) -> None:
        started.append(stage.run)
        shutil.copytree(data_dir, folder)

    monkeypatch.setattr(revisit.runs, "start", collect)
    wanted = config(tmp_path / "paths")
    with wanted.unlocked():
        wanted.collect = ConfigDict({"run": "collect_paths"})
    settings = section(RevisitConfig, wanted.revisit.to_dict(), "revisit")
    for _ in range(2):
        assert len(revisit.open_paths(wanted, settings)[LENGTH]) == PATHS
    assert started == ["collect_paths"]


def test_too_few_or_too_short_paths_are_refused(model: SlowModel, data_dir: Path) -> None:  # noqa: F811
    source = EpisodeSource(data_dir, "revisit_12")
    with pytest.raises(VgenError, match="4 paths of split revisit_12, not 9: collect more"):
        revisit_paths.load_paths(model, source, 9, LENGTH, FUTURE)
    with pytest.raises(VgenError, match="13 frames, not 17"):
        revisit_paths.load_paths(model, source, 1, 16, FUTURE)
    with pytest.raises(VgenError, match="does not come back"):
        revisit_paths.load_paths(model, source, 1, 6, FUTURE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocols": ("generated", "both")}, "revisit.protocols has 'both'"),
        ({"batch": 3}, "revisit.paths is 4: use a multiple of revisit.batch 3"),
        ({"lengths": (13,)}, "revisit.lengths has 13: use multiples of revisit.future 2"),
        ({"shown_paths": 5}, "revisit.shown_paths is 5"),
        ({"networks": ("src_vgg",)}, "revisit.networks has 'src_vgg': use some of src_resnet18, lpips_vgg, lpips_alex"),
    ],
)
def test_settings_that_cannot_be_are_refused(data_dir: Path, change: dict, message: str) -> None:
    with pytest.raises(VgenError, match=message):
        section(RevisitConfig, {**config(data_dir).revisit.to_dict(), **change}, "revisit")


@pytest.mark.parametrize("variant", sorted(benchmark.VARIANTS))
def test_the_configs_are_whole(variant: str) -> None:
    """And a flag for one memory changes no other."""
    found = benchmark.get_config(variant)
    settings = section(RevisitConfig, found.revisit.to_dict(), "revisit")
    before = contenders_of(found.memories.to_dict(), settings)
    changed = next(name for name in before if name in ("temp_lora", "centre"))
    found.memories[changed].memory.temp_lora.lora.rank = 7
    after = contenders_of(found.memories.to_dict(), settings)
    assert {name for name in before if before[name] != after[name]} == {changed}
    some = contenders_of(found.memories.to_dict(), dataclasses.replace(settings, memories=(changed, "none")))
    assert list(some) == ["none", changed] and some[changed] == after[changed]
    lengths = {f"{settings.split}_{length}" for length in settings.lengths}
    assert lengths <= set(found.collect.splits) and found.collect.splits[min(lengths)].episodes >= settings.paths


def test_a_verdict_asks_for_all_at_once() -> None:
    """A sure win over both baselines, without blur."""
    values = {
        "src_p": {"none": 10, "context": 12, "good": 20, "blurred": 20, "unsure": 13},
        "revisit_psnr": {"none": 10, "context": 12, "good": 20, "blurred": 20, "unsure": 20},
        "sharpness": {"none": 1.0, "context": 1.0, "good": 0.96, "blurred": 0.9, "unsure": 1.0},
    }
    results = {f"{metric}/{name}/9": float(x) for metric, row in values.items() for name, x in row.items()}
    results |= {f"{key}_ci95": 1.0 for key in results}
    cell = Cell(9, "generated", "", [], [], [], 1.0, 1.0)
    found = {"truth": cell} | dict.fromkeys(values["src_p"], cell)
    rows = revisit_report.verdict_table(results, found, 9, "generated", "p", "t").rows
    assert [list(row[:3]) for row in rows] == [
        ["good", "yes", "0.96"], ["blurred", "no", "0.90"], ["unsure", "no", "1.00"],
    ]  # fmt: skip
    assert rows[2][3:] == ["yes", "no", "yes", "yes"]


def test_a_video_that_was_not_kept_is_named(tmp_path: Path) -> None:
    cell = Cell(12, "primed", "truth", [], [np.zeros((2, 4, 4, 3), np.uint8)], ["p"], 0.5, 1.0)
    found = {"truth": cell, "none": cell._replace(videos=[])}
    with pytest.raises(VgenError, match="memory none keeps no video 0"):
        revisit_report.write_comparison(tmp_path / "x.mp4", found, 0, ("none",), 8.0)
