"""ModelScopeT2V (Wang et al. 2023) from a folder of diffusers, or from the Hugging Face hub.

    python -m vgen_jax.main --config=configs/slow/modelscope.py:t2v --workdir=out/t2v \
      --config.model_dir=FOLDER --config.generate.prompts="('a panda eats bamboo',)"

variant  what it does
t2v      text to video as the original's pipeline does it: 16 frames of 256×256, DDIM, 50 steps, guidance 9

Needs ``pip install 'vgen_jax[convert]'``, for the tokenizer.
"""

from ml_collections import ConfigDict

VARIANTS = {
    "t2v": {
        "run": "text_to_video",
        "model_dir": "ali-vilab/text-to-video-ms-1.7b",
        "generate": {
            "prompts": ("a panda eats bamboo on a rock",), "negative": "", "frames": 16, "height": 256, "width": 256,
            "guidance": 9.0, "sampler": "", "steps": 50, "eta": 0.0, "seed": 0, "dtype": "bfloat16",
            "decode_frames": 4, "fps": 8.0, "gif": True,
        },
    },
}  # fmt: skip


def get_config(arg="t2v"):
    """``arg``: the variant."""
    if arg not in VARIANTS:
        raise ValueError(f"configs/slow/modelscope.py has no variant '{arg}': use one of {', '.join(VARIANTS)}")
    return ConfigDict(VARIANTS[arg], convert_dict=True)
