"""Imports a folder of LeRobot's, version 2.1 or 3: tables of actions (parquet) and videos (mp4).

``meta/info.json`` says the version, the rate, the features, and how files are called. In version 2.1 an episode is one
table and one video per camera, and ``meta/episodes.jsonl`` lists them; in version 3 files hold many episodes, and the
tables in ``meta/episodes`` say which rows and which seconds are whose. Frames may also stand in the table as PNG or
JPEG. The action of row t is the command at frame t. Needs ``pip install 'vgen_jax[robots]'`` (pyarrow).
"""

import dataclasses
import functools
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, UnidentifiedImageError

from vgen_jax.data.importers.trajectories import Drive
from vgen_jax.data.importers.videos import fitted
from vgen_jax.types import VgenError

VERSIONS = ("v2", "v3")


@dataclasses.dataclass(frozen=True)
class LerobotConfig:
    """What to import; a ``data.importers.trajectories.Format``.

    Attributes:
        folder: the data set's, with ``meta/info.json``.
        source: a name for the data set.
        split: what these episodes are called here.
        first, episodes: which of its episodes; 0 episodes for all from the first on.
        camera: the feature that holds the frames; empty for the first camera that there is.
        action: the feature that holds the action.
        columns: which of its numbers, by their places.
        names: what they are called here.
        scale: per number, raw units that make 1 in model units.
        fps: wanted frames per second, a whole part of the data's; 0 for all.
        size: (height, width) of the stored frames; pictures are cropped to that aspect around their centre.
        chunk: the grid of windows.
        per_shard: episodes per shard: how much a kill can lose.
        workers: parallel processes; has no influence on what is written.
    """

    folder: str
    source: str
    split: str
    first: int
    episodes: int
    camera: str
    action: str
    columns: tuple[int, ...]
    names: tuple[str, ...]
    scale: tuple[float, ...]
    fps: float
    size: tuple[int, int]
    chunk: int
    per_shard: int
    workers: int

    def __post_init__(self) -> None:
        if self.first < 0 or self.episodes < 0:
            raise VgenError(f"first={self.first} and episodes={self.episodes} must not be negative")
        if len(self.columns) != len(self.names):
            raise VgenError(f"columns {self.columns} and names {self.names}: give one name for each column")

    def rate(self) -> float:
        return float(_entry(self.info(), "fps", self._info_file))

    def items(self) -> tuple[str, ...]:
        """The numbers of the episodes.

        Raises:
            VgenError: if there are fewer than asked for.
        """
        numbers = sorted(_episodes(self.folder, self.is_third))
        stop = self.first + (self.episodes or max(0, len(numbers) - self.first))
        if stop > len(numbers):
            raise VgenError(f"{self.folder} has {len(numbers)} episodes, not first + episodes = {stop}")
        return tuple(str(number) for number in numbers[self.first : stop])

    @property
    def _info_file(self) -> Path:
        return Path(self.folder).expanduser() / "meta" / "info.json"

    def info(self) -> dict[str, Any]:
        """``meta/info.json``.

        Raises:
            VgenError: missing, damaged, or of another version.
        """
        found = _read_json(self._info_file)
        version = str(_entry(found, "codebase_version", self._info_file))
        if not version.startswith(VERSIONS):
            raise VgenError(f"{self._info_file} is of version {version}: {' and '.join(VERSIONS)} can be read")
        return found

    @property
    def is_third(self) -> bool:
        """Whether files hold many episodes."""
        return str(self.info()["codebase_version"]).startswith("v3")

    def read(self, item: str) -> Iterator[Drive]:
        """One episode.

        Raises:
            VgenError: a file or a feature that is missing, damaged, or does not fit the others.
        """
        info, root = self.info(), Path(self.folder).expanduser()
        features = _entry(info, "features", self._info_file)
        camera = self._camera(features)
        row = _episodes(self.folder, self.is_third)[int(item)]
        table_path, video_path, places = self._places(info, row, camera, int(item), root)
        columns = _table(table_path)
        table = {name: columns[name][places] for name in columns}
        for name in (self.action, *(() if _is_video(features[camera]) else (camera,))):
            if name not in table:
                raise VgenError(f"{table_path} has no column {name}; it has {', '.join(table)}")
        rows, length = len(table[self.action]), int(_entry(row, "length", self._info_file.with_name("episodes")))
        if rows != length:
            raise VgenError(f"{table_path}: episode {item} has {rows} rows, but the episodes' list says {length}")
        actions = _numbers(table[self.action], self.columns, table_path)
        if _is_video(features[camera]):
            begin = float(row[f"videos/{camera}/from_timestamp"]) if self.is_third else 0.0
            frames = _video(video_path, begin, length, self.rate(), self.size)
        else:
            frames = np.stack([_picture(cell, self.size, table_path) for cell in table[camera]])
        if len(frames) != length:
            raise VgenError(f"{video_path}: {len(frames)} frames for the {length} rows of episode {item}")
        tasks = row["tasks"] if "tasks" in row and row["tasks"] is not None else []
        yield Drive(f"episode_{int(item):06d}", frames, actions, self.rate(), ", ".join(map(str, tasks)))

    def _camera(self, features: Mapping[str, Any]) -> str:
        cameras = [name for name, about in features.items() if about["dtype"] in ("video", "image")]
        if (self.camera or None) not in (None, *cameras) or not cameras:
            named = self.camera or "a camera"
            raise VgenError(f"{self.folder} has no {named} among its features; its cameras are {', '.join(cameras)}")
        return self.camera or cameras[0]

    def _places(
        self, info: Mapping[str, Any], row: Mapping[str, Any], camera: str, number: int, root: Path
    ) -> tuple[Path, Path, slice]:
        """The table, the video, and the rows of an episode."""
        data, video = (str(_entry(info, key, self._info_file)) for key in ("data_path", "video_path"))
        if self.is_third:
            at = {"chunk_index": int(row["data/chunk_index"]), "file_index": int(row["data/file_index"])}
            shown = dict(at)
            if f"videos/{camera}/chunk_index" in row:
                shown = {key: int(row[f"videos/{camera}/{key}"]) for key in at}
            first = int(row["dataset_from_index"]) - _first_row(self.folder, row)
            rows = slice(first, first + int(row["length"]))
            return root / data.format(**at), root / video.format(video_key=camera, **shown), rows
        chunk = number // int(_entry(info, "chunks_size", self._info_file))
        names = {"episode_chunk": chunk, "episode_index": number, "video_key": camera}
        return root / data.format(**names), root / video.format(**names), slice(None)


