"""A memory as guidance: what it changes of a prediction, exaggerated.

    guided = base + scale (memory - base)

The form of classifier-free guidance, with the network without its memory in the place of the null condition. A memory
that was learnt in few steps points in the right direction but not far enough.
"""

from vgen_jax.types import Array, Condition, Prediction, Predictor


def contrastive(base: Predictor, memory: Predictor, scale: float) -> Predictor:
    """Guides ``memory`` away from ``base``.

    Args:
        base: the network without its memory; it predicts what ``memory`` predicts.
        scale: 1 returns ``memory`` itself, at no cost; other values call both at every step.
    """
    if scale == 1.0:
        return memory

    def predict(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
        plain = base(x_t_BTHWC, t_B, condition)
        remembered = memory(x_t_BTHWC, t_B, condition)
        return Prediction(plain.value + scale * (remembered.value - plain.value), remembered.kind)

    return predict
