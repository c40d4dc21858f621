"""LeAP's and RAFI's models as Worlds: with the user's actions or their own, forked, resumed, in any batch."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.rafi import robot as robot_config
from tests import tiny
from tests.models.test_svg_lp import config as leap_config
from tests.models.test_uvit import SMALL as UVIT
from tests.models.test_vqgan import EMA, SMALL
from vgen_jax import load_world
from vgen_jax.diffusion.solvers import Solver, noised
from vgen_jax.files import media
from vgen_jax.files.exports import export
from vgen_jax.files.run_folder import resolved
from vgen_jax.learning.state import joined
from vgen_jax.memory.files import load_memory, save_memory
from vgen_jax.models.vqgan import CODEBOOK, Vqgan, VqganConfig
from vgen_jax.objectives.flow_matching import parts
from vgen_jax.runs import generate
from vgen_jax.types import VgenError, World
from vgen_jax.worlds import rafi
from vgen_jax.worlds.assembly import predicting_world, predicts
from vgen_jax.worlds.autoencoder import load_autoencoder
from vgen_jax.worlds.leap_networks import LeapNetworks
from vgen_jax.worlds.rollout import rollout

SIZE, PAST = tiny.SIZE, 3
FRAMES = np.random.default_rng(0).integers(0, 256, (2, PAST, SIZE, SIZE, 3), np.uint8)
ACTIONS = np.random.default_rng(1).uniform(-1, 1, (2, PAST, 2)).astype(np.float32)
SOLVER = Solver("midpoint", 2, 1.0)
OWN = ("vg_leap", "causal_leap", "rafi")  # which predict actions
WITHOUT = ("svg_lp", "river")


def write_leap(folder: Path, model: str) -> Path:
    """The export of a small recurrent model of ``tiny``'s data, with random weights."""
    shape = leap_config(model)
    tree = tiny.random_params(LeapNetworks(shape).init)
    stats = jax.tree.map(lambda x: np.abs(x) + 0.5, tree["model_state"])
    export(folder, {**tree, "model_state": stats}, {"leap": dataclasses.asdict(shape), "past": PAST})
    (folder / "dataset.json").write_text(tiny.info().to_json())
    return folder


def write_vqgan(folder: Path, shape: VqganConfig = SMALL) -> Path:
    variables = tiny.random_params(Vqgan(shape).init, jnp.zeros((1, 16, 16, 3)))
    kept = joined(variables["params"], variables[CODEBOOK] if CODEBOOK in variables else {})
    export(folder, kept, {"vqgan": dataclasses.asdict(shape), "scale": 0.5})
    return folder


def write_rafi(folder: Path, model: str) -> Path:
    """The export of a small model by flow matching, with random weights."""
    actions = ("continuous", 2) if model == "rafi" else ("none", 0)
    shape = rafi.RafiConfig(UVIT, 4, 1e-7, *actions, (4, 4, 4))
    export(folder, tiny.random_params(shape.init), {"rafi": dataclasses.asdict(shape), "past": PAST})
    write_vqgan(folder / "autoencoder")
    (folder / "dataset.json").write_text(tiny.info().to_json())
    return folder


WRITERS = {
    **dict.fromkeys(("svg_lp", "vg_leap", "causal_leap"), write_leap),
    **dict.fromkeys(("river", "rafi"), write_rafi),
}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {model: write(folder / model, model) for model, write in WRITERS.items()}


@pytest.fixture(scope="module")
def worlds(exports: dict[str, Path]) -> dict[str, Any]:
    """One of each, whose programs are compiled once for all tests."""
    return {model: predicting_world(folder, SOLVER) for model, folder in exports.items()}


def started(world: Any, model: str, **changes: Any) -> Any:
    given = {"frames": FRAMES, "actions": ACTIONS[:, 1:] if model in OWN else None, "key": jax.random.key(0)}
    return world.start(**{**given, **changes})


@pytest.mark.parametrize("model", WRITERS)
def test_steps_are_pure_and_alike(model: str, worlds: dict[str, Any]) -> None:
    world = worlds[model]
    assert isinstance(world, World) and (world.size, world.fps, world.past) == ((SIZE, SIZE), 8.0, PAST)
    state = started(world, model)
    one, step = world.step(state)
    again = world.step(state)[1]
    assert step.frames_BTHWC.shape == (2, tiny.CHUNK, SIZE, SIZE, 3) and step.frames_BTHWC.dtype == jnp.uint8
    np.testing.assert_array_equal(step.frames_BTHWC, again.frames_BTHWC)
    further = world.step(one)[1]
    assert (np.asarray(further.frames_BTHWC) != np.asarray(step.frames_BTHWC)).any()
    other = world.step(started(world, model, key=jax.random.key(1)))[1]
    assert (np.asarray(other.frames_BTHWC) != np.asarray(step.frames_BTHWC)).any()
    assert (step.actions is None) == (model in WITHOUT)
    assert world.compilations() == (1, 1), "nothing is compiled between the steps"


