"""Batches of windows with Grain: deterministic, mixed in length, sharded by process, exactly resumable.

The order of samples is a function of the seed alone. Global batch k is the same whatever the number of processes:
process p of P takes its rows p*B/P .. (p+1)*B/P. So a position is one number, k, and a run may go on with another
number of processes or of loading workers.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from vgen_jax.data.motion import MOTION
from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.windows import ActionChoice, Sample, WindowIndex, WindowReader
from vgen_jax.types import VgenError, VideoBatch

Batch = dict[str, np.ndarray]
_THREADS = 4  # of each loading process; the decoder releases the interpreter's lock
_BUFFER = 8  # batches ready ahead, per process


@dataclasses.dataclass(frozen=True)
class BatchesConfig:
    """What a batch holds and where it comes from.

    Attributes:
        data_dir: a folder with ``dataset.json``.
        split: the split of that data set.
        windows: lengths (f_p, f_g); all samples of a batch share one.
        window_weights: how often each length is drawn, in proportion.
        batch_size: B over all processes.
        token_length: L; 0 for no text.
        seed: of the order.
        action: the action space to load.
        shuffle: whether the order is random.
        repeat: go on for ever, reshuffled each epoch; else stop when the first of the lengths is used up, dropping
            what does not fill a batch.
        workers: loading processes; 0 loads in threads of this process.
        with_pose: load the pose.
    """

    data_dir: str
    split: str
    windows: tuple[tuple[int, int], ...]
    window_weights: tuple[float, ...]
    batch_size: int
    token_length: int
    seed: int
    action: ActionChoice
    shuffle: bool
    repeat: bool
    workers: int
    with_pose: bool

    def __post_init__(self) -> None:
        if not self.windows or len(self.windows) != len(self.window_weights):
            raise VgenError(
                f"windows={self.windows} and window_weights={self.window_weights} must be as many, at least one"
            )
        if not all(weight > 0 for weight in self.window_weights):
            raise VgenError(f"window_weights={self.window_weights} must be positive; leave out what is not wanted")
        if self.batch_size < 1:
            raise VgenError(f"batch_size={self.batch_size} must be at least 1")
        if self.workers < 0 or self.token_length < 0:
            raise VgenError(f"workers={self.workers} and token_length={self.token_length} must not be negative")


class BatchIterator:
    """Iterates over a process's rows of the global batches; its position is JSON.

    A state may be restored in an iterator of another process, process count or worker count.
    """

    def __init__(self, batches: grain.MapDataset[Batch], workers: int):
        self._batches = batches
        self._workers = workers
        self._next = 0
        self._running: Iterator[Batch] | None = None

    def __iter__(self) -> "BatchIterator":
        return self

    def __next__(self) -> Batch:
        if self._running is None:
            self._running = self._start()
        batch = next(self._running)
        self._next += 1
        return batch

    def _start(self) -> Iterator[Batch]:
        if self._next >= len(self._batches):
            return iter(())
        options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_BUFFER)
        dataset = self._batches[self._next :].to_iter_dataset(options)
        if self._workers:
            if not flags.FLAGS.is_parsed():  # Grain's processes read flags, and a library caller need not have any
                flags.FLAGS.mark_as_parsed()
            dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=_BUFFER))
        return iter(dataset)

    def get_state(self) -> dict[str, int]:
        """The number of the next global batch."""
        return {"batch": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to where another iterator's ``get_state`` was."""
        self.close()
        self._next = int(state["batch"])

    def close(self) -> None:
        """Ends the loading threads and processes; iterating again starts them anew."""
        if isinstance(self._running, grain.DatasetIterator):
            self._running.close()
        self._running = None


def make_iterator(config: BatchesConfig, process_index: int, process_count: int) -> BatchIterator:
    """Batches of B / process_count rows, see ``WindowReader`` for the keys.

    Raises:
        VgenError: missing or damaged data, a window that fits no episode, or rows that do not divide.
    """
    rows = rows_of(config.batch_size, process_index, process_count)
    source = EpisodeSource(config.data_dir, config.split).open()
    _check_spaces(config, source)
    parts = []
    for number, (f_p, f_g) in enumerate(config.windows):
        index = WindowIndex(source.frames, source.info.chunk, f_p, f_g)
        part: Any = grain.MapDataset.range(len(index))
        if config.shuffle:
            part = part.shuffle(seed=config.seed + number)
        if config.repeat:
            part = part.repeat()
        load = _Loader(source, config, index)
        parts.append(part.batch(config.batch_size, drop_remainder=True).map(lambda ids, load=load: (load, ids)))
    plan = grain.MapDataset.mix(parts, config.window_weights) if len(parts) > 1 else parts[0]
    if not len(plan):
        raise VgenError(
            f"{config.data_dir}: split {config.split} has fewer windows than batch_size={config.batch_size}"
        )
    batches = plan.map_with_index(lambda k, item: item[0](item[1], k, rows))
    return BatchIterator(batches, config.workers)


