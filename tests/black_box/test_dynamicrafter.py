"""Image-to-video networks as bases of latent worlds."""

import dataclasses

import jax
import numpy as np
import pytest

from vgen_jax.black_box.ask import Ask
from vgen_jax.black_box.dynamicrafter import image_to_video
from vgen_jax.black_box.sampling import sample_black_box
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.types import Condition, VgenError

SCHEDULE = Schedule("dynamicrafter", zero_terminal_snr=True)
PLAIN = dataclasses.replace(SCHEDULE, kind="scaled_linear")
SAMPLER = Sampler("ddim", 10)
PAST = np.random.default_rng(0).normal(size=(2, 1, 2, 2, 4)).astype(np.float32)
START = np.random.default_rng(1).normal(size=(2, 3, 2, 2, 4)).astype(np.float32)


def network(clip: np.ndarray, t_B: np.ndarray, condition: Condition) -> np.ndarray:
    """Some network: every frame depends on the first one, on the step and on itself."""
    assert clip.dtype == np.float32
    np.testing.assert_array_equal(clip[:, :1], PAST)
    return np.tanh(0.5 * clip + 0.2 * clip[:, :1] + t_B.reshape(-1, 1, 1, 1, 1) / 2000)


def sampled(ask: Ask, schedule: Schedule) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), 2)
    condition = Condition(past_BTHWC=PAST)
    made = sample_black_box(
        lambda base: base, image_to_video(ask, schedule), "v", schedule, SAMPLER, START, condition, keys
    )
    return np.asarray(made)


def test_ddim_takes_the_originals_steps() -> None:
    """DDIM as DynamiCrafter has it, in float64: y, its own v, and x_0 rescaled from one step's s to the next one's."""
    alpha_bar, s = PLAIN.alpha_bar(), SCHEDULE.shrink()
    steps = SAMPLER.timesteps(SCHEDULE)
    y = START.astype(np.float64)
    for t, following in zip(steps, [*steps[1:], -1], strict=True):
        clip = np.concatenate([PAST, y.astype(np.float32)], axis=1)
        u = network(clip, np.full(2, t), Condition())[:, 1:]
        a, sigma = np.sqrt(alpha_bar[t]), np.sqrt(1 - alpha_bar[t])
        x_0, eps = a * y - sigma * u, sigma * y + a * u
        after, s_after = (alpha_bar[following], s[following]) if following >= 0 else (1.0, 1.0)
        y = np.sqrt(after) * x_0 * s_after / s[t] + np.sqrt(1 - after) * eps
    np.testing.assert_allclose(sampled(network, SCHEDULE), y, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("schedule", [SCHEDULE, PLAIN])
def test_a_network_that_knows_the_clip_leads_to_it(schedule: Schedule) -> None:
    clean = np.random.default_rng(2).normal(size=START.shape)

    def knowing(clip: np.ndarray, t_B: np.ndarray, condition: Condition) -> np.ndarray:
        a, sigma = np.sqrt(PLAIN.alpha_bar()[t_B[0]]), np.sqrt(1 - PLAIN.alpha_bar()[t_B[0]])
        shrunk = schedule.shrink()[t_B[0]] * np.concatenate([PAST, clean], axis=1)
        return a * (clip - a * shrunk) / sigma - sigma * shrunk

    np.testing.assert_allclose(sampled(knowing, schedule), clean, rtol=1e-3, atol=1e-3)


def test_one_clean_frame_is_needed() -> None:
    for past in (None, np.zeros((2, 2, 2, 2, 4), np.float32)):
        with pytest.raises(VgenError, match="open with 1 clean frame"):
            image_to_video(network, SCHEDULE)(START, np.zeros(2, np.int32), Condition(past_BTHWC=past))
