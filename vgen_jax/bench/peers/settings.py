"""What is timed beside PyTorch, on both sides alike."""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

from vgen_jax.diffusion.schedules import Schedule
from vgen_jax.types import VgenError

WHAT = ("forward", "train", "generate")
# The schedule of ModelScopeT2V; no speed depends on it.
SCHEDULE = Schedule("scaled_linear", 1000, 0.00085, 0.012, zero_terminal_snr=False, set_alpha_to_one=False)
RATE, CLIP, AVERAGE = 1e-4, 1.0, 0.999


@dataclasses.dataclass(frozen=True)
class PeerConfig:
    """What is timed.

    Attributes:
        network: ``latent`` (``UNet3D`` beside diffusers' ``UNet3DConditionModel``) or ``pixel`` (``PixelUNet`` beside
            ``bench.peers.pixel_unet``).
        what: of ``forward``, ``train``, ``generate``; the last of a latent network only.
        batch, frames, height, width: of what the network sees.
        channels, out_channels: of its input and its output.
        text_tokens, text_width: of the texts' embeddings of a latent network.
        dtype: of the computation on both sides.
        rounds: timed.
        steps, guidance: of a generation.
        compile: PyTorch's ``torch.compile`` mode, such as ``max-autotune``; empty leaves it out.
    """

    network: Literal["latent", "pixel"]
    what: tuple[str, ...]
    batch: int
    frames: int
    height: int
    width: int
    channels: int
    out_channels: int
    text_tokens: int
    text_width: int
    dtype: str
    rounds: int
    steps: int
    guidance: float
    compile: str

    def __post_init__(self) -> None:
        if self.network not in ("latent", "pixel"):
            raise VgenError(f"peer.network '{self.network}' is unknown: use latent or pixel")
        for what in self.what:
            if what not in WHAT or (what == "generate" and self.network == "pixel"):
                raise VgenError(f"peer.what has '{what}', which a {self.network} network is not timed at")
        if self.rounds < 1:
            raise VgenError(f"peer.rounds is {self.rounds}: use 1 or more")


class TimedCall(NamedTuple):
    """One side of one measurement: a call that returns when its result is there; what its peak memory was, MiB."""

    call: Callable[[], None]
    peak_mib: Callable[[], float | None]
