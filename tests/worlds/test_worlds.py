"""Worlds of other kinds, a few lines each, and the slow model's, through the same generation."""

import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vgen_jax
from tests import tiny
from vgen_jax.diffusion.samplers import Sampler, normal_like, sample
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.files import media
from vgen_jax.files.run_folder import resolved
from vgen_jax.memory.files import load_memory, save_memory
from vgen_jax.models.unet_latent import UNet3D
from vgen_jax.runs import generate
from vgen_jax.types import (
    Array,
    Autoencoder,
    Command,
    Condition,
    Key,
    Past,
    Prediction,
    Recalled,
    Step,
    VgenError,
    World,
)
from vgen_jax.worlds.autoencoder import load_autoencoder
from vgen_jax.worlds.rollout import GenerateConfig, Written, generate_videos, rollout
from vgen_jax.worlds.start import Start

SIZE, WIDTH = 16, 8
STARTS = Start(np.random.default_rng(0).integers(0, 256, (2, 1, SIZE, SIZE, 3), np.uint8), None, np.asarray([3, 5]))


@flax.struct.dataclass
class HiddenState:
    """A recurrent model's state, and how many steps it is old."""

    hidden_BD: Array
    steps: int


class Echo:
    """A memory whose state is a hidden state: what it recalls goes into the next step."""

    def init(self, past: Past, key_B: Key) -> Array:
        return past.frames_BTHWC.mean((1, 2, 3)) @ jnp.ones((3, WIDTH))

    def recall(self, m: Array, past: Past, coming_BTA: Array | None) -> Recalled:
        return Recalled(past, hidden=m)

    def remember(self, m: Array, past: Past, new: Past, token_BL: Array | None, key_B: Key) -> Array:
        return jnp.tanh(m + new.action_BTA[:, 0])


class RecurrentWorld:
    """One frame a step; it waits for an id."""

    memory = Echo()

    def start(self, frames: np.ndarray, actions: Any, key: Key, id_B: np.ndarray | None = None) -> HiddenState:
        return HiddenState(self.memory.init(Past(jnp.asarray(frames) / 255.0), jax.random.split(key, len(frames))), 0)

    def step(self, state: HiddenState, command: Command | None = None) -> tuple[HiddenState, Step]:
        if command is None:
            raise VgenError("this world does not choose its actions: give step an id")
        action_BTA = jax.nn.one_hot(jnp.full((len(state.hidden_BD), 1), command), WIDTH)
        hidden_BD = self.memory.remember(state.hidden_BD, None, Past(None, action_BTA), None, None)
        frames = jnp.broadcast_to(hidden_BD[:, None, None, :, None], (len(hidden_BD), 1, SIZE, WIDTH, 3))
        frames = ((frames + 1) * 127.5).astype(jnp.uint8).repeat(SIZE // WIDTH, axis=3)
        return HiddenState(hidden_BD, state.steps + 1), Step(
            frames, np.full((len(hidden_BD), 1), command), f"{command}"
        )


@flax.struct.dataclass
class CodeState:
    """The last frame's codes, and what the next ones are drawn from."""

    codes_BTHWC: Array
    key_B: Key


class FlowWorld:
    """Codes by flow matching, two sampling steps; without a command it does what it predicts of its codes."""

    schedule, sampler = Schedule("flow", 10), Sampler("ddim", 2)

    def start(self, frames: np.ndarray, actions: Any, key: Key, id_B: np.ndarray | None = None) -> CodeState:
        ids = np.arange(len(frames)) if id_B is None else id_B
        codes = jnp.asarray(frames)[:, -1:, ::4, ::4] / 127.5 - 1.0
        return CodeState(codes, jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(ids)))

    def step(self, state: CodeState, command: Command | None = None) -> tuple[CodeState, Step]:
        own_B = (np.asarray(state.codes_BTHWC).mean((1, 2, 3, 4)) > 0).astype(np.int32)
        action_BT = own_B[:, None] if command is None else np.full((len(own_B), 1), command)
        shift = jnp.asarray(action_BT, jnp.float32)[:, :, None, None, None] * 0.5

        def predictor(x_t: Array, t_B: Array, condition: Condition) -> Prediction:
            return Prediction(x_t - condition.past_BTHWC - shift, "velocity")

        keys = jax.vmap(jax.random.split)(state.key_B)
        noise, condition = normal_like(keys[:, 0], state.codes_BTHWC.shape), Condition(past_BTHWC=state.codes_BTHWC)
        codes = jnp.clip(sample(predictor, self.schedule, self.sampler, noise, condition, keys[:, 0]), -1, 1)
        frames = ((codes + 1) * 127.5).astype(jnp.uint8).repeat(4, axis=2).repeat(4, axis=3)
        return CodeState(codes, keys[:, 1]), Step(frames, action_BT, "" if command is None else f"{command}")


WORLDS: dict[str, tuple[Callable[[], World], Any]] = {"recurrent": (RecurrentWorld, 1), "flow": (FlowWorld, None)}


def settings(frames: int) -> GenerateConfig:
    return GenerateConfig(
        past=1, future=1, frames=frames, actions=(), actions_from="", guidance=1.0, seed=0, decode_frames=1, gif=False,
        save_every=1,
    )  # fmt: skip


def commands(command: Any, limit: int, done: int) -> Iterator[Any]:
    yield from [command] * (limit - done)


