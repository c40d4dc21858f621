"""What a chip can do at most, as its maker publishes it: the peak that MFU is measured against, memory, links."""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device as JAX counts them.

    Attributes:
        flops: dense matrix products in bfloat16 (float16 where there is none), per second.
        memory: GiB of HBM. A little less of it can be used: the compiler knows how much.
        link: bytes per second that a TPU chip can send over all of its links together; 0 where none is published or
            it depends on the machine around it.
    """

    flops: float
    memory: int
    link: float = 0.0


# By JAX's device_kind. TPUs: cloud.google.com/tpu/docs, one page per version. GPUs: NVIDIA's data sheets, SXM, without
# sparsity.
CHIPS = {
    "TPU v4": Chip(275e12, 32, 300e9),
    "TPU v5 lite": Chip(197e12, 16, 200e9),
    "TPU v5": Chip(459e12, 95, 600e9),
    "TPU v5p": Chip(459e12, 95, 600e9),
    "TPU v6 lite": Chip(918e12, 32, 448e9),
    "Tesla T4": Chip(65e12, 16),
    "Tesla V100-SXM2-16GB": Chip(125e12, 16),
    "Tesla V100-SXM2-32GB": Chip(125e12, 32),
    "NVIDIA A100-SXM4-40GB": Chip(312e12, 40),
    "NVIDIA A100-SXM4-80GB": Chip(312e12, 80),
    "NVIDIA L4": Chip(121e12, 24),
    "NVIDIA H100 80GB HBM3": Chip(989e12, 80),
    "NVIDIA H200": Chip(989e12, 141),
}


def chip_of(device: jax.Device) -> Chip | None:
    """What is published of a device; None for a CPU or a chip that is not in the table."""
    return CHIPS.get(device.device_kind)  # type: ignore[no-any-return,unused-ignore]
