"""Predictions of recorded clips: every model continues the same frames, several times, and is scored frame by frame.

A model is given the first ``past`` frames, the actions between them and the action at the last of them. It goes on by
itself (``told`` off) or is told the recorded actions. The frames that it was given count in no number.

Samples of a clip are never mixed with clips: a number is of (clip, sample, frame), and how samples are put together,
their mean or the best of them, is said wherever it is done (``evaluation.leap.table``).
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vgen_jax.data.records import EpisodeSource
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.diffusion.solvers import Solver
from vgen_jax.evaluation.scoring import FD_ACTION, LPIPS_ACTION
from vgen_jax.evaluation.sources import Recorded
from vgen_jax.files.progress import progress
from vgen_jax.metrics.features import FeatureNet, extractor
from vgen_jax.metrics.frames import psnr, ssim
from vgen_jax.types import VgenError
from vgen_jax.worlds.assembly import load_world, predicting_world, predicts
from vgen_jax.worlds.rollout import rollout

REPEAT = "repeat"  # the method that shows the last frame for ever
BETTER_HIGH = ("psnr", "ssim", "cosine_vgg16")  # of other metrics of frames less is better


def is_of_frames(name: str) -> bool:
    """Whether a metric compares a frame with the recorded one."""
    return name in ("psnr", "ssim", "lpips_vgg", "lpips_alex", "cosine_vgg16") or name.startswith(LPIPS_ACTION)


@dataclasses.dataclass(frozen=True)
class PredictionConfig:
    """How clips are continued.

    Attributes:
        samples: predictions of each clip.
        batch_size: clips at a time; changes memory and speed only.
        seed: of the noise.
        draws: of each bootstrap over clips.
        metrics: ``psnr``, ``ssim``, and ``lpips_…`` and ``cosine_vgg16`` of frames, ``fvd_i3d`` and ``fd_action_…`` of
            clips (``evaluation.scoring``).
    """

    samples: int
    batch_size: int
    seed: int
    draws: int
    metrics: tuple[str, ...]

    def __post_init__(self) -> None:
        if min(self.samples, self.batch_size) < 1 or self.draws < 100:
            raise VgenError(
                f"predict.samples {self.samples}, predict.batch_size {self.batch_size}, predict.draws {self.draws}: "
                "use 1 or more, and 100 draws or more"
            )
        for name in self.metrics:
            if not is_of_frames(name) and name != "fvd_i3d" and not name.startswith(FD_ACTION):
                raise VgenError(
                    f"config key predict.metrics has '{name}': use psnr, ssim, lpips_vgg, lpips_alex, cosine_vgg16, "
                    "lpips_action_<data>, fvd_i3d or fd_action_<data>"
                )
        if "psnr" not in self.metrics:
            raise VgenError("predict.metrics lacks psnr, on which the verdicts depend: add it")


@dataclasses.dataclass(frozen=True)
class PredictorConfig:
    """A row of the table.

    Attributes:
        dir: an export of LeAP's, RIVER's or RAFI's, or of a slow model without actions; empty for ``repeat``.
        label: its name in the table.
        told: it is told the recorded actions instead of going on by itself.
        sampler_steps: DDIM's, of a slow model; 0 for others.
    """

    dir: str
    label: str
    told: bool
    sampler_steps: int


class Predicted(NamedTuple):
    """What one method made of a batch of clips.

    Attributes:
        frames_BTHWC: uint8.
        actions_BTA: raw; row t is what it did at the frame before frame t, the first of which it was given; ``None``
            for a method without actions.
    """

    frames_BTHWC: np.ndarray
    actions_BTA: np.ndarray | None


class Scored(NamedTuple):
    """All that is kept of a method.

    Attributes:
        rows: metric -> (clips, samples, frames), float64. ``action_error`` has a last axis A: absolute differences from
            the recorded actions in model units, of the frames whose actions it chose itself.
        features: metric of clips -> features of every clip's first sample, (clips, width).
        shown: the first sample of a few clips, (clips, frames, H, W, 3).
        actions: the first sample's actions of these, raw (clips, frames, A); empty for a method without.
    """

    rows: dict[str, np.ndarray]
    features: dict[str, np.ndarray]
    shown: np.ndarray
    actions: np.ndarray


class ClipPredictor:
    """A method that continues clips.

    Args:
        entry: its row of the table.
        past, frames: what it is given, and what it makes.
        solver: of models by flow matching.
        name: its name in the config.
    """

    def __init__(self, name: str, entry: PredictorConfig, past: int, frames: int, solver: Solver):
        self._entry, self._frames, self._name, self._world = entry, frames, name, None
        self.own_actions = False
        if name == REPEAT or not entry.dir:
            return
        world: Any
        if predicts(Path(entry.dir)):
            world = predicting_world(Path(entry.dir), solver, past, frames)
            self.own_actions = world.codec.space != "none" and not entry.told
        else:
            world = load_world(entry.dir, sampler=Sampler("ddim", entry.sampler_steps), past=past)
            if world.codec.space != "none" or world.codec.token_length:
                raise VgenError(
                    f"config key methods.{name}.dir is {entry.dir}: use a slow model without actions and texts"
                )
            if frames % world.future:
                raise VgenError(f"windows.frames {frames} is no multiple of the {world.future} that {entry.dir} makes")
        self._world = world

    def __call__(
        self, past_BTHWC: np.ndarray, actions_BTA: np.ndarray, sample: int, seed: int, id_B: np.ndarray
    ) -> Predicted:
        """A sample of the frames after ``past_BTHWC``.

        Args:
            actions_BTA: raw, at every frame but the clip's last, the frames that are made included.
        """
        world, past = self._world, past_BTHWC.shape[1]
        if world is None:
            return Predicted(past_BTHWC[:, -1:].repeat(self._frames, axis=1), None)
        key = jax.random.fold_in(jax.random.key(seed), sample)
        has_actions = world.codec.space != "none"
        state = world.start(past_BTHWC, actions_BTA[:, :past] if has_actions else None, key, id_B)
        command = actions_BTA[:, past - 1 :] if has_actions and self._entry.told else None
        steps = [one.step for one in rollout(world, state, [command] * (self._frames // world.future))]
        frames = np.concatenate([np.asarray(step.frames_BTHWC) for step in steps], axis=1)
        own = [step.actions for step in steps if step.actions is not None]
        return Predicted(frames, np.concatenate(own, axis=1) if own else None)


def clips_of(data: Recorded, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Frames, uint8 (B, past + frames, H, W, 3), and the actions at all of them but the last, raw."""
    videos, actions = [], []
    for number in numbers:
        window = data.windows[number]
        start, stop = window.boundary - data.config.past + 1, window.boundary + data.config.frames + 1
        videos.append(data.source.window(window.episode, start, stop))
        actions.append(data.source.head(window.episode).tensors["actions.continuous"][start : stop - 1])
    return np.stack(videos), np.stack(actions)


