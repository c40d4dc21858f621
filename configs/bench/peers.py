"""How fast are the networks beside the same ones in PyTorch? Both in one process, taking turns.

    XLA_PYTHON_CLIENT_PREALLOCATE=false python -m vgen_jax.main --config=configs/bench/peers.py --workdir=out/peers

Needs the extra ``convert`` (PyTorch and diffusers). Leave the machine alone meanwhile: the result notes its load.

variant           what                                                              hardware: wanted
modelscope        ModelScopeT2V's UNet, 16 frames of 256×256, beside torch.compile  a GPU, not measured: train 1.3 ×,
                                                                                    generate 1.5 × PyTorch
pixel             AVID's base (dim 100), 64 windows of 8 frames of 64×64 after 2    a GPU, not measured: 1.5 ×
vizdoom           the UNet of configs/slow/vizdoom.py:cpu in diffusers' form        2 CPU cores: as fast at least
modelscope_small  modelscope, narrow and with few frames: that the code runs        2 CPU cores: nothing
pixel_small       pixel, likewise                                                   likewise
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import Section
from configs.slow import modelscope, vizdoom


def latent(
    block_channels: tuple[int, ...],
    attention_levels: tuple[bool, ...],
    layers_per_block: int,
    head_dim: int,
    norm_groups: int,
    channels: int,
    text_width: int,
) -> Section:
    """Fields of ``UNet3D`` that diffusers' network has too."""
    return {
        "in_channels": channels, "out_channels": channels, "block_channels": block_channels,
        "attention_levels": attention_levels, "layers_per_block": layers_per_block, "head_dim": head_dim,
        "norm_groups": norm_groups, "transformer_in_heads": 8, "cross_attention_dim": text_width, "remat": "none",
    }  # fmt: skip


def pixel(dim: int, heads: int, head_dim: int) -> Section:
    """Fields of ``PixelUNet``, without actions."""
    return {
        "out_channels": 3, "dim": dim, "mults": (1, 2, 4, 8), "heads": heads, "head_dim": head_dim, "actions": "none",
        "patch": 1, "remat": "none",
    }  # fmt: skip


def peer(
    network: str,
    what: tuple[str, ...],
    batch: int,
    frames: int,
    size: int,
    channels: int,
    out_channels: int,
    text: tuple[int, int],
    dtype: str,
    rounds: int,
    compile_mode: str,
    steps: int = 50,
) -> Section:
    """The section; ``text`` is (tokens, width)."""
    return {
        "network": network, "what": what, "batch": batch, "frames": frames, "height": size, "width": size,
        "channels": channels, "out_channels": out_channels, "text_tokens": text[0], "text_width": text[1],
        "dtype": dtype, "rounds": rounds, "steps": steps, "guidance": 9.0, "compile": compile_mode,
    }  # fmt: skip


MS, CPU = modelscope.FULL[0]["unet"], vizdoom.VARIANTS["cpu"]
CHANNELS = CPU["autoencoder"]["latent_channels"]
EVERY, STEP = ("forward", "train", "generate"), ("forward", "train")
VARIANTS: dict[str, tuple[Section, Section]] = {
    "modelscope": (
        peer("latent", EVERY, 1, 16, 32, 4, 4, (77, 1024), "bfloat16", 20, "max-autotune-no-cudagraphs"),
        latent(MS["block_channels"], MS["attention_levels"], 2, 64, 32, 4, 1024),
    ),
    "modelscope_small": (
        peer("latent", EVERY, 1, 4, 8, 4, 4, (8, 32), "float32", 3, "", steps=3),
        latent((32, 64), (True, False), 1, 16, 8, 4, 32),
    ),
    "pixel": (
        peer("pixel", STEP, 64, 8, 64, 9, 3, (0, 0), "bfloat16", 20, "max-autotune-no-cudagraphs"),
        pixel(100, 8, 64),
    ),
    "pixel_small": (peer("pixel", STEP, 2, 4, 16, 9, 3, (0, 0), "float32", 3, ""), pixel(16, 2, 16)),
    "vizdoom": (
        peer(
            "latent", STEP, CPU["batch"], sum(CPU["windows"][0]), CPU["size"][0] // CPU["autoencoder"]["patch"],
            CHANNELS, CHANNELS, (CPU["text"]["max_length"], CPU["text"]["width"]), "float32", 20, "",
        ),
        latent(
            CPU["unet"]["block_channels"], CPU["unet"]["attention_levels"], CPU["unet"]["layers_per_block"],
            CPU["unet"]["head_dim"], CPU["unet"]["norm_groups"], CHANNELS, CPU["text"]["width"],
        ),
    ),
}  # fmt: skip


def get_config(arg: str = "vizdoom") -> ConfigDict:
    """``arg``: the variant."""
    common.known("configs/bench/peers.py", arg, VARIANTS)
    settings, unet = VARIANTS[arg]
    cpu_devices = CPU["cpu_devices"] if arg == "vizdoom" else 0
    return ConfigDict(
        {
            "run": "peer_benchmark", "peer": settings, "unet": unet,
            "mesh": {**common.MESH, "cpu_devices": cpu_devices},
        },
        convert_dict=True,
    )  # fmt: skip
