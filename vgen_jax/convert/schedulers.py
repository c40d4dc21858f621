"""A diffusers scheduler_config.json as a Schedule, a Sampler and what the network predicts.

DDIMScheduler, DDPMScheduler and DPMSolverMultistepScheduler are read, so that a sample follows the same trajectory here
and there. Every key is accounted for: what would change a trajectory and has no counterpart here is refused by name,
keys of another of these classes are ignored as diffusers ignores them (which is how one class takes over the config of
another).
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vgen_jax.convert import files
from vgen_jax.diffusion.samplers import Sampler, SamplerKind
from vgen_jax.diffusion.schedules import Schedule, ScheduleKind
from vgen_jax.types import PredictionKind, VgenError

PART = "scheduler"  # its folder in a text-to-video model
CONFIG_FILE = "scheduler_config.json"
CLASSES: dict[str, SamplerKind] = {
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
}
PREDICTIONS: dict[str, PredictionKind] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
BETAS: dict[str, ScheduleKind] = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}

# DPMSolverMultistepScheduler stays this far from pure noise where its first log(alpha / sigma) would be infinite.
DPM_TERMINAL_ALPHA_BAR = 2.0**-24
# Below this number of steps, lower_order_final makes that scheduler's last step one of first order.
DPM_FEW_STEPS = 15

_SHARED = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
}
_CLIP = {"clip_sample": True, "clip_sample_range": 1.0}
# What each class takes for a key that its config leaves out.
_DEFAULTS: dict[SamplerKind, dict[str, Any]] = {
    "ddim": {**_SHARED, **_CLIP, "set_alpha_to_one": True},
    "ddpm": {**_SHARED, **_CLIP, "variance_type": "fixed_small"},
    "dpmpp_2m": {
        **_SHARED,
        "timestep_spacing": "linspace",
        "solver_order": 2,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": True,
        "euler_at_final": False,
        "use_karras_sigmas": False,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
        "use_lu_lambdas": False,
        "use_flow_sigmas": False,
        "flow_shift": 1.0,
        "final_sigmas_type": "zero",
        "lambda_min_clipped": -math.inf,
        "variance_type": None,
        "use_dynamic_shifting": False,
        "time_shift_type": "exponential",
    },
}
# Keys of which only these values have a counterpart here; the variances named differ in nothing, or in nothing that a
# deterministic solver sees.
_ONLY: dict[SamplerKind, dict[str, tuple[Any, ...]]] = {
    "ddim": {"trained_betas": (None,), "thresholding": (False,), "clip_sample": (False,)},
    "ddpm": {
        "trained_betas": (None,),
        "thresholding": (False,),
        "variance_type": ("fixed_small", "fixed_small_log", None),
    },
    "dpmpp_2m": {
        "trained_betas": (None,),
        "thresholding": (False,),
        "solver_order": (2,),
        "algorithm_type": ("dpmsolver++",),
        "solver_type": ("midpoint",),
        "use_karras_sigmas": (False, None),
        "use_exponential_sigmas": (False, None),
        "use_beta_sigmas": (False, None),
        "use_lu_lambdas": (False, None),
        "use_flow_sigmas": (False, None),
        "use_dynamic_shifting": (False, None),
        "final_sigmas_type": ("zero", "sigma_min"),
        "lambda_min_clipped": (-math.inf,),
        "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
    },
}
_OTHERS = {"skip_prk_steps"}  # PNDM's: Stable Diffusion's DDIM configs still carry it


@dataclasses.dataclass(frozen=True)
class DiffusersSampler:
    """A Sampler with the noise levels that diffusers gives its steps.

    DDIMScheduler leads each step to t - schedule.steps // steps, even where the next visited step is another one;
    DPMSolverMultistepScheduler stays a little short of pure noise.

    Attributes:
        plain: the Sampler whose steps these are.
        second_order_end_from: from this number of steps on, the last step of ``dpmpp_2m`` keeps its second order; 0 for
            never.
    """

    plain: Sampler
    second_order_end_from: int = 0

    @property
    def kind(self) -> SamplerKind:
        """See ``Sampler``."""
        return self.plain.kind

    @property
    def eta(self) -> float:
        """See ``Sampler``."""
        return self.plain.eta

    @property
    def clip_x0(self) -> float:
        """See ``Sampler``."""
        return self.plain.clip_x0

    def timesteps(self, schedule: Schedule) -> np.ndarray:
        """See ``Sampler.timesteps``."""
        return self.plain.timesteps(schedule)

    def levels(self, schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
        """See ``Sampler.levels``."""
        before, after = self.plain.levels(schedule)
        if self.kind == "ddim":
            t = self.timesteps(schedule) - schedule.steps // self.plain.steps
            return before, np.where(t < 0, after[-1], schedule.alpha_bar()[np.maximum(t, 0)])
        if self.kind == "dpmpp_2m" and schedule.zero_terminal_snr:
            return np.maximum(before, DPM_TERMINAL_ALPHA_BAR), after
        return before, after

    def ends_in_first_order(self) -> bool:
        """See ``Sampler.ends_in_first_order``."""
        return not 0 < self.second_order_end_from <= self.plain.steps


class Scheduler(NamedTuple):
    """What a scheduler_config.json says: ``kind`` is what the network predicts."""

    schedule: Schedule
    sampler: DiffusersSampler
    kind: PredictionKind


def load_scheduler(folder: str | Path, steps: int = 50, eta: float = 0.0, kind: SamplerKind | None = None) -> Scheduler:
    """A scheduler as diffusers saved it.

    Args:
        folder: the scheduler's, its whole model's, or a model of the Hugging Face hub (``files.locate``).
        steps, eta, kind: see ``from_config``.

    Raises:
        VgenError: if there is none, its file is damaged, or for what ``from_config`` refuses.
    """
    path = files.locate(folder, PART) / CONFIG_FILE
    return from_config(files.read_json(path), steps, eta, kind, str(path))


def from_config(
    values: Mapping[str, Any],
    steps: int = 50,
    eta: float = 0.0,
    kind: SamplerKind | None = None,
    name: str = CONFIG_FILE,
) -> Scheduler:
    """A scheduler from the keys of a scheduler_config.json.

    Args:
        steps: network evaluations, diffusers' num_inference_steps.
        eta: DDIM's stochasticity; the file does not say it.
        kind: take the keys over to another class, as diffusers' ``from_config`` does; ``None`` for the file's own.
        name: of the file, for errors.

    Raises:
        VgenError: names the key which has no counterpart here.
    """
    kind = kind or _kind(values, name)
    if kind not in _DEFAULTS:
        raise VgenError(f"sampler.kind '{kind}' is unknown: use {', '.join(_DEFAULTS)}")
    v = _checked(values, kind, name)
    prediction = PREDICTIONS[_one_of(v, "prediction_type", PREDICTIONS, name)]
    betas = BETAS[_one_of(v, "beta_schedule", BETAS, name)]
    spacing = _one_of(v, "timestep_spacing", ("leading", "trailing", "linspace"), name)
    if v["rescale_betas_zero_snr"] and prediction == "eps":
        raise VgenError(
            f"{name}: rescale_betas_zero_snr leaves prediction_type epsilon no x_0 at pure noise: set false"
        )
    # The cosine schedule has no ends to choose.
    start, end = (0.0, 0.0) if betas == "cosine" else (v["beta_start"], v["beta_end"])
    schedule = Schedule(
        betas,
        v["num_train_timesteps"],
        start,
        end,
        zero_terminal_snr=v["rescale_betas_zero_snr"],
        set_alpha_to_one=_ends_clean(v, kind),
    )
    clip_x0 = v["clip_sample_range"] if kind == "ddpm" and v["clip_sample"] else 0.0
    plain = Sampler(kind, steps, eta if kind == "ddim" else 0.0, spacing, v["steps_offset"], clip_x0)
    sampler = DiffusersSampler(plain, _second_order_end_from(v) if kind == "dpmpp_2m" else 0)
    sampler.timesteps(schedule)  # refuses steps that the schedule has no room for
    return Scheduler(schedule, sampler, prediction)


def to_config(scheduler: Scheduler) -> dict[str, Any]:
    """The keys of a scheduler_config.json: ``from_config`` gives the scheduler back, steps and eta apart.

    Raises:
        VgenError: for what that class of diffusers' cannot express.
    """
    schedule, sampler, kind = scheduler
    betas = {ours: theirs for theirs, ours in BETAS.items()}
    if schedule.kind not in betas:
        raise VgenError(f"a schedule of kind '{schedule.kind}' cannot be saved for diffusers: use {', '.join(betas)}")
    if sampler.clip_x0 and sampler.kind != "ddpm":
        raise VgenError(f"sampler.clip_x0 {sampler.clip_x0} of {sampler.kind} cannot be saved for diffusers: use 0")
    found = {
        **_DEFAULTS[sampler.kind],
        "_class_name": next(name for name, kind in CLASSES.items() if kind == sampler.kind),
        "num_train_timesteps": schedule.steps,
        "beta_schedule": betas[schedule.kind],
        "prediction_type": next(name for name, ours in PREDICTIONS.items() if ours == kind),
        "timestep_spacing": sampler.plain.spacing,
        "steps_offset": sampler.plain.steps_offset,
        "rescale_betas_zero_snr": schedule.zero_terminal_snr,
    }
    if schedule.kind != "cosine":
        found |= {"beta_start": schedule.start, "beta_end": schedule.end}
    if sampler.kind == "ddim":
        found |= {"clip_sample": False, "set_alpha_to_one": schedule.set_alpha_to_one}
    elif sampler.kind == "ddpm":
        found |= {"clip_sample": sampler.clip_x0 > 0, "clip_sample_range": sampler.clip_x0 or 1.0}
    else:
        del found["lambda_min_clipped"]  # JSON has no infinity
        found["final_sigmas_type"] = "zero" if schedule.set_alpha_to_one else "sigma_min"
        found["euler_at_final"] = not schedule.set_alpha_to_one and not sampler.second_order_end_from
        found["lower_order_final"] = sampler.second_order_end_from != 1
    return found


def save_scheduler(scheduler: Scheduler, folder: str | Path) -> None:
    """Writes ``scheduler_config.json`` for ``from_pretrained(folder)`` of the scheduler's class.

    Raises:
        VgenError: see ``to_config``; or if the folder cannot be written.
    """
    files.write_json(Path(folder) / CONFIG_FILE, to_config(scheduler))


def _ends_clean(v: Mapping[str, Any], kind: SamplerKind) -> bool:
    """Whether the last step leads to ᾱ = 1."""
    return {
        "ddim": lambda: v["set_alpha_to_one"],
        "ddpm": lambda: True,
        "dpmpp_2m": lambda: v["final_sigmas_type"] == "zero",
    }[kind]()


def _second_order_end_from(v: Mapping[str, Any]) -> int:
    if v["euler_at_final"] or v["final_sigmas_type"] == "zero":
        return 0
    return DPM_FEW_STEPS if v["lower_order_final"] else 1


def _kind(values: Mapping[str, Any], name: str) -> SamplerKind:
    found = values["_class_name"] if "_class_name" in values else None
    if found not in CLASSES:
        raise VgenError(f"{name}: _class_name is {found!r}, which has no counterpart here: use {', '.join(CLASSES)}")
    return CLASSES[found]


def _checked(values: Mapping[str, Any], kind: SamplerKind, name: str) -> dict[str, Any]:
    """The keys of that class, absent ones by default, each of the default's type and a value that is supported."""
    defaults = _DEFAULTS[kind]
    known = _OTHERS.union(*_DEFAULTS.values())
    for key in values:
        if not key.startswith("_") and key not in known:
            raise VgenError(f"{name}: {key} is no key that is known here: remove it if it changes nothing")
    found = {**defaults, **{key: value for key, value in values.items() if key in defaults}}
    for key, value in found.items():
        only = _ONLY[kind]
        if key in only:
            if value not in only[key]:
                allowed = " or ".join(json.dumps(v) for v in only[key])
                raise VgenError(f"{name}: {key} is {json.dumps(value)[:60]}, not supported here: use {allowed}")
        elif not _same_type(value, defaults[key]):
            wanted = type(defaults[key]).__name__
            raise VgenError(f"{name}: {key} is {json.dumps(value)[:60]}: use a {wanted}, such as {defaults[key]!r}")
        if isinstance(defaults[key], float):
            found[key] = float(value)
    return found


def _same_type(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))


def _one_of(v: Mapping[str, Any], key: str, allowed: Any, name: str) -> Any:
    if v[key] not in allowed:
        raise VgenError(f"{name}: {key} is '{v[key]}', not supported here: use {' or '.join(allowed)}")
    return v[key]