def scored(
    data: Recorded,
    method: ClipPredictor,
    config: PredictionConfig,
    nets: Mapping[str, FeatureNet],
    shown: int,
    what: str,
) -> Scored:
    """Continues every clip and scores it.

    Args:
        nets: the networks of the metrics that have one.
        shown: clips whose frames are kept.
        what: of the progress bar.
    """
    past, space = data.config.past, data.source.info.action_spaces["continuous"]
    pairs = {name: extractor(net, config.batch_size) for name, net in nets.items() if net.rows == "pair"}
    of_clips = {name: extractor(net, config.batch_size) for name, net in nets.items() if net.rows == "clip"}
    rows: dict[str, list[np.ndarray]] = {}
    features: dict[str, list[np.ndarray]] = {name: [] for name in of_clips}
    kept: list[np.ndarray] = []
    kept_actions: list[np.ndarray] = []
    for numbers in progress(list(batches(len(data.windows), config.batch_size)), desc=what, unit="batch"):
        # The last batch is filled up, so that all have one shape and nothing is compiled twice.
        filled = numbers + [numbers[-1]] * (config.batch_size - len(numbers))
        videos, actions = clips_of(data, filled)
        real = videos[:, past:]
        found: dict[str, list[np.ndarray]] = {}
        for sample in range(config.samples):
            made = method(videos[:, :past], actions, sample, config.seed, np.asarray(filled, np.int32))
            for name in config.metrics:
                if name in ("psnr", "ssim"):
                    values = {"psnr": psnr, "ssim": ssim}[name](unit(made.frames_BTHWC), unit(real))
                elif is_of_frames(name):
                    values = pairs[name](np.stack([made.frames_BTHWC, real], axis=2))[..., 0]
                else:
                    continue  # of clips: below
                found.setdefault(name, []).append(np.asarray(values, np.float64)[: len(numbers)])
            if made.actions_BTA is not None and method.own_actions:
                error = np.abs(space.to_model(made.actions_BTA[:, 1:]) - space.to_model(actions[:, past:]))
                found.setdefault("action_error", []).append(error.astype(np.float64)[: len(numbers)])
            if sample == 0:
                for name, extract in of_clips.items():
                    features[name].append(extract(made.frames_BTHWC[:, None])[: len(numbers), 0])
                room = max(0, shown - sum(map(len, kept)))
                kept.append(made.frames_BTHWC[: min(room, len(numbers))])
                if made.actions_BTA is not None:
                    kept_actions.append(made.actions_BTA[: min(room, len(numbers))])
        for name, samples in found.items():
            rows.setdefault(name, []).append(np.stack(samples, axis=1))
    joined = {name: np.concatenate(parts) for name, parts in rows.items()}
    of_all = {name: np.concatenate(parts) for name, parts in features.items()}
    empty = np.zeros((0, data.config.frames, space.width))
    return Scored(joined, of_all, np.concatenate(kept), np.concatenate(kept_actions) if kept_actions else empty)


