"""Import RT-1 (Brohan et al. 2022; ``fractal20220817_data`` of Open X-Embodiment) as a data set of records.

    python -m vgen_jax.main --config=configs/data/rt1.py --config.rlds.folder=.../fractal20220817_data/0.1.0 \
        --workdir=data/rt1

Needs ``pip install -e ".[tfds]"`` and the prepared data set (https://github.com/google-deepmind/open_x_embodiment),
which is read once. Not run on the whole of RT-1 yet. Other RLDS data need other paths, names and scales (the keys of
``rlds``); a missing path is answered with the names that there are.
"""

import os

from ml_collections import ConfigDict

SIZE = (320, 512)  # DynamiCrafter's; AVID §9.2


def get_config() -> ConfigDict:
    """The run; ``rlds.folder`` is given on the command line."""
    return ConfigDict(
        {
            "run": "import_rlds",
            "rlds": {
                "folder": "path/of/fractal20220817_data/0.1.0",
                "source": "rt1",
                "source_split": "train",
                "image": "observation/image",
                "text": "observation/natural_language_instruction",
                "action": ("action/world_vector", "action/rotation_delta", "action/gripper_closedness_action"),
                "names": ("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
                "scale": (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
                "fps": 3.0,
                "size": SIZE,
                "fit": "pad",
                "chunk": 1,
                "episodes_per_shard": 200,
                "workers": os.cpu_count() or 1,
            },
            "splits": {"train": {"first": 0, "episodes": 86_000}, "test": {"first": 86_000, "episodes": 1212}},
        },
        convert_dict=True,
    )
