"""The PyTorch side of ``bench.peers.timing``: the strongest settings that are at hand."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vgen_jax.bench.peers.pixel_unet import PixelUNet
from vgen_jax.bench.peers.settings import AVERAGE, CLIP, RATE, SCHEDULE, PeerConfig, TimedCall
from vgen_jax.convert.modelscope import original_config
from vgen_jax.models.unet_latent import UNet3D

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchSide:
    """The network and its inputs, on the GPU if there is one; channels last, ``torch.compile`` if asked for."""

    def __init__(self, settings: PeerConfig, unet: Mapping[str, Any]):
        self._s = settings
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = DTYPES[settings.dtype]
        self._latent = settings.network == "latent"
        torch.manual_seed(0)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        s, size = settings, (settings.height, settings.width)
        if self._latent:
            from diffusers import UNet3DConditionModel

            self._plain = UNet3DConditionModel.from_config(original_config(UNet3D(**unet)))
            x = torch.randn(s.batch, s.channels, s.frames, *size)
            self._text: Tensor | None = torch.randn(s.batch, s.text_tokens, s.text_width, device=self._device)
        else:
            shape = {key: unet[key] for key in ("out_channels", "dim", "mults", "heads", "head_dim")}
            self._plain = PixelUNet(s.channels, s.frames, **shape)
            x = torch.randn(s.batch * s.frames, s.channels, *size).contiguous(memory_format=torch.channels_last)
            self._text = None
        self._plain = self._plain.to(self._device)
        kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
        convolutions: list[Any] = [m for m in self._plain.modules() if isinstance(m, kinds)]
        for convolution in convolutions:  # Any: PyTorch's releases differ in what they tell mypy of Module.to
            convolution.to(memory_format=torch.channels_last)
        self._x = x.to(self._device)
        self._t = torch.randint(0, SCHEDULE.steps, (s.batch,), device=self._device)
        self.parameters = sum(p.numel() for p in self._plain.parameters())

    def versions(self) -> dict[str, str]:
        """What it is."""
        found = {"torch": torch.__version__, "torch.compile": self._s.compile or "no"}
        if self._latent:
            import diffusers

            found["diffusers"] = diffusers.__version__
        return found

    def lane(self, what: str) -> TimedCall:
        """The measurement ``what``."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        call = {"forward": self._forward, "train": self._train, "generate": self._generate}[what]()
        return TimedCall(call, self._peak)

    def _peak(self) -> float | None:
        return torch.cuda.max_memory_allocated() / 2**20 if self._device.type == "cuda" else None

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _compiled(self, network: Any) -> Any:
        return torch.compile(network, mode=self._s.compile) if self._s.compile else network

    def _autocast(self) -> Any:
        if self._dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, self._dtype)

    def _apply(self, network: Any, x: Tensor, t: Tensor, text: Tensor | None) -> Tensor:
        return network(x, t, encoder_hidden_states=text).sample if self._latent else network(x, t)

    def _forward(self) -> Callable[[], None]:
        network = self._compiled(self._plain.to(self._dtype).eval())
        x, text = self._x.to(self._dtype), None if self._text is None else self._text.to(self._dtype)

        @torch.inference_mode()
        def call() -> None:
            self._apply(network, x, self._t, text)
            self._wait()

        return call

    def _train(self) -> Callable[[], None]:
        plain = self._plain.float().train()
        network = self._compiled(plain)
        params = list(plain.parameters())
        average = [p.detach().clone() for p in params]
        optimizer = torch.optim.Adam(params, RATE, fused=True)
        alpha_bar = torch.from_numpy(SCHEDULE.alpha_bar()).float().to(self._device)
        per = self._x.shape[0] // self._s.batch  # rows of a sample: frames are folded in a pixel network

        def call() -> None:
            t = torch.randint(0, SCHEDULE.steps, (self._s.batch,), device=self._device)
            eps = torch.randn_like(self._x)
            level = alpha_bar[t].repeat_interleave(per).reshape(-1, *[1] * (self._x.ndim - 1))
            x_t = level.sqrt() * self._x + (1 - level).sqrt() * eps
            with self._autocast():
                value = self._apply(network, x_t, t, self._text)
            loss = (value.float() - eps[:, : self._s.out_channels]).square().mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(params, CLIP, foreach=True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            torch._foreach_lerp_(average, params, 1 - AVERAGE)
            self._wait()

        return call

    def _generate(self) -> Callable[[], None]:
        from diffusers import DDIMScheduler

        scheduler: Any = DDIMScheduler(
            SCHEDULE.steps, SCHEDULE.start, SCHEDULE.end, "scaled_linear", clip_sample=False, set_alpha_to_one=False,
            steps_offset=1,
        )  # fmt: skip
        network = self._compiled(self._plain.to(self._dtype).eval())
        assert self._text is not None
        both = torch.cat([torch.zeros_like(self._text), self._text]).to(self._dtype)

        @torch.inference_mode()
        def call() -> None:
            scheduler.set_timesteps(self._s.steps, device=self._device)
            x = self._x
            for t in scheduler.timesteps:
                twice = torch.cat([x, x]).to(self._dtype)
                null, told = self._apply(network, twice, t, both).float().chunk(2)
                x = scheduler.step(null + self._s.guidance * (told - null), t, x).prev_sample
            self._wait()

        return call
