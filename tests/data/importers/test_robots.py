"""Robots' data in the layouts that others write: RoAM, ViNT and GNM, RECON; each with odd cases."""

import dataclasses
import io
import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from vgen_jax.data.importers.recon import ReconConfig
from vgen_jax.data.importers.roam import RoamConfig, export_split, reduced_bilinear, write_sequence
from vgen_jax.data.importers.trajectories import Drive, body_velocities, episode_of, kept_every, plan_of
from vgen_jax.data.importers.vint import VintConfig, read_poses
from vgen_jax.data.records import INFO_FILE, EpisodeSource, EpisodeWriter, shard_name, write_text
from vgen_jax.data.schema import Episode
from vgen_jax.data.tfrecord import serialise, serialise_example, write_record
from vgen_jax.types import VgenError

T, SIDE = 7, 16
RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (T, SIDE, SIDE, 3), np.uint8)
COMMANDS = RNG.uniform(-1, 1, (T, 2)).astype(np.float32) * (0.1, 1.8)
COMMON: dict[str, Any] = {"source": "test", "split": "train", "chunk": 1, "per_shard": 2, "workers": 1}


def episodes(format: Any) -> list[Episode]:
    plan = plan_of(format)
    return [episode for shard in range(plan.shards) for episode in plan.open().record(shard)]


def roam(folder: Path, **changes: Any) -> RoamConfig:
    base = RoamConfig(folder=str(folder), pattern="*.tfrecord", recorded_fps=20.0, fps=0.0, size=(SIDE, SIDE), **COMMON)
    return dataclasses.replace(base, **changes)


def test_roams_sequences_become_episodes(tmp_path: Path) -> None:
    write_sequence(tmp_path / "a.tfrecord", FRAMES, COMMANDS, "corridor")
    write_sequence(tmp_path / "b.tfrecord", FRAMES[:1], COMMANDS[:1], "one frame")
    (only,) = episodes(roam(tmp_path))
    assert only.scene == "test/corridor" and only.fps == 20.0
    np.testing.assert_array_equal(only.frames_THWC, FRAMES)
    # T frames, T - 1 actions: the one at frame t leads to t + 1, the last leads nowhere.
    np.testing.assert_allclose(only.actions["continuous"], COMMANDS[:-1], rtol=1e-6)
    info = plan_of(roam(tmp_path)).open().describe()
    np.testing.assert_allclose(info.action_spaces["continuous"].to_model(COMMANDS), COMMANDS / (0.1, 1.8), rtol=1e-6)


def test_other_rates_keep_every_kth_frame_and_the_mean_of_its_actions(tmp_path: Path) -> None:
    write_sequence(tmp_path / "a.tfrecord", FRAMES, COMMANDS, "corridor")
    (only,) = episodes(roam(tmp_path, fps=10.0))
    np.testing.assert_array_equal(only.frames_THWC, FRAMES[::2])
    np.testing.assert_allclose(only.actions["continuous"][1], COMMANDS[2:4].mean(0), rtol=1e-5)
    assert only.fps == 10.0 and kept_every(20.0, 0.0, "x") == 1
    with pytest.raises(VgenError, match="20 frames/s, of which 15 are no whole part"):
        episodes(roam(tmp_path, fps=15.0))


def test_roams_pictures_become_smaller_as_published() -> None:
    """From 4 to 1: the mean of pixels 1 and 2 of each axis, times 255.5 / 255, cut off; at the same size nothing."""
    frame = RNG.integers(0, 256, (16, 32, 3), np.uint8)
    mean = frame.reshape(4, 4, 8, 4, 3)[:, 1:3, :, 1:3].astype(np.float64).mean((1, 3))
    found = reduced_bilinear(frame, (4, 8))
    np.testing.assert_allclose(found, np.floor(mean / 255 * 255.5), atol=1)
    assert (found == np.floor(mean / 255 * 255.5)).mean() > 0.95
    np.testing.assert_array_equal(reduced_bilinear(frame, (16, 32)), frame)
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    np.testing.assert_array_equal(reduced_bilinear(ramp, (16, 16)), ramp)


