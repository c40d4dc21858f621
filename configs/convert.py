"""Weights of the original models to and from this library's networks.

    python -m vgen_jax.main --config=configs/convert.py:modelscope --workdir=out/converted \
      --config.convert.source=ali-vilab/text-to-video-ms-1.7b

variant     what a folder holds
modelscope  a text-to-video model (diffusers' TextToVideoSDPipeline): UNet, autoencoder, text tower
kl_vae      Stable Diffusion's autoencoder (diffusers' AutoencoderKL), or the folder of a model that has one
clip        CLIP's text tower (transformers' CLIPTextModel), or the folder of a model that has one

``--config.convert.direction=to_diffusers`` converts back. Needs ``pip install 'vgen_jax[convert]'`` for weights on the
Hugging Face hub, PyTorch's pickles and a text-to-video model's tokenizer.
"""

from ml_collections import ConfigDict

VARIANTS = ("modelscope", "kl_vae", "clip")


def get_config(arg="modelscope"):
    """``arg``: the kind of model."""
    if arg not in VARIANTS:
        raise ValueError(f"configs/convert.py has no variant '{arg}': use one of {', '.join(VARIANTS)}")
    convert = {"model": arg, "direction": "to_flax", "source": "", "target": "", "dtype": "float32"}
    return ConfigDict({"run": "convert", "convert": convert})
