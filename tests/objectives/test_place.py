"""The contrastive objective against NumPy, and what its augmentation does to a frame."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vgen_jax.objectives.place import Augment, PairBatch, PlaceLoss, augmented, no_negatives, place, smear
from vgen_jax.types import Array, VgenError

NONE = Augment(tone=0.0, shift=0.0, blur=0.3)
LOSS = PlaceLoss(0.1, near=96.0, turn=30.0, augment=NONE)


def batch(pose_B2P: np.ndarray, scene: list[int], seed: int = 0) -> PairBatch:
    frames = np.random.default_rng(seed).integers(0, 256, (len(scene), 2, 8, 8, 3), np.uint8)
    return PairBatch(jnp.asarray(frames), jnp.asarray(pose_B2P, jnp.float32), jnp.asarray(scene, jnp.int32))


def poses(*rows: tuple[float, float]) -> np.ndarray:
    """(x, heading) of each pair; both of its frames have it."""
    return np.asarray([[[x, 0, 0, heading]] * 2 for x, heading in rows])


# Pairs 0 and 1 are nearly one pose; 2 is the same place, turned; 3 is another place; 4 is pair 0's pose, another scene.
BATCH = batch(poses((0, 359), (50, 5), (0, 90), (500, 0), (0, 0)), [0, 0, 0, 0, 1])


def test_only_the_same_view_is_spared() -> None:
    expected = np.zeros((5, 5), bool)
    expected[0, 1] = expected[1, 0] = True
    np.testing.assert_array_equal(no_negatives(BATCH, 96.0, 30.0), expected)


def test_the_loss_is_what_numpy_says(rng: Array) -> None:
    code = np.random.default_rng(1).normal(size=(10, 4))
    code /= np.linalg.norm(code, axis=1, keepdims=True)
    value, aux = place(Partial(lambda params, frames: params), LOSS)(jnp.asarray(code, jnp.float32), BATCH, rng)
    cosine = code[::2] @ code[1::2].T
    logits = cosine / 0.1
    logits[0, 1] = logits[1, 0] = -np.inf
    soft = np.exp(logits)
    own = np.diag(soft)
    expected = -(np.log(own / soft.sum(1)) + np.log(own / soft.sum(0))).mean() / 2
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(aux["cosine_same"], np.diag(cosine).mean(), rtol=1e-5)
    np.testing.assert_allclose(aux["cosine_other"], cosine[~np.eye(5, dtype=bool)].mean(), rtol=1e-5)
    np.testing.assert_allclose(aux["accuracy"], (logits.argmax(1) == np.arange(5)).mean())


def test_spared_pairs_have_no_gradient(rng: Array) -> None:
    two = batch(poses((0, 0), (1, 1)), [0, 0])
    code = jnp.asarray(np.eye(4), jnp.float32)
    gradient = jax.grad(lambda c: place(Partial(lambda params, frames: params), LOSS)(c, two, rng)[0])(code)
    np.testing.assert_array_equal(gradient, 0.0)


def test_no_augmentation_changes_next_to_nothing(rng: Array) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 3)).astype(np.float32)
    leak = 4 * np.exp(-0.5 / 0.3**2)  # the weight of a pixel's neighbours, which differ from it by 2 at most
    np.testing.assert_allclose(augmented(jnp.asarray(x), rng, NONE), x, atol=2.1 * leak)


def test_every_frame_is_changed_on_its_own(rng: Array) -> None:
    x = np.broadcast_to(np.random.default_rng(0).uniform(-0.5, 0.5, (1, 8, 8, 3)), (4, 8, 8, 3)).astype(np.float32)
    for augment in (Augment(0.2, 0.0, 0.3), Augment(0.0, 2.0, 0.3), Augment(0.0, 0.0, 2.0)):
        y = np.asarray(augmented(jnp.asarray(x), rng, augment))
        assert all(np.abs(y[i] - y[j]).max() > 1e-3 for i in range(4) for j in range(i))
        assert np.abs(y).max() <= 1.0


def test_a_smear_shifts_and_blurs_and_keeps_flat_frames() -> None:
    matrix = np.asarray(smear(8, jnp.asarray([2.0, 0.0]), jnp.asarray([0.3, 2.0])))
    np.testing.assert_allclose(matrix.sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose((matrix[0] @ np.arange(8.0))[:6], np.arange(2, 8), atol=0.01)
    assert matrix[1].max() < 0.5


@pytest.mark.parametrize(("make", "fault"), [(lambda: PlaceLoss(0.0, 1, 1, NONE), "temperature is 0"),
                                             (lambda: Augment(0, 0, 0.1), "blur is 0.1")])  # fmt: skip
def test_wrong_settings_are_refused(make, fault: str) -> None:
    with pytest.raises(VgenError, match=fault):
        make()
