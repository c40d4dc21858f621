"""What programs send, read back from programs whose collectives follow from their shardings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vgen_jax.devices.collectives import Traffic, traffic

N = 4
ROUNDS = 5


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh(np.asarray(jax.devices()[:N]), ("x",))


def compiled(mesh: Mesh, function, spec_in: PartitionSpec, spec_out: PartitionSpec, shape: tuple[int, ...]) -> str:
    x = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec_in))
    mapped = jax.shard_map(function, mesh=mesh, in_specs=spec_in, out_specs=spec_out, check_vma=False)
    return jax.jit(mapped).lower(x).compile().as_text()


SPLIT, WHOLE = PartitionSpec("x"), PartitionSpec()
BYTES = 4 * 64 * 8  # of the whole array


@pytest.mark.parametrize(
    ("function", "spec_in", "spec_out", "kind", "sent"),
    [
        (lambda x: jax.lax.all_gather(x, "x", tiled=True), SPLIT, WHOLE, "all-gather", BYTES * (N - 1) // N),
        (lambda x: jax.lax.psum(x, "x"), WHOLE, WHOLE, "all-reduce", 2 * BYTES * (N - 1) // N),
        (lambda x: jax.lax.psum_scatter(x, "x", tiled=True), WHOLE, SPLIT, "reduce-scatter", BYTES * (N - 1) // N),
        (
            lambda x: jax.lax.ppermute(x, "x", [(i, (i + 1) % N) for i in range(N)]), SPLIT, SPLIT,
            "collective-permute", BYTES // N,
        ),
    ],
)  # fmt: skip
def test_a_collective_sends_what_a_ring_sends(mesh: Mesh, function, spec_in, spec_out, kind: str, sent: int) -> None:
    assert traffic(compiled(mesh, function, spec_in, spec_out, (64, 8)), N) == {kind: Traffic(1, sent)}


def test_a_loop_sends_in_every_round(mesh: Mesh) -> None:
    def rounds(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, ROUNDS, lambda _, x: jnp.tanh(jax.lax.psum(x, "x")), x)

    found = traffic(compiled(mesh, rounds, WHOLE, WHOLE, (64, 8)), N)
    assert found == {"all-reduce": Traffic(ROUNDS, ROUNDS * 2 * BYTES * (N - 1) // N)}


HEAD = "HloModule m\n\n%body (p: f32[8]) -> f32[8] {\n  %p = f32[8]{0:T(128)} parameter(0)\n"
LOOP = (
    "}\n\n%condition (p: f32[8]) -> pred[] {\n  %c.1 = s32[]{:T(128)} constant(3)\n}\n\nENTRY %main (p: f32[8]) -> "
    "f32[8] {\n  ROOT %w = (s32[], f32[8]) while(%t), condition=%condition, body=%body, "
    'metadata={op_name="all-reduce("}\n}\n'
)  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (
            "  %a = bf16[1,32,64]{2,1,0:T(8,128)(2,1)S(1)} all-gather(%p), replica_groups=[2,2]<=[4], dimensions={1}",
            {"all-gather": Traffic(3, 3 * 2048)},
        ),
        (
            "  %a = (f32[8]{0}, bf16[4]{0}) all-reduce(%p, %q), replica_groups=mesh['a'=2,'b'=4] {'b'}, to_apply=%add",
            {"all-reduce": Traffic(3, 3 * 2 * 40 * 3 // 4)},
        ),
        ("  %f = f32[2]{0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter", {}),
    ],
)  # fmt: skip
def test_the_forms_that_the_tpu_compiler_writes(operation: str, expected: dict) -> None:
    assert traffic(HEAD + operation + "\n" + LOOP, 4) == expected


def test_what_a_fusion_sends_counts() -> None:
    inner = "%inner (p: f32[8]) -> f32[2] {\n  %r = f32[8]{0} all-reduce(%p), replica_groups={{0,1},{2,3}}\n}\n\n"
    text = inner + HEAD.partition("\n\n")[2] + "  %f = f32[2]{0} fusion(%p), kind=kCustom, calls=%inner\n" + LOOP
    assert traffic(text, 4) == {"all-reduce": Traffic(3, 3 * 32)}