def real_features(data: Recorded, config: PredictionConfig, nets: Mapping[str, FeatureNet]) -> dict[str, np.ndarray]:
    """Of the recorded frames, for the distances of clips: metric -> (clips, width)."""
    found = {}
    for name, net in nets.items():
        if net.rows == "clip":
            extract = extractor(net, config.batch_size)
            parts = [
                extract(clips_of(data, numbers)[0][:, data.config.past :][:, None])[:, 0]
                for numbers in batches(len(data.windows), config.batch_size)
            ]
            found[name] = np.concatenate(parts)
    return found


def mean_action(folder: Path, split: str) -> np.ndarray:
    """The mean action of a split, model units, (A,): what who knows nothing would say."""
    source = EpisodeSource(folder, split)
    space = source.info.action_spaces["continuous"]
    rows = [space.to_model(source.head(n).tensors["actions.continuous"]) for n in range(len(source))]
    return np.concatenate(rows).astype(np.float64).mean(0)


def constant_error(data: Recorded, action_A: np.ndarray) -> np.ndarray:
    """``action_error`` of saying one action always, (clips, 1, frames - 1, A)."""
    space = data.source.info.action_spaces["continuous"]
    _, actions = clips_of(data, list(range(len(data.windows))))
    return np.abs(space.to_model(actions[:, data.config.past :]).astype(np.float64) - action_A)[:, None]


def batches(count: int, size: int) -> Iterator[list[int]]:
    """0 … count - 1, ``size`` at a time."""
    for start in range(0, count, size):
        yield list(range(start, min(start + size, count)))


def unit(frames: np.ndarray) -> np.ndarray:
    """uint8 frames in [0, 1]."""
    return frames.astype(np.float32) / 255.0


def origin_of(data: Recorded, weights: str, nets: Mapping[str, FeatureNet]) -> str:
    """What numbers are made of: the model's weights (its checksum), the data, the metrics' networks."""
    info = hashlib.sha256(data.source.info.to_json().encode()).hexdigest()
    return json.dumps({"model": weights, "data": info, **{name: dict(net.contract) for name, net in nets.items()}})


def save_scored(path: Path, found: Scored, origin: str) -> None:
    """Keeps a method's numbers, so that a start after a stop need not make them again.

    Args:
        origin: ``origin_of``.
    """
    arrays: dict[str, Any] = {f"rows.{name}": values for name, values in found.rows.items()}
    arrays |= {f"features.{name}": values for name, values in found.features.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez(file, shown=found.shown, actions=found.actions, origin=np.asarray(origin), **arrays)
    part.replace(path)


def load_scored(path: Path, origin: str) -> Scored | None:
    """What ``save_scored`` kept; ``None`` where there is nothing, or numbers of another origin."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        if "origin" not in stored.files or str(stored["origin"]) != origin:
            return None
        groups = {
            prefix: {name.removeprefix(prefix): stored[name] for name in stored.files if name.startswith(prefix)}
            for prefix in ("rows.", "features.")
        }
        return Scored(groups["rows."], groups["features."], stored["shown"], stored["actions"])
