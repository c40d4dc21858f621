"""Samplers follow the trajectories of diffusers' schedulers."""

import json
from pathlib import Path
from typing import Any

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.schedulers import scheduling_ddpm

from tests import tiny
from vgen_jax.convert.schedulers import (
    CLASSES,
    DiffusersSampler,
    Scheduler,
    from_config,
    load_scheduler,
    save_scheduler,
    to_config,
)
from vgen_jax.diffusion.samplers import Sampler, SamplerKind, normal_like, sample
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.types import Array, Condition, Prediction, VgenError

SHAPE = (2, 3, 4, 4, 2)
TOLERANCE = 1e-4
MODELSCOPE = {
    "num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
    "prediction_type": "epsilon", "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
    "skip_prk_steps": True, "trained_betas": None,
}  # fmt: skip
ZERO_SNR = {
    **MODELSCOPE, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
    "steps_offset": 0,
}  # fmt: skip
COSINE = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample", "num_train_timesteps": 300}
ORIGINALS = {kind: getattr(diffusers, name) for name, kind in CLASSES.items()}
# A linear denoiser: value = A x + c sin(t / 300 + phase) along the channels, the same in both frameworks.
A = np.asarray([[0.6, 0.2], [-0.3, 0.5]], np.float32)
C, PHASE = np.asarray([0.4, -0.2], np.float32), np.asarray([0.0, 1.0], np.float32)


def latents() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def keys() -> jax.Array:
    # Of the generator that takes the least time to compile.
    return jax.vmap(lambda seed: jax.random.key(seed, impl="unsafe_rbg"))(jnp.arange(SHAPE[0]))


def ours(scheduler: Scheduler) -> list[np.ndarray]:
    """x at every evaluation, and x_0."""
    seen: list[np.ndarray] = []

    def predict(x_t: Array, t_B: Array, condition: Condition) -> Prediction:
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), x_t, ordered=True)
        drift = C * jnp.sin(t_B[:, None] / 300.0 + PHASE)
        return Prediction(x_t @ A + drift[:, None, None, None, :], scheduler.kind)

    run = tiny.jit(lambda x, k: sample(predict, scheduler.schedule, scheduler.sampler, x, Condition(), k))
    last = np.asarray(run(latents(), keys()))
    jax.effects_barrier()
    return [*seen, last]


@tiny.jit
def draw(number: Array) -> Array:
    return normal_like(jax.vmap(jax.random.fold_in, (0, None))(keys(), number), SHAPE)