class _Loader:
    """Loads the rows of a batch of window numbers."""

    def __init__(self, source: EpisodeSource, config: BatchesConfig, index: WindowIndex):
        self._index = index
        self._batch_size = config.batch_size
        self._read = WindowReader(source, index.f_p, index.f_g, config.action, config.token_length, config.with_pose)

    def __call__(self, numbers: np.ndarray, batch: int, rows: slice) -> Batch:
        samples = [
            self._read(self._index[int(number)], batch * self._batch_size + row)
            for row, number in list(enumerate(numbers))[rows]
        ]
        return stack(samples)


def stack(samples: list[Sample]) -> Batch:
    return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}


def rows_of(batch_size: int, process_index: int, process_count: int) -> slice:
    """A process's rows of a global batch."""
    if batch_size % process_count:
        raise VgenError(f"batch_size={batch_size} must be a multiple of the {process_count} processes")
    each = batch_size // process_count
    return slice(process_index * each, (process_index + 1) * each)


def _check_spaces(config: BatchesConfig, source: EpisodeSource) -> None:
    if config.action not in ("none", MOTION) and config.action not in source.info.action_spaces:
        found = ", ".join(source.info.action_spaces) or "none"
        raise VgenError(f"{config.data_dir}: action={config.action!r} is not in the data, which has: {found}")


def choose_windows(source: EpisodeSource, index: WindowIndex, count: int, seed: int) -> list[int]:
    """A fixed choice of ``count`` window numbers, spread evenly over scenes and, in a scene, over episodes and time.

    Raises:
        VgenError: the split has fewer windows.
    """
    if count > len(index):
        raise VgenError(f"{source.folder}: {count} windows asked of split {source.split}, which has {len(index)}")
    pools: dict[str, list[int]] = {scene: [] for scene in sorted(set(source.scenes))}
    for episode, scene in enumerate(source.scenes):
        pools[scene] += index.episode_range(episode)
    quota = dict.fromkeys(pools, 0)
    while sum(quota.values()) < count:
        for scene, pool in pools.items():
            if quota[scene] < len(pool) and sum(quota.values()) < count:
                quota[scene] += 1
    rng = np.random.default_rng(seed)
    chosen = []
    for scene, pool in pools.items():
        edges = np.linspace(0, len(pool), quota[scene] + 1).astype(int)
        chosen.append([pool[int(rng.integers(low, high))] for low, high in zip(edges[:-1], edges[1:], strict=True)])
    # Round robin over scenes, so that any prefix is spread as well.
    longest = max(len(part) for part in chosen)
    return [part[n] for n in range(longest) for part in chosen if n < len(part)]


def evaluation_windows(config: BatchesConfig, count: int, process_index: int, process_count: int) -> Iterator[Batch]:
    """Batches, in order, of ``count`` windows chosen by ``choose_windows`` of the config's only length.

    ``shuffle``, ``repeat``, ``workers`` and the weights have no influence.

    Raises:
        VgenError: ``count`` is no multiple of batch_size, or what ``make_iterator`` raises.
    """
    if len(config.windows) != 1:
        raise VgenError(f"evaluation takes one window length, not {config.windows}")
    if count % config.batch_size or count < 1:
        raise VgenError(
            f"the number of evaluation windows, {count}, must be a multiple of batch_size={config.batch_size}"
        )
    rows = rows_of(config.batch_size, process_index, process_count)
    source = EpisodeSource(config.data_dir, config.split).open()
    _check_spaces(config, source)
    index = WindowIndex(source.frames, source.info.chunk, *config.windows[0])
    numbers = np.asarray(choose_windows(source, index, count, config.seed)).reshape(-1, config.batch_size)
    load: Callable[[np.ndarray, int, slice], Batch] = _Loader(source, config, index)
    return (load(group, k, rows) for k, group in enumerate(numbers))


def to_batch(batch: Batch) -> VideoBatch:
    """Names the arrays of a batch by their axes."""
    arrays: dict[str, Any] = dict.fromkeys(("token", "action", "action_valid", "sample_id", "pose")) | batch
    return VideoBatch(
        video_BTHWC=arrays["video"],
        past_BT=arrays["past"],
        token_BL=arrays["token"],
        action_BTA=arrays["action"],
        action_valid_BT=arrays["action_valid"],
        sample_id_B=arrays["sample_id"],
        pose_BTP=arrays["pose"],
    )