def test_the_layout_is_that_of_published_files(tmp_path: Path) -> None:
    """Alpha is dropped; actions are (T, 1, 2); a sequence without a name is called by its file."""
    opaque = np.concatenate([FRAMES, np.zeros((T, SIDE, SIDE, 1), np.uint8)], axis=-1)
    unit = np.ones((T, 1, 2), np.float32)
    with (tmp_path / "c.tfrecord").open("wb") as file:
        write_record(file, serialise_example({"image_left": serialise(opaque), "action": serialise(unit)}))
    (only,) = episodes(roam(tmp_path))
    assert only.scene == "test/c.tfrecord/0"
    np.testing.assert_array_equal(only.frames_THWC, FRAMES)
    np.testing.assert_allclose(only.actions["continuous"], np.broadcast_to((0.1, 1.8), (T - 1, 2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"action": serialise(np.zeros((T, 1, 2), np.float32))}, "no feature image_left; it has action"),
        ({"image_left": serialise(FRAMES), "action": serialise(np.zeros((3, 1, 2), np.float32))}, "6 numbers for 7"),
        (
            {"image_left": serialise(FRAMES[0]), "action": serialise(np.zeros((7, 2), np.float32))},
            r"expected uint8 \(T",
        ),
        ({"image_left": serialise(FRAMES), "action": b"\x08\x0e"}, "no serialised tensor"),
    ],
)
def test_other_sequences_are_refused_by_file_and_record(features: dict, message: str, tmp_path: Path) -> None:
    with (tmp_path / "c.tfrecord").open("wb") as file:
        write_record(file, serialise_example(features))
    with pytest.raises(VgenError, match=f"c.tfrecord: record 0: .*{message}") as refused:
        episodes(roam(tmp_path))
    assert "\n" not in str(refused.value)


def test_folders_without_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VgenError, match="no file like"):
        plan_of(roam(tmp_path))
    with pytest.raises(VgenError, match="is no folder"):
        plan_of(roam(tmp_path / "nothing"))


def test_records_become_roams_files_and_come_back(tmp_path: Path) -> None:
    write_sequence(tmp_path / "raw" / "a.tfrecord", FRAMES, COMMANDS, "corridor")
    recorder = plan_of(roam(tmp_path / "raw")).open()
    (original,) = recorder.record(0)
    records = tmp_path / "records"
    records.mkdir()
    with EpisodeWriter(records / shard_name("train", 0, 1)) as writer:
        writer.write(original)
    write_text(
        records / INFO_FILE, dataclasses.replace(recorder.describe(), splits={"train": (writer.info,)}).to_json()
    )
    (path,) = export_split(EpisodeSource(records, "train"), tmp_path / "out")
    assert path.name == "train-00000.tfrecord"
    (again,) = episodes(roam(tmp_path / "out"))
    np.testing.assert_array_equal(again.frames_THWC, original.frames_THWC)
    np.testing.assert_allclose(again.actions["continuous"], original.actions["continuous"], rtol=1e-5)


def test_velocities_are_those_of_a_circle() -> None:
    fps, speed, turn = 4.0, 0.5, 0.8
    heading = 3.0 + turn / fps * np.arange(20)  # goes on beyond pi
    chord = speed / fps * (np.stack([np.cos(heading), np.sin(heading)], 1)[:-1] * 0 + 1)
    middle = (heading[:-1] + heading[1:]) / 2
    steps = chord * np.stack([np.cos(middle), np.sin(middle)], 1)
    position = np.concatenate([[[2.0, -1.0]], [2.0, -1.0] + np.cumsum(steps, axis=0)])
    wrapped = (heading + np.pi) % (2 * np.pi) - np.pi
    found = body_velocities(position, wrapped, fps)
    np.testing.assert_allclose(found, np.broadcast_to((speed, turn), (20, 2)), rtol=1e-5)
    assert body_velocities(position[:1], wrapped[:1], fps).shape == (1, 2)


def vint(folder: Path, **changes: Any) -> VintConfig:
    base = VintConfig(
        folder=str(folder), trajectories=(), recorded_fps=4.0, fps=0.0, scale=(1.0, 1.0), size=(SIDE, SIDE), **COMMON
    )
    return dataclasses.replace(base, **changes)


POSES = {"position": np.cumsum(np.full((T, 2), 0.1), axis=0), "yaw": np.full(T, np.pi / 4)}


def write_vint(folder: Path, frames: int = T, poses: Any = POSES, protocol: int = 5) -> Path:
    folder.mkdir(parents=True)
    for number in range(frames):
        Image.fromarray(np.full((SIDE, 20, 3), 30 * number, np.uint8)).save(folder / f"{number}.jpg", quality=95)
    (folder / "traj_data.pkl").write_bytes(pickle.dumps(poses, protocol=protocol))
    return folder


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_trajectories_of_jpegs_and_poses_become_episodes(protocol: int, tmp_path: Path) -> None:
    write_vint(tmp_path / "run_1", protocol=protocol)
    write_vint(tmp_path / "run_2", 1, {name: values[:1] for name, values in POSES.items()})
    (only,) = episodes(vint(tmp_path))
    assert only.frames_THWC.shape == (T, SIDE, SIDE, 3) and abs(int(only.frames_THWC[3].mean()) - 90) < 3
    np.testing.assert_allclose(
        only.actions["continuous"], np.broadcast_to((4 * 0.1 * 2**0.5, 0.0), (T - 1, 2)), atol=1e-6
    )
    np.testing.assert_allclose(only.extras["pose"][:, 3], 45.0, rtol=1e-6)


