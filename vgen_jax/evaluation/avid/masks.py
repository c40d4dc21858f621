"""What AVID's mask does: pictures over frames (AVID, figure 3) and its mean over diffusion steps (figure 4d)."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from vgen_jax.diffusion.samplers import Sampler, sample_path
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.evaluation.avid.clips import Inputs, Source
from vgen_jax.files import media
from vgen_jax.types import Array, Params
from vgen_jax.worlds.avid import Method

SHOWN, ZOOM = 4, 3
PICTURE, PLOT = "masks.png", "mask_by_step.png"


class Masks(NamedTuple):
    """A few clips and their masks.

    Attributes:
        video_BTHWC: generated frames, uint8.
        over_frames_BTHW: the mask, averaged over diffusion steps.
        step_S: the visited diffusion steps, noisiest first; ``mean_S`` the mean mask at each.
    """

    video_BTHWC: np.ndarray
    over_frames_BTHW: np.ndarray
    step_S: np.ndarray
    mean_S: np.ndarray


def masks(
    method: Method, params: Params, source: Source, numbers: list[int], sampler: Sampler, schedule: Schedule
) -> Masks:
    """Samples those clips and asks for the mask at every x_t on the way."""

    @jax.jit
    def run(predict: Any, parts: Any, params: Params, decode: Any, inputs: Inputs) -> tuple[Array, Array]:
        noise, key_B = inputs.noise()
        condition = inputs.condition
        x_0, x_SBTHWC = sample_path(
            lambda x, t_B, c: predict(params, x, t_B, c), schedule, sampler, noise, condition, key_B
        )

        def mask(at: tuple[Array, Array]) -> Array:
            x, t = at
            adapted = parts(params, x, jnp.full(x.shape[:1], t, jnp.int32), condition).adapted
            return adapted.mask_BTHW1[..., 0]

        return decode(x_0), jax.lax.map(mask, (x_SBTHWC, jnp.asarray(step_S)))

    step_S = sampler.timesteps(schedule)
    video, mask_SBTHW = run(method.predict, method.parts, params, source.codec.decode, source.inputs(numbers))
    found = np.asarray(mask_SBTHW, np.float64)
    return Masks(np.asarray(video), found.mean(0), step_S, found.mean((1, 2, 3, 4)))


def write_masks(found: Masks, source: Source, numbers: list[int], folder: Path) -> tuple[Path, Path]:
    """``masks.png``: of each clip real frames, generated frames, the mask; white takes the base. And the plot.

    The mask of latents is drawn as wide as the frames.
    """
    rows = []
    frames = found.video_BTHWC.shape[1]
    wider = found.video_BTHWC.shape[2] // found.over_frames_BTHW.shape[2]
    for n in range(min(SHOWN, len(numbers))):
        grey = np.round(found.over_frames_BTHW[n] * 255).astype(np.uint8).repeat(wider, axis=1).repeat(wider, axis=2)
        shown = (source.video(numbers[n])[-frames:], found.video_BTHWC[n], np.repeat(grey[..., None], 3, axis=-1))
        rows += [np.concatenate(list(clip), axis=1) for clip in shown]
    picture, plot = folder / PICTURE, folder / PLOT
    media.write_png(picture, np.concatenate(rows).repeat(ZOOM, axis=0).repeat(ZOOM, axis=1))
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(found.step_S, found.mean_S, marker=".")
    axes.set(xlabel="diffusion step (noise to the right)", ylabel="mean mask", ylim=(0, 1))
    figure.savefig(plot, dpi=150)
    return picture, plot
