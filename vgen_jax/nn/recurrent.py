"""Recurrent stacks: a dense layer and LSTM cells one above the other, a step at a time.

The cells are flax's: one bias a gate, the recurrent kernels orthogonal at first, the others Glorot-uniform. ``tanh``
off takes the two tanh of a cell away (of its candidate and of its output), as VG-LeAP's and Causal-LeAP's public code
does; its gates stay sigmoids.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vgen_jax.types import Array

# (cell state, output) of each layer, (B, width) both.
Carry = tuple[tuple[Array, Array], ...]

DENSE_INIT = nn.initializers.normal(0.02)


def _same(x: Array) -> Array:
    return x


def zero_carry(batch: int, width: int, layers: int) -> Carry:
    """The state in which every clip begins."""
    zeros = jnp.zeros((batch, width), jnp.float32)
    return tuple((zeros, zeros) for _ in range(layers))


class RecurrentStack(nn.Module):
    """One step: Dense to ``width``, then ``layers`` LSTM cells of that width.

    Attributes:
        width: of the dense layer and of every cell.
        layers: cells.
        tanh: False leaves the cells' tanh out.
        dtype: compute dtype; parameters and the carried state are float32.
    """

    width: int
    layers: int = 1
    tanh: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, carry: Carry, x_BD: Array) -> tuple[Carry, Array]:
        """The state after the step, and the uppermost cell's output (B, width)."""
        x = nn.Dense(self.width, dtype=self.dtype, kernel_init=DENSE_INIT, name="embed")(x_BD.astype(self.dtype))
        after = []
        for layer, state in enumerate(carry):
            cell = nn.OptimizedLSTMCell(
                self.width, dtype=self.dtype, activation_fn=jnp.tanh if self.tanh else _same,
                kernel_init=nn.initializers.glorot_uniform(), name=f"cell_{layer}",
            )  # fmt: skip
            state, x = cell(state, x)
            after.append(jax.tree.map(lambda part: part.astype(jnp.float32), state))
        return tuple(after), x