class Harmful:
    """What a pickle may hold: a call."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_runs_nothing(tmp_path: Path) -> None:
    folder = write_vint(tmp_path / "run_1", poses={**POSES, "yaw": Harmful(tmp_path / "harm")})
    with pytest.raises(VgenError, match="holds more than arrays.*mkdir"):
        read_poses(folder / "traj_data.pkl")
    assert not (tmp_path / "harm").exists()


def test_odd_trajectories_are_refused(tmp_path: Path) -> None:
    folder = write_vint(tmp_path / "run_1")
    (folder / "3.jpg").rename(folder / "9.jpg")
    with pytest.raises(VgenError, match=r"run_1/3.jpg is missing"):
        episodes(vint(tmp_path))
    (folder / "9.jpg").unlink()
    for number in (4, 5, 6):
        (folder / f"{number}.jpg").unlink()
    with pytest.raises(VgenError, match="3 frames, 7 positions and 7 headings"):
        episodes(vint(tmp_path))
    (folder / "2.jpg").write_bytes(b"no picture")
    (folder / "traj_data.pkl").write_bytes(pickle.dumps({name: values[:3] for name, values in POSES.items()}))
    with pytest.raises(VgenError, match="2.jpg is no picture"):
        episodes(vint(tmp_path))
    for content, message in ((b"", "damaged"), (pickle.dumps([1]), "no position and yaw"), (b"\x80", "damaged")):
        (folder / "traj_data.pkl").write_bytes(content)
        with pytest.raises(VgenError, match=message):
            read_poses(folder / "traj_data.pkl")
    with pytest.raises(VgenError, match="run_7/traj_data.pkl is missing"):
        plan_of(vint(tmp_path, trajectories=("run_7",)))


def jpeg(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((SIDE, SIDE, 3), value, np.uint8)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def recon(folder: Path, **changes: Any) -> ReconConfig:
    base = ReconConfig(
        folder=str(folder), first=0, files=0, recorded_fps=4.0, fps=0.0, scale=(1.0, 1.0), size=(SIDE, SIDE), **COMMON
    )
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize("kind", ["opaque", "numbers"])
def test_recons_files_become_episodes(kind: str, tmp_path: Path) -> None:
    pictures = [jpeg(20 * n) for n in range(T)]
    with h5py.File(tmp_path / "jackal_1.hdf5", "w") as file:
        if kind == "opaque":
            file["images/rgb_left"] = np.asarray(pictures, dtype="S")
        else:
            cells = file.create_dataset("images/rgb_left", (T,), h5py.vlen_dtype(np.uint8))
            for n, picture in enumerate(pictures):
                cells[n] = np.frombuffer(picture, np.uint8)
        file["jackal/position"] = np.concatenate([POSES["position"], np.zeros((T, 1))], axis=1)
        file["jackal/yaw"] = POSES["yaw"][:, None]
    (only,) = episodes(recon(tmp_path))
    assert [abs(int(frame.mean()) - 20 * n) < 3 for n, frame in enumerate(only.frames_THWC)] == [True] * T
    np.testing.assert_allclose(only.actions["continuous"][:, 0], 4 * 0.1 * 2**0.5, rtol=1e-5)


def test_odd_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VgenError, match="has 0 files"):
        plan_of(recon(tmp_path))
    (tmp_path / "a.hdf5").write_bytes(b"none")
    with pytest.raises(VgenError, match="a.hdf5 is damaged"):
        episodes(recon(tmp_path))
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["jackal/yaw"] = POSES["yaw"]
    with pytest.raises(VgenError, match="no images/rgb_left"):
        episodes(recon(tmp_path))
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["images/rgb_left"] = np.asarray([b"x", b"y"], dtype="S")
        file["jackal/position"] = POSES["position"]
    with pytest.raises(VgenError, match="2 frames, 7 positions"):
        episodes(recon(tmp_path))


def test_actions_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    bad = COMMANDS.copy()
    bad[2, 1] = np.nan
    with pytest.raises(VgenError, match="the action of frame 2 is not finite"):
        episode_of(Drive("x", FRAMES, bad, 20.0), roam(tmp_path), 0)
    with pytest.raises(VgenError, match=r"actions \(7, 3\) for 7 frames and 2 names"):
        episode_of(Drive("x", FRAMES, np.zeros((T, 3)), 20.0), roam(tmp_path), 0)
    for wrong in ({"chunk": 0}, {"size": (12, 16)}, {"fps": -1.0}):
        with pytest.raises(VgenError):
            plan_of(roam(tmp_path, **wrong))