@pytest.mark.parametrize("model", OWN)
def test_a_command_takes_the_place_of_its_own_action(model: str, worlds: dict[str, Any]) -> None:
    """What it would do anyway changes nothing; another action does; both are reported in the data's units."""
    world = worlds[model]
    state = started(world, model)
    one, own = world.step(state)
    _, told = world.step(state, own.actions)
    np.testing.assert_allclose(told.actions, own.actions, rtol=1e-5, atol=1e-5)
    # The model's own action passes through raw units and back, hence not to the last bit.
    assert np.abs(np.asarray(told.frames_BTHWC, np.int32) - np.asarray(own.frames_BTHWC, np.int32)).max() <= 8
    gone, go = world.step(state, "go")
    np.testing.assert_allclose(go.actions, np.broadcast_to((0.0, 1.0), (2, tiny.CHUNK, 2)), rtol=1e-5)
    assert go.text == "go" and own.text == ""
    seen = [state.last_BHWC if model != "rafi" else state.history_BTHWC[..., :4] for state in (one, gone)]
    assert np.abs(np.asarray(seen[0]) - np.asarray(seen[1])).max() > 1e-6, "frames depend on actions"
    with pytest.raises(VgenError, match="unknown command"):
        world.step(state, "fly")


@pytest.mark.parametrize("model", OWN)
def test_an_action_at_the_last_frame_is_done_if_it_is_known(model: str, worlds: dict[str, Any]) -> None:
    world = worlds[model]
    state = started(world, model, actions=ACTIONS)
    np.testing.assert_allclose(world.step(state)[1].actions[:, 0], ACTIONS[:, -1], rtol=1e-4)
    before = world.step(started(world, model, actions=ACTIONS[:, :-1]))[1].actions[:, 0]
    assert np.abs(before - ACTIONS[:, -1]).max() > 1e-3


@pytest.mark.parametrize("model", WITHOUT)
def test_models_without_actions_take_no_commands(model: str, worlds: dict[str, Any]) -> None:
    with pytest.raises(VgenError, match="text alone"):
        worlds[model].step(started(worlds[model], model), ACTIONS[0, :1])


@pytest.mark.slow
@pytest.mark.parametrize("model", WRITERS)
def test_a_video_does_not_depend_on_its_batch(model: str, worlds: dict[str, Any]) -> None:
    world = worlds[model]
    both = world.step(started(world, model, id_B=np.asarray([4, 9], np.int32)))[1]
    actions = ACTIONS[1:, 1:] if model in OWN else None
    alone = world.step(world.start(FRAMES[1:], actions, jax.random.key(0), np.asarray([9], np.int32)))[1]
    assert np.abs(np.asarray(both.frames_BTHWC[1:], np.int32) - np.asarray(alone.frames_BTHWC, np.int32)).max() <= 1


@pytest.mark.parametrize("model", ["causal_leap", "rafi"])
def test_a_state_is_saved_and_forked(model: str, worlds: dict[str, Any], tmp_path: Path) -> None:
    world = worlds[model]
    state = started(world, model)
    one, _ = world.step(state)
    save_memory(tmp_path / "state", one, {})
    again = load_memory(tmp_path / "state", state, {})
    for a, b in zip(rollout(world, one, [None, "go"]), rollout(world, again, [None, "go"]), strict=True):
        np.testing.assert_array_equal(a.step.frames_BTHWC, b.step.frames_BTHWC)
        np.testing.assert_array_equal(a.step.actions, b.step.actions)


def test_a_picture_is_held_still(worlds: dict[str, Any]) -> None:
    world = worlds["vg_leap"]
    single = world.start(FRAMES[0, 0])
    still = world.start(np.repeat(FRAMES[:1, :1], PAST, axis=1), np.zeros((1, PAST - 1, 2), np.float32))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), single.carry, still.carry)
    with pytest.raises(VgenError, match="2 frames are too few"):
        world.start(FRAMES[:, :2])
    with pytest.raises(VgenError, match=r"uint8 pictures of \(16, 16, 3\)"):
        world.start(np.zeros((8, 8, 3), np.uint8))


