"""Classifier-free guidance (Ho and Salimans 2022) as a function from Predictor to Predictor.

    guided = null + scale (conditional - null)

ModelScopeT2V samples with scale 9. The conditional and the null window go through the network in one call.
"""

import jax
import jax.numpy as jnp

from vgen_jax.types import Array, Condition, Prediction, Predictor


def classifier_free(predictor: Predictor, null: Condition, scale: float) -> Predictor:
    """Guides ``predictor`` away from the ``null`` condition.

    Args:
        null: the unconditional counterpart, with the shapes of the conditions that the Predictor will be called with.
        scale: 1 returns the Predictor itself; larger follows the condition more closely.
    """
    if scale == 1.0:
        return predictor

    def predict(x_t_BTHWC: Array, t_B: Array, condition: Condition) -> Prediction:
        both = jax.tree.map(lambda c, n: jnp.concatenate([c, n]), condition, null)
        out = predictor(jnp.concatenate([x_t_BTHWC, x_t_BTHWC]), jnp.concatenate([t_B, t_B]), both)
        conditional, unconditional = jnp.split(out.value, 2)
        return Prediction(unconditional + scale * (conditional - unconditional), out.kind)

    return predict
