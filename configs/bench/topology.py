"""Does a training fit a TPU pod? Compiles its real step for meshes that are not there, with the TPU's own compiler.

    JAX_PLATFORMS=cpu python -m vgen_jax.main --config=configs/bench/topology.py --workdir=out/topology

Needs ``pip install libtpu`` (the extra ``tpu`` brings the version that belongs to JAX) and no TPU. The argument names
a pipeline's config and variant, ``slow/vizdoom:base``, say; its stage ``slow`` is checked on made-up inputs. Give your
own meshes with ``--config.check.meshes="(('v5e:4x4',2,8,1),)"``: topology, data, fsdp, micro-batches; and any key of
the training with ``--config.stage.…``. ``cpu:8`` is eight simulated devices: ``--config.mesh.cpu_devices=8``, and
``--config.check.steps=1`` runs a step there.

variant                   what                                                                         takes
slow/modelscope:finetune  the paper's batch of 128 windows of 32 frames of 256×256 on 64 chips         see docs/scale.md
slow/vizdoom:base         128×128 on a TPU v5e-8                                                       not run yet
slow/vizdoom:tiny         the pipeline for tests, on four chips and on two simulated devices           see docs/scale.md
"""

import importlib
import importlib.util

from ml_collections import ConfigDict

from configs import common
from configs.slow import modelscope

MESHES = {
    "slow/modelscope:finetune": (
        ("v5e:8x8", 64, 1, 2), ("v5e:8x8", 8, 8, 2), ("v5p:4x4x4", 64, 1, 1), ("v5p:4x4x4", 8, 8, 1),
    ),
    "slow/vizdoom:base": (("v5e:2x4", 8, 1, 1), ("v5e:2x4", 1, 8, 1)),
    "slow/vizdoom:tiny": (("v5e:2x2", 4, 1, 1), ("v5e:2x2", 2, 2, 1), ("cpu:2", 2, 1, 1)),
}  # fmt: skip
ACTIONS = 2  # turn and go forward


def get_config(arg: str = "slow/modelscope:finetune") -> ConfigDict:
    """``arg``: a pipeline, FILE:VARIANT below ``configs``."""
    file, _, variant = arg.partition(":")
    module = f"configs.{file.replace('/', '.')}"
    if importlib.util.find_spec(module) is None:
        some = ", ".join(MESHES)
        raise ValueError(f"configs/bench/topology.py has no variant '{arg}': use a pipeline, such as {some}")
    stages = importlib.import_module(module).get_config(variant).stages
    pretrained = "autoencoder" not in stages
    height, width = stages.data.collect.size
    return ConfigDict(
        {
            "run": "check_topology",
            "check": {"meshes": MESHES[arg] if arg in MESHES else (("cpu:1", 1, 1, 1),), "effort": "", "steps": 0},
            "made": {"height": height, "width": width, "latents": "latents" in stages, "action_dim": ACTIONS},
            "slow": modelscope.FULL[0],
            "autoencoder": modelscope.FULL[1] if pretrained else stages.autoencoder.autoencoder.to_dict(),
            "stage": stages.slow.to_dict(),
            "mesh": {**common.MESH, "cpu_devices": 2 if arg == "slow/vizdoom:tiny" else 0},
        },
        convert_dict=True,
    )