def _is_video(feature: Mapping[str, Any]) -> bool:
    return bool(feature["dtype"] == "video")


def _entry(values: Mapping[str, Any], key: str, where: Path) -> Any:
    if key not in values:
        raise VgenError(f"{where} has no '{key}': this is no folder of LeRobot's, or a damaged one")
    return values[key]


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise VgenError(f"{path} is missing: name a folder of LeRobot's")
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise VgenError(f"{path} is damaged ({error}): copy it again") from error
    return found


@functools.lru_cache(2)
def _episodes(folder: str, third: bool) -> dict[int, dict[str, Any]]:
    """What the folder says of each episode, by its number."""
    meta = Path(folder).expanduser() / "meta"
    if third:
        rows: list[dict[str, Any]] = []
        for path in sorted((meta / "episodes").rglob("*.parquet")):
            table = _table(path)
            count = len(next(iter(table.values())))
            rows += [{name: column[n] for name, column in table.items()} for n in range(count)]
        where = meta / "episodes"
    else:
        where = meta / "episodes.jsonl"
        if not where.is_file():
            raise VgenError(f"{where} is missing: copy the data set whole")
        try:
            rows = [json.loads(line) for line in where.read_text(encoding="utf-8").splitlines() if line.strip()]
        except ValueError as error:
            raise VgenError(f"{where} is damaged ({error}): copy it again") from error
    if not rows:
        raise VgenError(f"{where} lists no episodes: copy the data set whole")
    return {int(_entry(row, "episode_index", where)): row for row in rows}


def _first_row(folder: str, row: Mapping[str, Any]) -> int:
    """The number, over the whole data set, of the first row of the file in which an episode lies."""
    key = (row["data/chunk_index"], row["data/file_index"])
    same = [
        int(other["dataset_from_index"])
        for other in _episodes(folder, True).values()
        if (other["data/chunk_index"], other["data/file_index"]) == key
    ]
    return min(same)


@functools.lru_cache(4)
def _table(path: Path) -> dict[str, Any]:
    """A parquet file's columns as lists of Python objects.

    Raises:
        VgenError: pyarrow or the file is missing, or it is damaged.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise VgenError("LeRobot's tables need pyarrow; pip install 'vgen_jax[robots]'") from error
    if not path.is_file():
        raise VgenError(f"{path} is missing: copy the data set whole")
    try:
        found: dict[str, Any] = pyarrow.parquet.read_table(path).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise VgenError(f"{path} is damaged ({str(error).splitlines()[0]}): copy it again") from error
    return found


def _numbers(rows: list[Any], columns: tuple[int, ...], where: Path) -> np.ndarray:
    """The wanted columns of the actions, float32 (T, A)."""
    try:
        values = np.asarray(rows, np.float32)
    except (TypeError, ValueError) as error:
        raise VgenError(f"{where}: the actions are no table of numbers ({error})") from error
    values = values.reshape(len(rows), -1)
    if max(columns, default=0) >= values.shape[1]:
        raise VgenError(f"{where}: actions have {values.shape[1]} numbers, columns names {columns}: use others")
    return values[:, list(columns)]


def _picture(cell: Any, size: tuple[int, int], where: Path) -> np.ndarray:
    try:
        return fitted(Image.open(io.BytesIO(cell["bytes"])), size)
    except (UnidentifiedImageError, OSError, KeyError, TypeError) as error:
        raise VgenError(f"{where}: a frame is no picture ({error})") from error


def _video(path: Path, begin: float, count: int, fps: float, size: tuple[int, int]) -> np.ndarray:
    """``count`` frames from a time on, uint8.

    Raises:
        VgenError: missing, undecodable, of another rate, or with a frame left out.
    """
    if not path.is_file():
        raise VgenError(f"{path} is missing: copy the data set whole")
    frames: list[np.ndarray] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            for frame in container.decode(stream):
                time = float(frame.time if frame.time is not None else len(frames) / fps)
                number = round((time - begin) * fps)
                if not 0 <= number < count:
                    continue
                if number != len(frames) or abs((time - begin) * fps - number) > 0.25:
                    raise VgenError(
                        f"{path}: a frame at {time:.3f} s, but frame {len(frames)} was expected at "
                        f"{begin + len(frames) / fps:.3f} s: frames are missing, or the rate is not {fps:g}"
                    )
                frames.append(fitted(frame.to_image(), size))
    except (av.FFmpegError, IndexError) as error:
        raise VgenError(f"{path}: cannot be decoded as a video ({error})") from error
    if len(frames) != count:
        raise VgenError(f"{path}: {len(frames)} frames instead of {count}: frames are missing")
    return np.stack(frames)