def theirs(original: Any, steps: int, eta: float, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The same of a diffusers scheduler, fed with the same noise; channels stay last, which no scheduler minds."""
    original.set_timesteps(steps)
    x, seen = torch.tensor(latents()), []
    for number, t in enumerate(original.timesteps):
        seen.append(x.numpy())
        value = x @ torch.tensor(A) + torch.tensor(C) * torch.sin(t / 300.0 + torch.tensor(PHASE))
        extra: dict[str, Any] = {}
        if eta:
            extra = {"eta": eta, "variance_noise": torch.tensor(np.asarray(draw(number)))}
        if isinstance(original, diffusers.DDPMScheduler):
            noise = torch.tensor(np.asarray(draw(number)))
            monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, drawn=noise, **__: drawn)
        done = original.step(value, t, x, **extra)
        x = done.prev_sample
        if eta == 1.0 and original.alphas_cumprod[t] == 0 and torch.isnan(x).all():
            x = from_pure_noise(original, t - 1000 // steps, done.pred_original_sample, extra["variance_noise"])
    return [*seen, x.numpy()]


def from_pure_noise(original: Any, t: int, x0: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """DDIM's step out of pure noise with eta 1, which forgets x_t.

    There diffusers takes the root of 1 - alpha_bar - std², which is 0 but for rounding: NaN if that falls below 0.
    """
    alpha_bar = original.alphas_cumprod[t]
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise


def difference(config: dict[str, Any], kind: SamplerKind, steps: int, eta: float, mp: pytest.MonkeyPatch) -> float:
    """The largest difference anywhere on the trajectory."""
    original = ORIGINALS[kind].from_config({**config})
    a = ours(from_config(config, steps, eta, kind))
    b = theirs(original, steps, eta, mp)
    assert len(a) == len(b) == steps + 1
    return float(np.max(np.abs(np.stack(a) - np.stack(b))))  # NaN if any is


SAMPLERS = [("ddim", 0.0), ("ddim", 1.0), ("ddpm", 0.0), ("dpmpp_2m", 0.0)]


@pytest.mark.parametrize("steps", [25, 50])
@pytest.mark.parametrize(("kind", "eta"), SAMPLERS)
@pytest.mark.parametrize("config", [MODELSCOPE, ZERO_SNR], ids=["modelscope", "zero_snr"])
def test_the_trajectory_is_that_of_diffusers(
    config: dict[str, Any], kind: SamplerKind, eta: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert difference(config, kind, steps, eta, monkeypatch) < TOLERANCE


@pytest.mark.parametrize("steps", [1, 30])  # 30 does not divide 1000
@pytest.mark.parametrize(("kind", "eta"), SAMPLERS)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_every_spacing(
    spacing: str, kind: SamplerKind, eta: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for base in (MODELSCOPE, {**ZERO_SNR, "set_alpha_to_one": True}):
        config = {**base, "timestep_spacing": spacing}
        assert difference(config, kind, steps, eta, monkeypatch) < TOLERANCE, base["prediction_type"]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("dpmpp_2m", {"final_sigmas_type": "sigma_min"}),
        ("dpmpp_2m", {"final_sigmas_type": "sigma_min", "euler_at_final": True}),
        ("dpmpp_2m", {"final_sigmas_type": "sigma_min", "lower_order_final": False}),
        ("ddpm", {"clip_sample": True, "clip_sample_range": 0.5}),
        ("ddpm", {"variance_type": "fixed_small_log"}),
        ("ddim", {"clip_sample": False}),
    ],
)
def test_options(kind: SamplerKind, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for steps in (9, 20):
        for base in ({"beta_schedule": "linear"}, COSINE):
            config = {"clip_sample": False, **base, **changes}
            assert difference(config, kind, steps, 0.0, monkeypatch) < TOLERANCE, (steps, base)


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        ("ddim", {"thresholding": True}, "thresholding is true"),
        ("ddim", {"trained_betas": [0.1] * 100}, "trained_betas"),
        ("ddim", {"clip_sample": True}, "clip_sample is true"),
        ("ddim", {"timestep_spacing": "log"}, "timestep_spacing is 'log'"),
        ("ddim", {"beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid'"),
        ("ddim", {"prediction_type": "flow_prediction"}, "prediction_type is 'flow_prediction'"),
        ("ddim", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr.*epsilon"),
        ("ddim", {"beta_start": "small"}, 'beta_start is "small": use a float'),
        ("ddim", {"steps_offset": 900}, "steps_offset 900"),
        ("ddim", {"sigma_max": 80.0}, "sigma_max is no key"),
        ("ddpm", {"variance_type": "learned_range"}, "variance_type"),
        ("dpmpp_2m", {"use_karras_sigmas": True}, "use_karras_sigmas is true"),
        ("dpmpp_2m", {"solver_order": 3}, "solver_order is 3, not supported here: use 2"),
        ("dpmpp_2m", {"algorithm_type": "sde-dpmsolver++"}, "algorithm_type"),
        ("dpmpp_2m", {"solver_type": "heun"}, "solver_type"),
        ("dpmpp_2m", {"lambda_min_clipped": -5.1}, "lambda_min_clipped"),
        (None, {"_class_name": "PNDMScheduler"}, "_class_name is 'PNDMScheduler'"),
    ],
)
def test_what_has_no_counterpart_is_refused(kind: SamplerKind | None, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(VgenError, match=named) as caught:
        from_config({**MODELSCOPE, **changes}, kind=kind)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", list(ORIGINALS))
def test_what_diffusers_saved_is_read(kind: SamplerKind, tmp_path: Path) -> None:
    own = {"clip_sample": False} if kind == "ddim" else {}
    ORIGINALS[kind](**own).save_pretrained(tmp_path / "scheduler")
    found = load_scheduler(tmp_path, steps=25)
    assert found.sampler.kind == kind and found.kind == "eps" and found.schedule.kind == "linear"
    assert found == load_scheduler(tmp_path / "scheduler", steps=25)


@pytest.mark.parametrize("kind", list(ORIGINALS))
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
        {"set_alpha_to_one": True, "clip_sample_range": 0.5, "euler_at_final": True, "steps_offset": 0},
        {"final_sigmas_type": "sigma_min"},
        {"final_sigmas_type": "sigma_min", "euler_at_final": True},
        {"final_sigmas_type": "sigma_min", "lower_order_final": False},
        COSINE,
    ],
)
def test_what_is_saved_is_the_same_scheduler(changes: dict[str, Any], kind: SamplerKind, tmp_path: Path) -> None:
    found = from_config({**MODELSCOPE, "clip_sample": kind == "ddpm", **changes}, steps=20, kind=kind)
    save_scheduler(found, tmp_path / "scheduler")
    assert load_scheduler(tmp_path, steps=20) == found
    original = ORIGINALS[kind].from_pretrained(tmp_path / "scheduler")
    assert from_config({**original.config}, steps=20) == found


def test_what_diffusers_cannot_express_is_not_saved() -> None:
    with pytest.raises(VgenError, match="kind 'sigmoid' cannot be saved"):
        to_config(Scheduler(Schedule("sigmoid", 100, -3.0, 3.0), DiffusersSampler(Sampler("ddim", 5)), "x0"))
    with pytest.raises(VgenError, match="clip_x0 1.0 of ddim"):
        to_config(Scheduler(Schedule(), DiffusersSampler(Sampler("ddim", 5, clip_x0=1.0)), "x0"))


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(VgenError, match="scheduler_config.json is missing"):
        load_scheduler(tmp_path)
    for text, named in (("{", "is damaged"), (json.dumps([1]), "holds no JSON object")):
        (tmp_path / "scheduler_config.json").write_text(text)
        with pytest.raises(VgenError, match=named):
            load_scheduler(tmp_path)