def test_the_context_is_any_earlier_state_and_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five known states the four before the newest, alike often, for each evaluation and each video on its own."""
    shape = rafi.RafiConfig(UVIT, 6, 1e-7, "none", 0, (1, 1, 1))
    seen: list[np.ndarray] = []

    def regress(self: Any, params: Any, x: Any, s: Any, reference: Any, context: Any, distance: Any) -> Any:
        jax.debug.callback(lambda *v: seen.append(np.stack(v)), reference[:, 0, 0, 0], context[:, 0, 0, 0], distance)
        return jnp.zeros_like(x)

    monkeypatch.setattr(rafi.RafiConfig, "regress", regress)
    history = jnp.broadcast_to(jnp.arange(-1.0, 5.0)[None, :, None, None, None], (300, 6, 1, 1, 1))
    keys = jax.random.split(jax.random.key(0), 300)
    rafi.next_state(shape, Solver("rk4", 1, 1.0), {}, history, jnp.asarray(5), keys)
    jax.effects_barrier()
    assert len(seen) == 4
    found = np.stack(seen)  # evaluations, (reference, context, distance), videos
    assert (found[:, 0] == 4).all() and set(found[:, 1].ravel()) == {0, 1, 2, 3}
    np.testing.assert_array_equal(found[:, 2], 5 - found[:, 1])
    counts = np.bincount(found[:, 1].ravel().astype(int))
    assert counts.min() > 220 and (found[0, 1] != found[1, 1]).mean() > 0.5


def test_a_warm_start_begins_at_the_last_state(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = rafi.RafiConfig(UVIT, 4, 0.0, "none", 0, (2, 2, 3))
    starts: list[Any] = []
    monkeypatch.setattr(rafi, "solve", lambda field, solver, x: starts.append(x) or x)
    history, keys = jax.random.normal(jax.random.key(3), (2, 4, 2, 2, 3)), jax.random.split(jax.random.key(0), 2)
    for start in (1.0, 0.25):
        rafi.next_state(shape, Solver("euler", 1, start), {}, history, jnp.asarray(4), keys)
    np.testing.assert_allclose(starts[1], noised(history[:, -1], starts[0], jnp.full(2, 0.25), 0.0), rtol=1e-5)


@pytest.mark.parametrize("shape", [SMALL, EMA], ids=["gradient", "ema"])
def test_a_vqgan_is_an_autoencoder(shape: VqganConfig, tmp_path: Path) -> None:
    found = load_autoencoder(write_vqgan(tmp_path / "vqgan", shape))
    assert (found.channels, found.factor) == (4, 4)
    latents = found.encode(FRAMES)
    assert latents.shape == (2, PAST, 4, 4, 4)
    decoded = found.decode(latents)
    assert decoded.shape == FRAMES.shape and decoded.dtype == jnp.uint8
    # Small changes leave the nearest codes as they are.
    near = found.decode(latents + 1e-6)
    assert (np.asarray(near) == np.asarray(decoded)).mean() > 0.9
    raw = json.loads((tmp_path / "vqgan" / "config.json").read_text())
    raw["vqgan"]["codes"] = 12
    (tmp_path / "vqgan" / "config.json").write_text(json.dumps(raw))
    with pytest.raises(VgenError, match="codes is|sums is|counts is"):
        load_autoencoder(tmp_path / "vqgan")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["causal_leap", "rafi"])
def test_generate_goes_on_by_itself_and_where_it_was_stopped(
    model: str, exports: dict[str, Path], tmp_path: Path
) -> None:
    tiny.write_dataset(tmp_path / "data")

    def made(workdir: Path, frames: int, **changes: Any) -> dict[str, Any]:
        stage = robot_config.get_config("tiny.generate")
        stage.update_from_flattened_dict(
            {
                "model_dir": str(exports[model]), "start.data_dir": str(tmp_path / "data"), "start.frame": PAST,
                "generate.past": PAST, "generate.future": 2, "generate.frames": frames, "generate.save_every": 1,
                "generate.gif": False, "solver.steps": 1, **changes,
            }
        )  # fmt: skip
        generate.run(resolved(stage, workdir), workdir)
        return json.loads((workdir / "results.json").read_text())

    assert made(tmp_path / "whole", 6)["actions"] == "its own"
    made(tmp_path / "parts", 2)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "samples" / "captions.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(row["notes"][0].startswith("turn ") for row in rows)
    told = made(tmp_path / "told", 4, **{"generate.actions": ("go", "turn")})
    assert told["actions"] == "commanded"
    video = [media.read_video(tmp_path / name / "samples" / "video_0.npy") for name in ("whole", "told", "parts")]
    assert video[0].shape == (7, SIZE, SIZE, 3) and (video[0][1:5] != video[1][1:]).any()
    np.testing.assert_array_equal(video[0][:3], video[2])


def test_load_world_opens_any_of_them(exports: dict[str, Path]) -> None:
    assert predicts(exports["rafi"]) and predicts(exports["svg_lp"]) and not predicts(exports["rafi"] / "autoencoder")
    world = load_world(exports["rafi"], solver={"kind": "euler", "steps": 1, "start": 1.0}, future=4)
    assert world.future == 4
    with pytest.raises(VgenError, match="no memory, guidance or texts"):
        load_world(exports["rafi"], memory="temp_lora")
    with pytest.raises(VgenError, match="2 or more, the newest and an earlier one"):
        load_world(exports["river"], past=1)


def test_states_of_rafi_hold_latents_and_actions(worlds: dict[str, Any]) -> None:
    state = started(worlds["rafi"], "rafi", actions=ACTIONS)
    assert state.known == PAST and state.history_BTHWC.shape == (2, 4, 4, 4, 6)
    _, found = parts(state.history_BTHWC[:, 1:], 2)
    np.testing.assert_allclose(found, tiny.SPACES["continuous"].to_model(ACTIONS), rtol=1e-5)
