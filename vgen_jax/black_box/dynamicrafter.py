"""Image-to-video networks like DynamiCrafter (Xing et al. 2023) as the base of AVID's latent worlds (AVID §4).

Such a network denoises a whole clip, the first frame as any other, and predicts v. AVID puts the clean latent in the
first frame's place at every step and drops what is said of it. Here that is done around the network, so that the base
speaks of the frames to generate, as all Predictors of a world do.

DynamiCrafter also shrinks the latents that it noises, by s_t (``Schedule.shrink``): it is given
y = a s x_0 + sigma eps, a² + sigma² = 1, and says u = a eps - sigma s x_0. With n = sqrt(a² s² + sigma²) the x_t of
this library's schedule of kind ``dynamicrafter`` is y / n, and

    v = (n / s) u + a sigma (s - 1/s) x_t.

DDIM over it takes the steps of the original, whose x_0 is rescaled from s_t to the next s at every step.
"""

import dataclasses

import numpy as np

from vgen_jax.black_box.ask import Ask, answer
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.types import Condition, VgenError


def image_to_video(ask: Ask, schedule: Schedule) -> Ask:
    """A base for latent worlds, which predicts v.

    Args:
        ask: (whole clips, the first frame clean; t; condition) -> u for all of their frames.
        schedule: of the world.
    """
    s_T = schedule.shrink()
    plain = dataclasses.replace(schedule, kind="scaled_linear") if schedule.kind == "dynamicrafter" else schedule
    a_T, sigma_T = np.sqrt(plain.alpha_bar()), np.sqrt(1.0 - plain.alpha_bar())

    def v_of(x_t_BTHWC: np.ndarray, t_B: np.ndarray, condition: Condition) -> np.ndarray:
        past = condition.past_BTHWC
        if past is None or past.shape[1] != 1:
            raise VgenError(
                "an image-to-video base is asked about clips that open with 1 clean frame: set world.past to 1"
            )
        a, sigma, s = (table[t_B].reshape(-1, 1, 1, 1, 1) for table in (a_T, sigma_T, s_T))
        n = np.sqrt((a * s) ** 2 + sigma**2)
        clip = np.concatenate([past, n * x_t_BTHWC], axis=1).astype(np.float32)
        said = answer(ask, clip, t_B, condition)[:, 1:]
        return (n / s * said + a * sigma * (s - 1.0 / s) * x_t_BTHWC).astype(np.float32)

    return v_of