@pytest.mark.parametrize("name", WORLDS)
def test_any_world_generates_and_goes_on_where_it_was_stopped(name: str, tmp_path: Path) -> None:
    make, command = WORLDS[name]
    world = make()
    assert isinstance(world, World)

    def made(workdir: Path, frames: int) -> Written:
        stream = partial(commands, command, frames)
        return generate_videos(world, STARTS, stream, 8.0, settings(frames), workdir, {"world": name})

    made(tmp_path / "whole", 4)
    made(tmp_path / "halves", 2)
    assert made(tmp_path / "halves", 4).resumed_at_frame == 2
    for video in ("video_0.npy", "video_1.npy"):
        found, halves = (media.read_video(tmp_path / folder / "samples" / video) for folder in ("whole", "halves"))
        np.testing.assert_array_equal(found, halves)
        assert found.shape == (5, SIZE, SIZE, 3) and len(np.unique(found[1:], axis=0)) > 1


def test_a_world_chooses_its_actions_or_refuses() -> None:
    state = FlowWorld().start(STARTS.frames_BTHWC, None, jax.random.key(0), STARTS.id_B)
    assert FlowWorld().step(state)[1].actions.shape == (2, 1)
    with pytest.raises(VgenError, match="give step an id"):
        RecurrentWorld().step(RecurrentWorld().start(STARTS.frames_BTHWC, None, jax.random.key(0)))


@pytest.mark.parametrize("name", WORLDS)
def test_a_state_is_saved_and_forked(name: str, tmp_path: Path) -> None:
    make, command = WORLDS[name]
    world = make()
    state = world.start(STARTS.frames_BTHWC, None, jax.random.key(0), STARTS.id_B)
    one, _ = world.step(state, command)
    save_memory(tmp_path / "state", one, {})
    again = load_memory(tmp_path / "state", state, {})
    for a, b in zip(rollout(world, one, [command] * 2), rollout(world, again, [command] * 2), strict=True):
        np.testing.assert_array_equal(a.step.frames_BTHWC, b.step.frames_BTHWC)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model") / "export")


def test_an_autoencoder_is_what_worlds_ask_of_it(export: Path) -> None:
    found: Autoencoder = load_autoencoder(export / "autoencoder")
    latents = found.encode(jnp.zeros((1, 2, SIZE, SIZE, 3), jnp.uint8))
    assert latents.shape == (1, 2, SIZE // found.factor, SIZE // found.factor, found.channels)
    assert found.decode(latents).dtype == jnp.uint8


class Traced(Exception):
    """Raised where the network is reached."""


def test_the_network_is_not_far_from_the_run(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With guidance and a memory, at most eight files of the package stand between them."""
    files: set[str] = set()
    call, home = UNet3D.__call__, str(Path(vgen_jax.__file__).parent)

    def reached(self: UNet3D, *arguments: Any) -> Any:
        stack = {frame.filename for frame in traceback.extract_stack() if frame.filename.startswith(home)}
        if f"{home}/worlds/rollout.py" not in stack:  # the shapes of the parameters, when the model is loaded
            return call(self, *arguments)
        files.update(stack | {f"{home}/models/unet_latent.py"})
        raise Traced

    monkeypatch.setattr(UNet3D, "__call__", reached)
    tiny.write_dataset(tmp_path / "data")
    changes = {
        "generate.frames": 2, "generate.past": 2, "generate.future": 2, "generate.actions": ("go",),
        "generate.guidance": 2.0, "memory.kind": "temp_lora", "memory.temp_lora.lora.targets": "temp_conv",
        "sampler.steps": 2, "start.episodes": (0,), "model_dir": str(export),
    }  # fmt: skip
    with pytest.raises(Traced):
        generate.run(resolved(tiny.config("generate", changes), tmp_path / "run"), tmp_path / "run")
    assert 4 < len(files) <= 8, sorted(files)


def test_what_the_documentation_shows_works(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first block of docs/api.md, on a small model: load, start from a picture, three commands, look."""
    text = (Path(vgen_jax.__file__).parent.parent / "docs" / "api.md").read_text(encoding="utf-8")
    lines = text.partition("```python\n")[2].partition("```")[0].strip().splitlines()
    assert len(lines) <= 6, "five lines and an import"
    monkeypatch.chdir(tmp_path)
    media.write_png("photo.png", np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    for bundled, small in (("asset:vizdoom/slow", str(export)), ("turn left", "turn"), ("go forward", "go")):
        assert any(bundled in line for line in lines)
        lines = [line.replace(bundled, small) for line in lines]
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    clip = vgen_jax.show(names["steps"], names["world"].fps)
    assert clip.frames_THWC.shape == (6, tiny.SIZE, tiny.SIZE, 3) and "data:image/gif" in clip._repr_html_()
    clip.save(tmp_path / "clip.mp4")
    assert len(media.read_video(tmp_path / "clip.mp4")) == 6
    world = names["world"]
    assert world.compilations() == (1, 1), "nothing is compiled between the steps"
    state = world.start(np.zeros((*world.size, 3), np.uint8))
    by_text, by_id, by_rows = (world.step(state, command)[1] for command in ("turn", 1, np.asarray([5.0, 0.0])))
    np.testing.assert_array_equal(by_text.frames_BTHWC, by_id.frames_BTHWC)
    np.testing.assert_array_equal(by_text.frames_BTHWC, by_rows.frames_BTHWC)
    np.testing.assert_allclose(by_rows.actions, [[[5.0, 0.0]] * 2])
    for wrong, named in (
        (None, "give step a command, one of go, turn"),
        ("fly", "unknown command"),
        (7, "ids go from"),
    ):
        with pytest.raises(VgenError, match=named):
            world.step(state, wrong)
    with pytest.raises(VgenError, match=r"uint8 pictures of \(16, 16, 3\)"):
        world.start(np.zeros((8, 8, 3), np.uint8))


def test_the_version_has_one_source() -> None:
    import importlib.metadata

    assert vgen_jax.__version__ == importlib.metadata.version("vgen_jax")
    assert all(getattr(vgen_jax, name) is not None for name in vgen_jax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'open_world'"):
        vgen_jax.open_world  # noqa: B018
